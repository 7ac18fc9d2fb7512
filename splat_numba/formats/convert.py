"""Dense masks, CSR arrays and SciPy matrices to runs and back, with every argument checked."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splat_numba.errors import ArgumentError, FormatError, FormatTypeError
from splat_numba.formats.canonical import Triples, canonicalise
from splat_numba.formats.run_table import (
    Runs,
    check_shape,
    columns,
    concatenate,
    from_canonical,
    from_columns,
    rows_of,
    take_rows,
    to_csr,
)
from splat_numba.formats.sweep import chunks
from splat_numba.memory import check_memory
from splat_numba.plain import shown, whole_number

# Dense masks are read and written this many entries at a time, to keep temporary arrays small beside the mask.
_DENSE_BUDGET = 1 << 24


def from_dense(mask: NDArray[np.bool_]) -> Runs:
    """Runs of a (rows, cols) bool mask, True = attend.

    Raises FormatTypeError unless the mask is a bool array, FormatError unless it has two axes.
    """
    if isinstance(mask, np.ma.MaskedArray):
        raise FormatTypeError(
            "mask must be a plain bool array, got a masked one, whose own mask would be lost; pass mask.filled(False)."
        )
    mask = array("mask", mask)
    if mask.dtype != np.bool_:
        raise FormatTypeError(f"mask must be a 2-D bool array (True = attend), got dtype {mask.dtype}; {_advice(mask)}")
    if mask.ndim != 2:
        raise FormatError(
            f"mask must be a 2-D bool array, got shape {mask.shape}; pass one mask of shape (seq_q, seq_kv) a head."
        )
    kept = mask  # whose type is known here
    return from_blocks((mask.shape[0], mask.shape[1]), lambda rows, cols: kept[_part(rows), _part(cols)], _DENSE_BUDGET)


def _part(span: range) -> slice:
    return slice(span.start, span.stop)


def from_blocks(shape: tuple[int, int], kept: Callable[[range, range], NDArray[np.bool_]], budget: int) -> Runs:
    """Runs of the mask of which ``kept(rows, cols)`` gives the block of these rows and columns as bool, True = attend.

    It is asked about every pair once, about at most ``budget`` pairs at a time. Raises FormatError for a malformed
    shape.
    """
    rows, cols = shape = check_shape(shape)
    empty = np.zeros(0, np.int64)
    parts: list[Triples] = [(empty, empty, empty, empty)]
    for lo, hi in chunks(np.full(rows, cols + 2), budget):
        pieces: list[Triples] = []
        for left in range(0, cols, budget):
            row, start, stop = _edges(kept(range(lo, hi), range(left, min(left + budget, cols))))
            pieces.append((row + lo, start + left, np.ones_like(row), stop - start))
        if pieces:
            parts.append(canonicalise(shape, concatenate(pieces)))  # which joins what a block's edge has cut
    return from_canonical(shape, concatenate(parts))


def _advice(mask: NDArray[Any]) -> str:
    """What to pass instead of numbers. Additive masks are 0 where a pair is kept, and very negative elsewhere."""
    if mask.dtype.kind == "f" and (mask <= 0).all() and (mask < 0).any():
        return "of an additive mask, 0 for the pairs that are kept, pass `mask == 0`."
    return (
        "a mask of numbers does not say what NaN, inf and negative entries mean: pass `mask.astype(bool)` for 0/1 "
        "masks, or `mask > 0`."
    )


def _edges(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(row, start, stop) of the maximal intervals of every row of the mask."""
    rows, cols = mask.shape
    padded = np.zeros((rows, cols + 2), np.bool_)
    padded[:, 1:-1] = mask
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])  # the padding keeps rows apart, so starts and stops alternate
    row = edges[0::2] // (cols + 2)
    offset = row * (cols + 2)
    return row, edges[0::2] - offset, edges[1::2] - offset


def empty_mask(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A (rows, cols) bool array that keeps nothing. Raises FormatError where no memory holds it."""
    rows, cols = shape
    check_memory(f"a dense mask of shape {shape}", rows * cols, "Take fewer rows at a time, as in mask.rows(...).")
    return np.zeros((rows, cols), np.bool_)


def to_dense(runs: Runs) -> NDArray[np.bool_]:
    """The mask as a fresh (rows, cols) bool array, True = attend."""
    mask = empty_mask(runs.shape)
    rows, cols = runs.shape
    row = rows_of(runs)
    for lo, hi in chunks(np.full(rows, cols + 1), _DENSE_BUDGET):
        first, end = int(runs.row_ptr[lo]), int(runs.row_ptr[hi])
        intervals = np.flatnonzero(runs.step[first:end] == 1) + first
        # +1 where an interval starts, -1 after its end: the running sum is the mask.
        change = np.zeros((hi - lo, cols + 1), np.int8)
        local = row[intervals] - lo
        change[local, runs.start[intervals]] += 1
        change[local, runs.start[intervals] + runs.count[intervals]] -= 1
        mask[lo:hi] = np.cumsum(change[:, :-1], axis=1, dtype=np.int8)
    strided = runs.step > 1
    if strided.any():
        _set_strided(mask, runs)
    return mask


def _set_strided(mask: NDArray[np.bool_], runs: Runs) -> None:
    rows = np.unique(rows_of(runs)[runs.step > 1])
    for lo, hi in chunks(runs.row_nnz[rows]):
        part = take_rows(runs, rows[lo:hi])
        mask[np.repeat(rows[lo:hi], part.row_nnz), columns(part)] = True


def from_csr(indptr: ArrayLike, indices: ArrayLike, shape: tuple[int, int]) -> Runs:
    """Runs of a CSR mask: row i keeps indices[indptr[i]:indptr[i + 1]], which must ascend strictly.

    indptr: (rows + 1,) integers from 0 to len(indices). indices: (nnz,) integers in [0, cols).
    Raises FormatTypeError for arrays that are not of integers, FormatError for anything else that does not fit.
    """
    shape, pointers, kept = _checked_csr(indptr, indices, shape)
    _check_ascending(pointers, kept)
    return from_columns(shape, pointers, kept)


def csr_pairs(
    indptr: ArrayLike, indices: ArrayLike, shape: tuple[int, int]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """(rows, columns) of CSR arrays whose rows may hold their columns in any order. Raises as from_csr()."""
    (rows, _), pointers, kept = _checked_csr(indptr, indices, shape)
    return np.repeat(np.arange(rows), np.diff(pointers)), kept


def check_each_once(place: NDArray[np.int64], rows: NDArray[np.integer], columns: NDArray[np.integer]) -> None:
    """Raise ArgumentError unless the places of these pairs are 0, 1, ... in some order."""
    seen = np.bincount(place[place >= 0], minlength=place.size)
    wrong = (place < 0) | (seen[np.maximum(place, 0)] > 1)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        what = "which the mask does not keep" if place[at] < 0 else "more than once"
        raise ArgumentError(
            f"indices must be the mask's pairs, each once, got ({rows[at]}, {columns[at]}), {what}; build the mask of "
            "this matrix, after its sum_duplicates()."
        )


def _checked_csr(
    indptr: ArrayLike, indices: ArrayLike, shape: tuple[int, int]
) -> tuple[tuple[int, int], NDArray[np.integer], NDArray[np.integer]]:
    """The shape and the arrays as int64, all but the order of a row's columns checked."""
    rows, cols = check_shape(check_pair(shape))
    pointers, kept = _integers("indptr", indptr), _integers("indices", indices)
    if pointers.size != rows + 1:
        raise FormatError(
            f"indptr must have rows + 1 = {rows + 1} entries for shape {(rows, cols)}, got {pointers.size}; "
            "check the order (indptr, indices, shape)."
        )
    if pointers[0] != 0 or pointers[-1] != kept.size:
        raise FormatError(
            f"indptr must go from 0 to len(indices) = {kept.size}, got {pointers[0]} to {pointers[-1]}; "
            "pass the arrays of the whole matrix, not of a slice."
        )
    falling = np.flatnonzero(pointers[1:] < pointers[:-1])
    if falling.size:
        row = int(falling[0])
        raise FormatError(
            f"row {row}: indptr must not decrease, got {pointers[row]} then {pointers[row + 1]}; "
            "build it as the running sum of the row counts."
        )
    outside = (kept < 0) | (kept >= cols)
    if outside.any():
        k = int(np.flatnonzero(outside)[0])
        row = _row_of(pointers, k)
        raise FormatError(f"row {row}: column {kept[k]} is not in [0, {cols}); correct indices or the shape.")
    return (rows, cols), pointers, kept


def check_pair(shape: object) -> tuple[int, int]:
    """The shape as two ints. Raises FormatTypeError for anything else."""
    pair = [whole_number(size) for size in shape] if isinstance(shape, (tuple, list)) else []
    if len(pair) != 2 or pair[0] is None or pair[1] is None:
        raise FormatTypeError(f"shape must be two integers, got {shown(shape)}; pass (rows, columns).")
    return pair[0], pair[1]


def array(name: str, value: Any) -> NDArray[Any]:
    """What NumPy makes of ``value``. Raises FormatTypeError where it cannot."""
    try:
        return np.asarray(value)
    except Exception as error:  # whatever a framework's array says for itself
        raise FormatTypeError(
            f"{name} must be an array that NumPy can read, got {type(value).__name__}: {error}; make one of it first."
        ) from error


def _integers(name: str, value: ArrayLike) -> NDArray[np.integer]:
    given = array(name, value)
    if given.size == 0 and not isinstance(value, np.ndarray):
        given = given.astype(np.int64)  # an empty list has no dtype of its own
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise FormatTypeError(
            f"{name} must be a 1-D array of integers, got dtype {given.dtype} and shape {given.shape}; "
            f"pass `{name}.astype(numpy.int64)`."
        )
    return given.astype(np.int64, copy=False)  # unsigned differences would wrap around


def _row_of(indptr: NDArray[np.integer], place: int) -> int:
    return int(np.searchsorted(indptr, place, side="right")) - 1


def _check_ascending(indptr: NDArray[np.integer], indices: NDArray[np.integer]) -> None:
    unsorted = indices[1:] <= indices[:-1]
    starts = indptr[(indptr > 0) & (indptr < indices.size)]
    unsorted[starts - 1] = False  # from one row to the next columns may fall
    if unsorted.any():
        k = int(np.flatnonzero(unsorted)[0])
        raise FormatError(
            f"row {_row_of(indptr, k)}: columns must ascend strictly, got {indices[k]} then {indices[k + 1]}; sort "
            "each row and drop repeats (SciPy: `m.sum_duplicates()`)."
        )


def from_scipy(matrix: Any) -> Runs:
    """Runs of a SciPy sparse matrix or array of any format: the pairs whose stored value is not zero.

    The matrix is not changed. Raises FormatTypeError for other objects and for values that are not finite.
    """
    if not all(hasattr(type(matrix), name) for name in ("tocsr", "shape", "nnz")) or len(matrix.shape) != 2:
        raise FormatTypeError(
            f"matrix must be a 2-D SciPy sparse matrix, got {type(matrix).__name__}; pass dense masks to from_dense."
        )
    csr = matrix.tocsr(copy=True)
    csr.sum_duplicates()  # also sorts the columns of each row
    if csr.data.dtype.kind in "fc" and not np.isfinite(csr.data).all():
        raise FormatTypeError("matrix must hold finite values, got NaN or inf; pass a bool matrix of the kept pairs.")
    csr.eliminate_zeros()
    return from_csr(csr.indptr, csr.indices, (int(csr.shape[0]), int(csr.shape[1])))


def to_scipy(runs: Runs) -> Any:
    """The mask as a `scipy.sparse.csr_array` of bool. Raises FormatError where SciPy is not installed."""
    try:
        from scipy import sparse
    except ImportError as error:
        raise FormatError("to_scipy needs SciPy, which is not installed; run `pip install scipy`.") from error
    indptr, indices = to_csr(runs)
    return sparse.csr_array((np.ones(indices.size, np.bool_), indices, indptr), shape=runs.shape)
