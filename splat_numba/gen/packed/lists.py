"""PackedLists: what a GPU's packed operators read of a mask, in words of 32 bits, rows in the order of their work."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sealed import Sealed
from splat_numba.formats.sweep import expand
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.packed.columns import ColumnTiles
from splat_numba.gen.packed.problem import RunTable
from splat_numba.gen.packed.tiles import PackedTiles, TileBlocks

MOST_PAIRS = 1 << 31  # of a mask: places of packed values are words of 32 bits
WORTH_LISTING = 1.25  # times the steps of a warp that a list of columns saves, which is 4 bytes a pair to be read

Words = NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PackedLists(Sealed):
    """rows: (rows, 4): row, first packed value, pairs, first run. runs: (runs, 4): start, step, count, 0; columns:
    (pairs,), in packed order, where rows are many short runs, else None. places: as RunTable.place, else None. run_ptr:
    (rows + 1,), where the runs of each row of the mask begin. table: for tiles of the rows that share columns;
    made, made_of_columns: these, by the rows of a block, or by its columns.

    Rows of similar length follow each other, the longest first, since the warps of a block end together; among those,
    rows on the same lattice, as they share columns, in ascending order.
    """

    rows: Words
    runs: Words
    columns: Words | None
    places: Words | None
    pairs: int
    run_ptr: NDArray[np.int64]
    table: RunTable
    made: dict[int, PackedTiles] = field(default_factory=dict)
    made_of_columns: dict[int, ColumnTiles] = field(default_factory=dict)

    @classmethod
    def of(cls, table: RunTable) -> PackedLists:
        """Its cost is that of the runs, but where rows are many short ones, or values stand elsewhere."""
        pairs = np.diff(table.slot_ptr)
        order = _by_work(table, pairs)
        rows = np.stack([order, table.slot_ptr[order], pairs[order], table.run_ptr[order]], axis=1)
        runs = np.stack([table.start, table.step, table.count, np.zeros_like(table.start)], axis=1)
        by_runs, by_list = (int((-(-counts // WARP)).sum()) for counts in (table.count, pairs))
        listed = by_runs > WORTH_LISTING * by_list
        columns = expand(table.start, table.step, table.count).astype(np.uint32) if listed else None
        places = None if table.place is None else table.place.astype(np.uint32)
        return cls(
            rows.astype(np.uint32),
            runs.astype(np.uint32),
            columns,
            places,
            int(table.slot_ptr[-1]),
            table.run_ptr,
            table,
        )

    def tiles(self, size: int) -> PackedTiles:
        """In blocks of so many rows, made once, over packed values in the table's order."""
        if size not in self.made:
            self.made[size] = PackedTiles.of(self.table, size)
        return self.made[size]

    def column_tiles(self, size: int) -> ColumnTiles | None:
        """Of a transposed mask, in blocks of so many of its rows, over packed values in the mask's own order; made
        once. None of a mask as it is.
        """
        if self.table.turned is None:
            return None
        if size not in self.made_of_columns:
            counts = np.diff(self.table.slot_ptr)
            self.made_of_columns[size] = ColumnTiles.of(self.table.turned, counts, size)
        return self.made_of_columns[size]

    def rows_outside(self, tiles: TileBlocks) -> Words:
        """Those of ``rows`` that are in no block of tiles."""
        found: Words = self.rows[~tiles.covered[self.rows[:, 0]]]
        return found


def _by_work(table: RunTable, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows by the power of two that their pairs reach, then by residue class."""
    reached = np.frexp(pairs.astype(np.float64))[1]
    first = np.minimum(table.run_ptr[:-1], max(table.start.size - 1, 0))
    residue = np.zeros(table.rows, np.int64)
    if table.start.size:
        residue = np.where(pairs > 0, table.start[first] % table.step[first], 0)
    order: NDArray[np.int64] = np.lexsort((np.arange(table.rows), residue, -reached))
    return order
