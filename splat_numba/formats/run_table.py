"""The run table: every row of a mask as disjoint runs (start, step, count), with conversions from and to columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splat_numba.errors import FormatError
from splat_numba.formats.canonical import Triples, canonicalise
from splat_numba.formats.sealed import Table
from splat_numba.formats.sweep import Ints, chunks, exclusive_sum, expand, order_of
from splat_numba.memory import check_memory

# Bytes of a run while a table is made, a lower bound: (row, start, step, count), once sorted and once not.
_RUN_BYTES = 64


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Runs(Table):
    """Runs of every row, in canonical order. Row i holds the runs row_ptr[i] <= k < row_ptr[i + 1].

    shape: (rows, cols). row_ptr: (rows + 1,) int64. start, step, count: (number of runs,) int64; run k keeps the
    columns start[k] + step[k] * t for 0 <= t < count[k]. All arrays are read-only. Runs of a row are sorted by start
    and disjoint as sets, and may interleave; counts are >= 1 and a count of 1 has step 1. Build with `from_triples`.
    """

    shape: tuple[int, int]
    row_ptr: Ints
    start: Ints
    step: Ints
    count: Ints

    def __post_init__(self) -> None:
        for name in ("row_ptr", "start", "step", "count"):
            array = np.asarray(getattr(self, name), dtype=np.int64).view()
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __reduce__(self) -> tuple[type[Runs], tuple[object, ...]]:
        return Runs, (self.shape, self.row_ptr, self.start, self.step, self.count)  # again read-only

    @property
    def nnz(self) -> int:
        """Number of kept pairs."""
        return int(self.count.sum())

    @property
    def last(self) -> Ints:
        """Last column of every run."""
        return self.start + self.step * (self.count - 1)

    @property
    def runs_per_row(self) -> Ints:
        """Number of runs of every row, (rows,) int64."""
        return np.diff(self.row_ptr)

    @property
    def row_nnz(self) -> Ints:
        """Number of kept columns of every row, (rows,) int64."""
        return np.diff(exclusive_sum(self.count)[self.row_ptr])


def check_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """The shape as Python ints. Raises FormatError where it is negative or its pairs cannot be counted in int64."""
    rows, cols = int(shape[0]), int(shape[1])
    if rows < 0 or cols < 0:
        raise FormatError(f"shape must not be negative, got {(rows, cols)}; give (rows, columns) >= 0.")
    if (rows + 1) * (cols + 1) >= 1 << 63:
        raise FormatError(
            f"shape {(rows, cols)} is a run overflow: its pairs do not fit in int64. Split the rows into several masks."
        )
    return rows, cols


def check_runs_fit(shape: tuple[int, int], runs: int) -> None:
    """Raise FormatError if no memory holds a table of so many runs."""
    check_memory(f"shape {shape} with {runs} runs", runs * _RUN_BYTES, "Use shorter sequences, or a part of the rows.")


def from_triples(shape: tuple[int, int], row: ArrayLike, start: ArrayLike, step: ArrayLike, count: ArrayLike) -> Runs:
    """Runs from (row, start, step, count) in any order; arguments broadcast, runs with count <= 0 are dropped.

    The runs of a row must be disjoint as sets. Consecutive runs that continue each other are merged, and a row that
    is one arithmetic progression becomes one run. Raises FormatError for runs outside the shape, for overlaps that
    the starts show, and for shapes whose pairs cannot be counted in int64.
    """
    shape = check_shape(shape)
    row, start, step, count = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(part, dtype=np.int64)) for part in (row, start, step, count))
    )
    return from_canonical(shape, canonicalise(shape, (row, start, step, count)))


def from_canonical(shape: tuple[int, int], triples: Triples) -> Runs:
    """Runs from triples that `canonicalise` gave, or that were taken row by row from other Runs."""
    row, start, step, count = triples
    return Runs(shape, exclusive_sum(np.bincount(row, minlength=shape[0])), start, step, count)


def from_columns(shape: tuple[int, int], indptr: NDArray[np.integer], indices: NDArray[np.integer]) -> Runs:
    """Runs from CSR arrays whose rows hold strictly ascending columns (not checked here).

    Stretches of three and more columns with equal gaps, and of two and more without a gap, become runs; a column
    between two stretches goes to the one with the smaller step. Temporary memory is bounded per chunk of rows.
    """
    shape = check_shape(shape)
    pointers = np.asarray(indptr, dtype=np.int64)
    parts: list[Triples] = [_NO_TRIPLES]
    for row_lo, row_hi in chunks(np.diff(pointers)):
        lo, hi = int(pointers[row_lo]), int(pointers[row_hi])
        if hi > lo:
            part = np.asarray(indices[lo:hi], dtype=np.int64)
            parts.append(canonicalise(shape, _intervals(pointers[row_lo : row_hi + 1] - lo, part, row_lo)))
    return from_canonical(shape, concatenate(parts))


_NO_TRIPLES: Triples = (np.zeros(0, np.int64),) * 4


def concatenate(parts: list[Triples]) -> Triples:
    """The triples of all parts, one after the other."""
    row, start, step, count = (np.concatenate(column) for column in zip(*parts, strict=True))
    return row, start, step, count


def _intervals(indptr: Ints, indices: Ints, first_row: int) -> Triples:
    """Maximal intervals of ascending columns: neighbours without a gap always share a run, so they are joined first."""
    head = np.ones(indices.size + 1, np.bool_)
    head[1:-1] = indices[1:] != indices[:-1] + 1
    head[indptr] = True
    heads = np.flatnonzero(head)
    row = np.searchsorted(indptr, heads[:-1], side="right") - 1 + first_row
    return row, indices[heads[:-1]], np.ones(heads.size - 1, np.int64), np.diff(heads)


def rows_of(runs: Runs) -> Ints:
    """The row of every run, (number of runs,) int64."""
    return np.repeat(np.arange(runs.shape[0], dtype=np.int64), runs.runs_per_row)


def columns(runs: Runs) -> Ints:
    """Every kept column in packed order (row after row, within a row run after run), (nnz,) int64."""
    check_memory(f"{runs.nnz} columns", 8 * runs.nnz, "Take fewer rows at a time, as in mask.rows(slice(0, 1000)).")
    return expand(runs.start, runs.step, runs.count)


def interleaved(runs: Runs) -> NDArray[np.bool_]:
    """For every row whether its packed order differs from ascending order, (rows,) bool."""
    late = np.flatnonzero(runs.start[1:] <= runs.last[:-1]) + 1
    row = np.searchsorted(runs.row_ptr, late, side="right") - 1
    found = np.zeros(runs.shape[0], np.bool_)
    found[row[late > runs.row_ptr[row]]] = True  # the first run of a row comes after the last of another row
    return found


def csr_order(runs: Runs) -> Ints | None:
    """The permutation that puts packed values into CSR order, (nnz,) int64; None where the two orders agree."""
    rows = interleaved(runs)
    if not rows.any():
        return None
    row_nnz = runs.row_nnz
    order = np.arange(runs.nnz, dtype=np.int64)
    mixed = np.flatnonzero(rows)
    places = exclusive_sum(row_nnz)
    for lo, hi in chunks(row_nnz[mixed]):
        part = take_rows(runs, mixed[lo:hi])
        owner = np.repeat(np.arange(hi - lo), part.row_nnz)
        slots = expand(places[mixed[lo:hi]], np.ones(hi - lo, np.int64), part.row_nnz)
        order[slots] = slots[order_of(owner, columns(part))]
    return order


def to_csr(runs: Runs) -> tuple[Ints, Ints]:
    """(indptr, indices): (rows + 1,) and (nnz,) int64, columns of a row ascending."""
    indices = columns(runs)
    order = csr_order(runs)
    return exclusive_sum(runs.row_nnz), indices if order is None else indices[order]


def take_rows(runs: Runs, rows: Ints) -> Runs:
    """The given rows in the given order as a table of shape (len(rows), cols)."""
    per_row = runs.runs_per_row[rows]
    filled = per_row > 0
    which = expand(runs.row_ptr[:-1][rows][filled], np.ones(int(filled.sum()), np.int64), per_row[filled])
    shape = (int(rows.size), runs.shape[1])
    return Runs(shape, exclusive_sum(per_row), runs.start[which], runs.step[which], runs.count[which])
