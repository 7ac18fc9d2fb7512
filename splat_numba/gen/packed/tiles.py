"""PackedTiles: rows of a mask that share columns, as blocks of tiles over packed values, for matrix products.

A row that is one run, SPLAT's affine row, keeps places begin to begin + count of a lattice, column = residue + step *
place; the packed value of a place stands at base + place. Rows on one lattice, sorted by where they begin, make blocks;
a block's tiles begin at its least place, wherever that is. This is SPLAT's poset tiling as we define it: rows are
ordered by the columns that they share, and a tile is a dense product of which what is kept is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sealed import Sealed
from splat_numba.gen.packed.problem import RunTable

TILE_ROWS = 64  # of a block, or a multiple
TILE_PLACES = 64
NO_ROW = 2**32 - 1  # of a block that has fewer
LEAST_KEPT = 1 / 16  # of a tile's pairs: with fewer no kernel is faster than a warp a row

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TileBlocks(Sealed):
    """Blocks of tiles over packed values, by the mask's rows or by its columns; along: what a tile has of the other.

    size: rows, or columns, of a block. rows: (listed, 4): row, base (modulo 2**32), begin, count; or NO_ROW and zeros.
    blocks: (blocks, 4 or more): residue, step, first place, tiles; the longest first. covered: (rows or columns of the
    mask,), which are in a block. kept: (blocks,), pairs of each one.
    """

    along: ClassVar[int]

    size: int

    rows: Words
    blocks: Words
    covered: NDArray[np.bool_]
    kept: Ints

    @property
    def pairs(self) -> int:
        """That blocks keep."""
        return int(self.kept.sum())

    @property
    def tiles(self) -> int:
        """How many."""
        return int(self.blocks[:, 3].sum())

    @property
    def area(self) -> int:
        """Pairs of all tiles, kept or not."""
        return self.size * self.along * self.tiles

    def denser(self, least: float) -> Self:
        """Those blocks of which at least this share is kept."""
        return self.of_blocks(self.kept >= least * self.size * self.along * self.blocks[:, 3])

    def of_blocks(self, chosen: NDArray[np.bool_]) -> Self:
        """Those blocks."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PackedTiles(TileBlocks):
    """Blocks of rows, whose own list follows theirs: (blocks * size, 4), NO_ROW where a block has fewer."""

    along: ClassVar[int] = TILE_PLACES

    def fuller(self, pairs: int) -> PackedTiles:
        """Those blocks of which every row keeps at least so many pairs."""
        counts = np.where(self.rows[:, 0] == NO_ROW, NO_ROW, self.rows[:, 3])
        return self.of_blocks(counts.reshape(-1, self.size).min(axis=1, initial=NO_ROW) >= pairs)

    def of_blocks(self, chosen: NDArray[np.bool_]) -> Self:
        """Those, and their rows."""
        rows = self.rows.reshape(-1, self.size, 4)[chosen].reshape(-1, 4)
        covered = np.zeros_like(self.covered)
        covered[rows[rows[:, 0] != NO_ROW, 0]] = True
        return type(self)(self.size, rows, self.blocks[chosen], covered, self.kept[chosen])

    @classmethod
    def of(cls, table: RunTable, size: int = TILE_ROWS) -> PackedTiles:
        """Of the rows that are one run each, but for blocks of which too little is kept. Its cost is the rows'."""
        row, step, residue, begin, count = lattices(table)
        block = _blocks(step, residue, size)
        blocks = int(block[-1]) + 1 if block.size else 0
        low, high = np.full(blocks, 2**62), np.zeros(blocks, np.int64)
        np.minimum.at(low, block, begin)
        np.maximum.at(high, block, begin + count)
        tiles = -(-(high - low) // TILE_PLACES)
        pairs = np.bincount(block, count, blocks).astype(np.int64)
        worth = pairs >= LEAST_KEPT * size * TILE_PLACES * tiles
        longest = np.argsort(-tiles[worth], kind="stable")
        number = np.full(blocks, -1)
        number[np.flatnonzero(worth)[longest]] = np.arange(longest.size)
        first = np.searchsorted(block, np.arange(blocks))
        heads = np.stack([residue[first], step[first], low, tiles], axis=1)[worth][longest]
        kept = worth[block]
        listed = np.tile(np.array([NO_ROW, 0, 0, 0], np.uint32), (longest.size * size, 1))
        place = number[block] * size + np.arange(block.size) - first[block]
        each = np.stack([row, table.slot_ptr[row] - begin, begin, count], axis=1)
        listed[place[kept]] = each[kept].astype(np.uint32)
        covered = np.zeros(table.rows, np.bool_)
        covered[row[kept]] = True
        return cls(size, listed, heads.astype(np.uint32), covered, pairs[worth][longest])


def lattices(table: RunTable) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """(row, step, residue, begin, count) of the rows that are one run each, sorted by lattice and begin. A single pair
    is on every lattice: on that of the others, where these are of one step.
    """
    row = np.flatnonzero(np.diff(table.run_ptr) == 1)
    run = table.run_ptr[row]
    step, count = table.step[run], table.count[run]
    step = step if table.one_step is None else np.where(count == 1, table.one_step, step)
    begin, residue = table.start[run] // step, table.start[run] % step
    order = np.lexsort((row, begin, residue, step))
    row, step, residue, begin, count = (one[order] for one in (row, step, residue, begin, count))
    return row, step, residue, begin, count


def _blocks(step: Ints, residue: Ints, size: int) -> Ints:
    """Of rows sorted by lattice the number of each one's block: a lattice's rows, ``size`` at a time."""
    if not step.size:
        return step
    new = np.concatenate([[True], (np.diff(step) != 0) | (np.diff(residue) != 0)])
    first = np.flatnonzero(new)[np.cumsum(new) - 1]
    found: Ints = np.cumsum((np.arange(step.size) - first) % size == 0) - 1
    return found
