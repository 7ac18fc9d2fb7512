"""Union, intersection and equality of run tables.

Three ways, chosen row by row. Rows of intervals (all steps 1) are swept. Rows with lattices compare their runs pair by
pair: two lattices meet in a lattice (Chinese remainder theorem), so nothing is expanded. Where that costs more than the
columns themselves, or leaves a set that is no short list of runs, the columns are written out in bounded chunks.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import FormatError
from splat_numba.formats.canonical import Triples, canonicalise
from splat_numba.formats.crt import meet
from splat_numba.formats.run_table import (
    Runs,
    columns,
    concatenate,
    from_canonical,
    from_columns,
    rows_of,
    take_rows,
)
from splat_numba.formats.sweep import ELEMENT_BUDGET, Ints, chunks, exclusive_sum, expand, order_of, sweep

# Products of two steps in the pair-wise way must stay within int64.
PAIR_COLUMNS = 1 << 31


def union(a: Runs, b: Runs) -> Runs:
    """The pairs that a or b keeps. Raises FormatError if the shapes differ."""
    return _combine(a, b, _sweep_union, _pair_union, 1)


def intersect(a: Runs, b: Runs) -> Runs:
    """The pairs that a and b both keep. Raises FormatError if the shapes differ."""
    return _combine(a, b, _sweep_intersect, _pair_intersect, 2)


def equal(a: Runs, b: Runs) -> bool:
    """Whether a and b keep the same pairs, however their runs are cut."""
    if a.shape != b.shape or not np.array_equal(a.row_nnz, b.row_nnz):
        return False
    if _same_arrays(a, b):
        return True
    return intersect(a, b).nnz == a.nnz


def _same_arrays(a: Runs, b: Runs) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("row_ptr", "start", "step", "count"))


# (a, b), two tables of equal shape -> the triples of the result and the rows it leaves to the expanding way.
_Way = Callable[[Runs, Runs], tuple[Triples, NDArray[np.bool_]]]


def _combine(a: Runs, b: Runs, by_sweep: _Way, by_pairs: _Way, needed: int) -> Runs:
    """Split the rows among the three ways; `needed` is in how many of a and b a kept pair must lie."""
    if a.shape != b.shape:
        raise FormatError(f"masks to combine must have equal shapes, got {a.shape} and {b.shape}; pad or cut one.")
    rows = np.arange(a.shape[0], dtype=np.int64)
    strided = _has_strided_run(a) | _has_strided_run(b)
    # float64: the product may exceed int64, and only its size matters.
    pairs = a.runs_per_row.astype(np.float64) * b.runs_per_row
    costly = strided & ((pairs > a.row_nnz + b.row_nnz) | (a.shape[1] >= PAIR_COLUMNS))
    parts: list[Triples] = []
    for way, chosen in ((by_sweep, rows[~strided]), (by_pairs, rows[strided & ~costly])):
        for lo, hi in chunks(np.maximum(pairs[chosen], 1).astype(np.int64)) if way is by_pairs else [(0, chosen.size)]:
            triples, left = way(take_rows(a, chosen[lo:hi]), take_rows(b, chosen[lo:hi]))
            parts.append((chosen[lo:hi][triples[0]], *triples[1:]))
            costly[chosen[lo:hi][left]] = True
    done = canonicalise(a.shape, concatenate(parts))
    expanded = _expanded(a, b, rows[costly], needed)
    joined = concatenate([done, expanded])
    order = order_of(joined[0], joined[1])
    return from_canonical(a.shape, (joined[0][order], joined[1][order], joined[2][order], joined[3][order]))


def _has_strided_run(runs: Runs) -> NDArray[np.bool_]:
    found = np.zeros(runs.shape[0], np.bool_)
    found[rows_of(runs)[runs.step > 1]] = True
    return found


def _none_left(a: Runs) -> NDArray[np.bool_]:
    return np.zeros(a.shape[0], np.bool_)


def _sweep_coverage(a: Runs, b: Runs, needed: int) -> Triples:
    """The intervals that at least `needed` of a and b cover."""
    row = np.concatenate((rows_of(a), rows_of(b)))
    start = np.concatenate((a.start, b.start))
    count = np.concatenate((a.count, b.count))
    row, lo, hi, value = sweep(row, start, start + count, np.ones(row.size, np.int8))
    kept = value >= needed
    lo = lo[kept]
    return row[kept], lo, np.ones_like(lo), hi[kept] - lo


def _sweep_union(a: Runs, b: Runs) -> tuple[Triples, NDArray[np.bool_]]:
    return _sweep_coverage(a, b, 1), _none_left(a)


def _sweep_intersect(a: Runs, b: Runs) -> tuple[Triples, NDArray[np.bool_]]:
    return _sweep_coverage(a, b, 2), _none_left(a)


def run_pairs(a: Runs, b: Runs) -> tuple[Ints, Ints]:
    """Every (run of a, run of b) of one row, as two index arrays."""
    partners = np.repeat(b.runs_per_row, a.runs_per_row)
    first = np.repeat(b.row_ptr[:-1], a.runs_per_row)
    filled = partners > 0
    of_a = np.repeat(np.arange(a.start.size), partners)
    of_b = expand(first[filled], np.ones(int(filled.sum()), np.int64), partners[filled])
    return of_a, of_b


def _pair_intersect(a: Runs, b: Runs) -> tuple[Triples, NDArray[np.bool_]]:
    of_a, of_b = run_pairs(a, b)
    start, step, count = meet(
        (a.start[of_a], a.step[of_a], a.count[of_a]), (b.start[of_b], b.step[of_b], b.count[of_b])
    )
    return (rows_of(a)[of_a], start, step, count), _none_left(a)


def _pair_union(a: Runs, b: Runs) -> tuple[Triples, NDArray[np.bool_]]:
    """a and (b without a), or b and (a without b), whichever difference is a list of intervals of the lattices."""
    b_less_a, hard = _difference(b, a)
    a_less_b, left = _difference(a, b)
    left &= hard
    parts = []
    for whole, rest, chosen in ((a, b_less_a, ~hard), (b, a_less_b, hard & ~left)):
        row = rows_of(whole)
        parts.append(_of_rows((row, whole.start, whole.step, whole.count), chosen))
        parts.append(_of_rows(rest, chosen))
    return concatenate(parts), left


def _of_rows(triples: Triples, chosen: NDArray[np.bool_]) -> Triples:
    row, start, step, count = triples
    kept = chosen[row]
    return row[kept], start[kept], step[kept], count[kept]


def _difference(a: Runs, b: Runs) -> tuple[Triples, NDArray[np.bool_]]:
    """a without b, and the rows where it is wrong because b takes every m-th element, m > 1, out of a run of a."""
    of_a, of_b = run_pairs(a, b)
    start, step, count = meet(
        (a.start[of_a], a.step[of_a], a.count[of_a]), (b.start[of_b], b.step[of_b], b.count[of_b])
    )
    row = rows_of(a)
    met = count > 0
    of_a, start, step, count = of_a[met], start[met], step[met], count[met]
    thinned = np.zeros(a.shape[0], np.bool_)
    thinned[row[of_a[(count > 1) & (step > a.step[of_a])]]] = True
    # In places t of the run start + step * t what b takes out is an interval, so the rest is a sweep. Where the row
    # is thinned the intervals may overlap and the pieces mean nothing; int8 sums stay valid as those rows are cut out.
    sound = ~thinned[row[of_a]]
    of_a, start, count = of_a[sound], start[sound], count[sound]
    lo = (start - a.start[of_a]) // a.step[of_a]
    owner = np.concatenate((np.arange(a.start.size), of_a))
    weight = np.concatenate((np.ones(a.start.size, np.int8), np.full(of_a.size, -1, np.int8)))
    lo_all = np.concatenate((np.zeros(a.start.size, np.int64), lo))
    owner, lo, hi, value = sweep(owner, lo_all, np.concatenate((a.count, lo + count)), weight)
    kept = value > 0
    owner, lo, hi = owner[kept], lo[kept], hi[kept]
    return (row[owner], a.start[owner] + a.step[owner] * lo, a.step[owner], hi - lo), thinned


def _expanded(a: Runs, b: Runs, rows: Ints, needed: int) -> Triples:
    """The given rows through their columns, in chunks; canonical triples."""
    parts: list[Triples] = []
    weight = a.row_nnz[rows] + b.row_nnz[rows]
    for lo, hi in chunks(weight, ELEMENT_BUDGET):
        chosen = rows[lo:hi]
        tables = take_rows(a, chosen), take_rows(b, chosen)
        owner = np.concatenate([np.repeat(np.arange(chosen.size), table.row_nnz) for table in tables])
        column = np.concatenate([columns(table) for table in tables])
        order = order_of(owner, column)
        owner, column = owner[order], column[order]
        again = np.concatenate(([False], (owner[1:] == owner[:-1]) & (column[1:] == column[:-1])))
        kept = ~again if needed == 1 else again
        owner, column = owner[kept], column[kept]
        indptr = exclusive_sum(np.bincount(owner, minlength=chosen.size))
        table = from_columns((int(chosen.size), a.shape[1]), indptr, column)
        parts.append((chosen[rows_of(table)], table.start, table.step, table.count))
    empty = np.zeros(0, np.int64)
    return concatenate([(empty, empty, empty, empty), *parts])
