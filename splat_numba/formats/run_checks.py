"""Run tables that kernels may trust: what others put into one is looked at before anything reads by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import FormatError
from splat_numba.formats.canonical import check_disjoint, check_inside
from splat_numba.formats.crt import meet
from splat_numba.formats.run_algebra import PAIR_COLUMNS, run_pairs
from splat_numba.formats.run_table import Runs, check_shape, columns, interleaved, rows_of, take_rows
from splat_numba.formats.sweep import Ints, chunks, order_of


def check_runs(runs: Runs) -> None:
    """Raise FormatError, with the row where there is one, for a table that is not what Runs promises.

    Linear in the runs, and where runs of a row interleave in their pairs or, if those are fewer, in their columns.
    """
    shape = check_shape(runs.shape)
    _check_pointers(runs)
    triples = (rows_of(runs), runs.start, runs.step, runs.count)
    check_inside(shape, triples)
    row, start, step, count = triples
    _refuse(row, (count == 1) & (step != 1), "a run of one column must have step 1")
    _refuse(row[1:], (row[1:] == row[:-1]) & (start[1:] < start[:-1]), "its runs must be sorted by start")
    check_disjoint(triples)
    if (rows := np.flatnonzero(interleaved(runs))).size:
        _check_interleaved(runs, rows)


def _check_pointers(runs: Runs) -> None:
    pointers, sizes = runs.row_ptr, {array.size for array in (runs.start, runs.step, runs.count)}
    if any(array.ndim != 1 for array in (pointers, runs.start, runs.step, runs.count)) or len(sizes) != 1:
        raise FormatError(
            f"runs must be 1-D arrays start, step and count of one length, got {sorted(sizes)}; give one of each a run."
        )
    total = sizes.pop()
    if pointers.size != runs.shape[0] + 1 or pointers[0] != 0 or pointers[-1] != total:
        raise FormatError(
            f"row_ptr must have rows + 1 = {runs.shape[0] + 1} entries, from 0 to the number of runs, {total}, got "
            f"{pointers.size} entries; make it as the running sum of the runs of every row."
        )
    falling = np.flatnonzero(pointers[1:] < pointers[:-1])
    if falling.size:
        row = int(falling[0])
        raise FormatError(f"row {row}: row_ptr must not decrease, got {pointers[row]} then {pointers[row + 1]}.")


def _refuse(row: Ints, bad: NDArray[np.bool_], reason: str) -> None:
    if bad.any():
        raise FormatError(f"row {row[int(np.flatnonzero(bad)[0])]}: {reason}; make it with from_csr.")


def _check_interleaved(runs: Runs, rows: Ints) -> None:
    """The given rows keep no column twice: their lattices are compared in pairs, or their columns with each other."""
    several, kept = runs.runs_per_row[rows], runs.row_nnz[rows]
    by_columns = (several.astype(np.float64) ** 2 > kept) | (runs.shape[1] >= PAIR_COLUMNS)
    for chosen, weight, repeats in (
        (rows[~by_columns], several[~by_columns] ** 2, _rows_of_meeting_pairs),
        (rows[by_columns], kept[by_columns], _rows_of_repeated_columns),
    ):
        for lo, hi in chunks(weight):
            found = repeats(take_rows(runs, chosen[lo:hi]))
            if found.size:
                raise FormatError(
                    f"row {chosen[lo:hi][found[0]]}: the runs overlap; the runs of a row must be disjoint. Build each "
                    "part alone and join them with `|`."
                )


def _rows_of_meeting_pairs(part: Runs) -> Ints:
    of_a, of_b = run_pairs(part, part)
    once = of_a < of_b
    of_a, of_b = of_a[once], of_b[once]
    _, _, count = meet(
        (part.start[of_a], part.step[of_a], part.count[of_a]), (part.start[of_b], part.step[of_b], part.count[of_b])
    )
    found: Ints = rows_of(part)[of_a[count > 0]]
    return found


def _rows_of_repeated_columns(part: Runs) -> Ints:
    row, column = np.repeat(np.arange(part.shape[0]), part.row_nnz), columns(part)
    order = order_of(row, column)
    row, column = row[order], column[order]
    found: Ints = row[1:][(row[1:] == row[:-1]) & (column[1:] == column[:-1])]
    return found
