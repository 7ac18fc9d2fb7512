"""Where a pair (row, column) stands in the packed values: a binary search in the row's runs, for arrays of pairs."""

from dataclasses import dataclass

import numpy as np

from splat_numba.formats.run_table import Runs, rows_of
from splat_numba.formats.sweep import Ints, exclusive_sum


@dataclass(frozen=True, slots=True, eq=False)
class SlotIndex:
    """What the search needs, worked out once per mask.

    runs: the table, in int64.
    reach: (runs,) int64, the last column that the run or an earlier one of its row keeps.
    packed: (runs + 1,) int64, the packed position of each run's first column.
    """

    runs: Runs
    reach: Ints
    packed: Ints


def slot_index(runs: Runs) -> SlotIndex:
    """The index of a run table."""
    base = rows_of(runs) * (runs.shape[1] + 1)  # keeps rows apart in one running maximum
    return SlotIndex(runs, np.maximum.accumulate(runs.last + base) - base, exclusive_sum(runs.count))


def find_slots(index: SlotIndex, row: Ints, col: Ints) -> Ints:
    """The packed position of every pair, -1 where it is not kept or outside the shape; row and col: (n,) int64."""
    runs = index.runs
    rows, cols = runs.shape
    slot = np.full(row.shape, -1, np.int64)
    query = np.flatnonzero((row >= 0) & (row < rows) & (col >= 0) & (col < cols))
    row, col = row[query], col[query]
    first = runs.row_ptr[row]
    run = _last_start(runs.start, first, runs.row_ptr[row + 1], col)
    # Runs may interleave: the column may lie in any run that starts at or before it, if the row reaches it so early.
    while True:
        near = np.flatnonzero(run >= first)
        near = near[index.reach[run[near]] >= col[near]]
        if near.size == 0:
            return slot
        query, col, first, run = query[near], col[near], first[near], run[near]
        place, rest = np.divmod(col - runs.start[run], runs.step[run])
        found = (rest == 0) & (place < runs.count[run])
        slot[query[found]] = index.packed[run[found]] + place[found]
        query, col, first, run = query[~found], col[~found], first[~found], run[~found] - 1


def _last_start(start: Ints, lo: Ints, hi: Ints, col: Ints) -> Ints:
    """The last run k, lo <= k < hi, with start[k] <= col; lo - 1 where there is none."""
    lo, hi = lo.copy(), hi.copy()
    while (between := np.flatnonzero(lo < hi)).size:
        middle = (lo[between] + hi[between]) // 2
        before = start[middle] <= col[between]
        lo[between[before]] = middle[before] + 1
        hi[between[~before]] = middle[~before]
    return lo - 1
