"""ColumnTiles: columns of a mask that rows on one lattice keep, as blocks of tiles over packed values where they stand.

What is kept of a block's columns stands side by side in each row's packed values. So a tile is read row by row, as
`PackedTiles` are, and transposed where it is multiplied: nothing is copied to the order of the transposed mask. The
rows of a block's tiles are neighbours in the list of all rows that are one run each, sorted by lattice and begin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.packed.problem import RunTable
from splat_numba.gen.packed.tiles import LEAST_KEPT, NO_ROW, TILE_PLACES, TILE_ROWS, Ints, TileBlocks, Words, lattices

FAR = 1 << 40  # keeps what is searched of lattices apart: beyond any place


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ColumnTiles(TileBlocks):
    """Blocks of columns. Behind the listed rows of each lattice stand as many of NO_ROW as a tile may reach. blocks:
    (blocks, 8): behind what `TileBlocks` has, the first of the listed rows, and zeros.
    """

    along: ClassVar[int] = TILE_ROWS

    def of_blocks(self, chosen: NDArray[np.bool_]) -> Self:
        """Those; the rows are listed for all."""
        blocks = self.blocks[chosen]
        covered = _covered(blocks, self.size, self.covered.size)
        return type(self)(self.size, self.rows, blocks, covered, self.kept[chosen])

    @classmethod
    def of(cls, table: RunTable, counts: Ints, size: int = TILE_PLACES) -> ColumnTiles:
        """table: of the mask; counts: (columns,), of the rows that keep each. A block is there where rows on its
        lattice keep all that is kept of its columns. Its cost is that of rows and columns.
        """
        row, step, residue, begin, count = lattices(table)
        listed = np.empty((0, 4), np.uint32)
        if not row.size:
            return cls(
                size, listed, np.empty((0, 8), np.uint32), np.zeros(counts.size, np.bool_), np.empty(0, np.int64)
            )
        new = np.concatenate([[True], (np.diff(step) != 0) | (np.diff(residue) != 0)])
        lattice, first = np.cumsum(new) - 1, np.flatnonzero(new)
        low = begin[first]
        blocks = -(-(np.maximum.reduceat(begin + count, first) - low) // size)
        of = np.repeat(np.arange(first.size), blocks)  # each block's lattice
        start = np.cumsum(blocks) - blocks
        place = low[of] + size * (np.arange(of.size) - start[of])
        kept = _kept(begin - low[lattice] + size * start[lattice], count, size * of.size).reshape(-1, size)
        column = residue[first][of][:, None] + step[first][of][:, None] * (place[:, None] + np.arange(size))
        wanted = np.where(column < counts.size, counts[np.minimum(column, counts.size - 1)], 0)
        ends = np.maximum.accumulate(begin + count + FAR * lattice)
        top = np.searchsorted(ends, place + FAR * of, side="right")
        tiles = -(-(np.searchsorted(begin + FAR * lattice, place + size + FAR * of) - top) // TILE_ROWS)
        pairs = kept.sum(axis=1)
        worth = (kept == wanted).all(axis=1) & (pairs >= np.maximum(LEAST_KEPT * size * TILE_ROWS * tiles, 1))
        chosen = np.flatnonzero(worth)[np.argsort(-tiles[worth], kind="stable")]
        whose = of[chosen]
        listed, at = _listed(
            np.stack([row, table.slot_ptr[row] - begin, begin, count], axis=1), lattice, np.unique(whose)
        )
        nothing = np.zeros_like(chosen)
        heads = [
            residue[first][whose],
            step[first][whose],
            place[chosen],
            tiles[chosen],
            at[top[chosen]],
            *[nothing] * 3,
        ]
        made = np.stack(heads, axis=1).astype(np.uint32)
        return cls(size, listed, made, _covered(made, size, counts.size), pairs[chosen])


def _kept(first: Ints, count: Ints, length: int) -> Ints:
    """(length,): how many of the runs ``first`` to ``first + count`` have each place."""
    ends = np.bincount(first, minlength=length + 1) - np.bincount(first + count, minlength=length + 1)
    found: Ints = np.cumsum(ends)[:length]
    return found


def _listed(rows: Ints, lattice: Ints, wanted: Ints) -> tuple[Words, Ints]:
    """(the list of the rows of these lattices, where each row stands in it)."""
    here = np.isin(lattice, wanted)
    at = np.cumsum(here) - 1 + TILE_ROWS * np.searchsorted(wanted, lattice)
    listed = np.tile(np.array([NO_ROW, 0, 0, 0], np.uint32), (int(here.sum()) + TILE_ROWS * wanted.size, 1))
    listed[at[here]] = rows[here].astype(np.uint32)
    return listed, at


def _covered(blocks: Words, size: int, columns: int) -> NDArray[np.bool_]:
    """(columns,): which are in a block."""
    residue, step, place = (blocks[:, [x]].astype(np.int64) for x in range(3))
    column = residue + step * (place + np.arange(size))
    covered = np.zeros(columns, np.bool_)
    covered[column[column < columns]] = True
    return covered
