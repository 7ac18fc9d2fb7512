"""ACSR, affine compressed sparse rows: a static mask as runs (start, step, count) per row."""

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError, FormatError, FormatTypeError
from splat_numba.formats import convert, run_algebra
from splat_numba.formats.pattern_runs import pattern_runs
from splat_numba.formats.patterns import Pattern
from splat_numba.formats.run_checks import check_runs
from splat_numba.formats.run_table import Runs, columns, csr_order, take_rows, to_csr
from splat_numba.formats.sealed import sealed
from splat_numba.formats.slots import SlotIndex, find_slots, slot_index
from splat_numba.formats.sweep import expand
from splat_numba.formats.transpose import transpose
from splat_numba.plain import kind, shown, whole_number
from splat_numba.signatures import strict

# Up to here start + step * count, which is below 2 * cols, fits in int32 as well.
_INT32_LENGTH = 1 << 30
_INT32_PAIRS = (1 << 31) - 1


class ACSR:
    """A mask of shape (rows, cols): row i keeps the runs run_ptr[i] <= k < run_ptr[i + 1].

    Run k keeps the columns run_start[k] + run_step[k] * t for 0 <= t < run_count[k]. The runs of a row are disjoint
    as sets, sorted by start, and may interleave. A row that is one arithmetic progression is one run; a single column
    has step 1. Packed values are ordered row after row, within a row run after run. Immutable and hashable.
    """

    __array_ufunc__ = None  # without it `ndarray | mask` would ask the mask about every element

    shape: tuple[int, int]
    nnz: int
    """Number of kept pairs."""
    run_ptr: NDArray[np.integer]
    """(rows + 1,) int32, or int64 where int32 does not hold every run; read-only, as are the next three."""
    run_start: NDArray[np.integer]
    run_step: NDArray[np.integer]
    run_count: NDArray[np.integer]

    def __init__(self, runs: Runs) -> None:
        """Check and copy a run table. Raises FormatTypeError for anything else: see the `from_...` constructors.

        Raises FormatError, with the row, where it is malformed.
        """
        if not isinstance(runs, Runs):
            raise FormatTypeError(
                f"runs must be a run table, got {type(runs).__name__}; use ACSR.from_dense, from_csr, from_scipy or "
                "from_pattern."
            )
        check_runs(runs)
        small = max(*runs.shape, runs.start.size) <= _INT32_LENGTH
        dtype = np.int32 if small else np.int64
        self.__dict__.update(
            shape=runs.shape,
            nnz=runs.nnz,
            run_ptr=sealed(runs.row_ptr, dtype),
            run_start=sealed(runs.start, dtype),
            run_step=sealed(runs.step, dtype),
            run_count=sealed(runs.count, dtype),
        )

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of an ACSR cannot be set: masks are immutable; build a new one.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} of an ACSR cannot be deleted: masks are immutable; build a new one.")

    def __reduce__(self) -> tuple[type["ACSR"], tuple[Runs]]:
        return ACSR, (self.runs,)

    def __copy__(self) -> "ACSR":
        return self  # nothing of it can change

    def __deepcopy__(self, memo: object) -> "ACSR":
        return self

    @classmethod
    @strict(error=FormatTypeError)
    def from_pattern(cls, pattern: Pattern, seq_q: int, seq_kv: int) -> "ACSR":
        """The runs of a pattern for seq_q queries and seq_kv keys.

        Raises FormatTypeError if it is no Pattern, PatternError if its totals or indices do not fit the lengths.
        """
        if not isinstance(pattern, Pattern):
            raise FormatTypeError(
                f"pattern must be a Pattern such as splat_numba.window(512), got {type(pattern).__name__}; pass dense "
                "masks to from_dense."
            )
        return cls(pattern_runs(pattern, seq_q, seq_kv))

    @classmethod
    @strict(error=FormatTypeError)
    def from_dense(cls, mask: NDArray[np.bool_]) -> "ACSR":
        """The runs of a (rows, cols) bool array, True = attend. Raises FormatError or FormatTypeError."""
        return cls(convert.from_dense(mask))

    @classmethod
    @strict(error=FormatTypeError)
    def from_csr(cls, indptr: ArrayLike, indices: ArrayLike, shape: tuple[int, int]) -> "ACSR":
        """The runs of CSR arrays: indptr (rows + 1,) and indices (nnz,), strictly ascending columns in each row.

        Raises FormatError naming the first bad row, FormatTypeError for arrays that are not of integers.
        """
        return cls(convert.from_csr(indptr, indices, shape))

    @classmethod
    @strict(error=FormatTypeError)
    def from_scipy(cls, matrix: Any) -> "ACSR":
        """The pairs where a SciPy sparse matrix is not zero. Raises FormatTypeError for anything else."""
        return cls(convert.from_scipy(matrix))

    @property
    def runs(self) -> Runs:
        """The run table: the same arrays as int64, made at each call where they are stored as int32."""
        arrays = (self.run_ptr, self.run_start, self.run_step, self.run_count)
        return Runs(self.shape, *(array.astype(np.int64, copy=False) for array in arrays))

    @cached_property
    def _slot_index(self) -> SlotIndex:
        return slot_index(self.runs)

    @property
    def density(self) -> float:
        """Share of the pairs that are kept, 0.0 for an empty shape."""
        return self.nnz / max(1, self.shape[0] * self.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the four arrays."""
        return sum(array.nbytes for array in (self.run_ptr, self.run_start, self.run_step, self.run_count))

    @property
    def is_regular(self) -> bool:
        """Whether every row is at most one run."""
        return bool((self.run_ptr[1:] - self.run_ptr[:-1] <= 1).all())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the shape and the arrays, hexadecimal. Equal masks cut into different runs may differ in it."""
        sha = hashlib.sha256(repr(self.shape).encode())
        for array in (self.run_ptr, self.run_start, self.run_step, self.run_count):
            sha.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return sha.hexdigest()

    @cached_property
    def _hash(self) -> int:
        # The runs of equal masks may be cut differently, the row counts not.
        return hash((self.shape, self.runs.row_nnz.tobytes()))

    def to_dense(self) -> NDArray[np.bool_]:
        """A fresh (rows, cols) bool array, True = attend."""
        return convert.to_dense(self.runs)

    def to_csr(self) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
        """(indptr, indices), (rows + 1,) and (nnz,), ascending columns; int32 if nnz and cols fit, else int64."""
        indptr, indices = to_csr(self.runs)
        if max(self.nnz, self.shape[1]) > _INT32_PAIRS:
            return indptr, indices
        return indptr.astype(np.int32), indices.astype(np.int32)

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csr_array` of bool. Raises FormatError where SciPy is not installed."""
        return convert.to_scipy(self.runs)

    def transpose(self) -> "ACSR":
        """The mask of shape (cols, rows) that keeps (j, i) where this one keeps (i, j)."""
        return ACSR(transpose(self.runs))

    def rows(self, which: slice) -> "ACSR":
        """The rows of a slice, in its order, as a mask of all columns. Raises FormatTypeError for other arguments."""
        if not isinstance(which, slice):
            raise FormatTypeError(
                f"which must be a slice of rows, got {shown(which)}; write slice(i, i + 1) for row i."
            )
        try:
            bounds = which.indices(self.shape[0])
        except (TypeError, ValueError) as error:
            raise FormatTypeError(
                f"which must be a slice of integers, got {shown(which)}: {error}; correct it."
            ) from error
        picked = np.arange(*bounds, dtype=np.int64)
        return ACSR(take_rows(self.runs, picked))

    def row_columns(self, i: int) -> NDArray[np.int64]:
        """The columns of row i in packed order, (row nnz,) int64. Raises ArgumentError outside [0, rows)."""
        row = whole_number(i)
        if row is None:
            raise ArgumentTypeError(f"i must be one integer, got {shown(i)}; use columns() for all rows.")
        if not 0 <= row < self.shape[0]:
            raise ArgumentError(f"i must be a row in [0, {self.shape[0]}), got {shown(row)}; count rows from 0.")
        lo, hi = self.run_ptr[row], self.run_ptr[row + 1]
        start, step, count = (
            array[lo:hi].astype(np.int64) for array in (self.run_start, self.run_step, self.run_count)
        )
        return expand(start, step, count)

    def columns(self) -> NDArray[np.int64]:
        """All columns in packed order, (nnz,) int64."""
        return columns(self.runs)

    def slot(self, i: ArrayLike, j: ArrayLike) -> Any:
        """The position of pair (i, j) in the packed values, -1 where it is not kept (or outside the shape).

        i and j: integers or integer arrays that broadcast. Gives an int for scalars, else int64 of their shape.
        Raises ArgumentTypeError if they are not integers, ArgumentError if they do not broadcast.
        """
        pair = []
        for name, value in (("i", i), ("j", j)):
            array = convert.array(name, value)
            if array.dtype.kind not in "iu" and array.size:
                raise ArgumentTypeError(f"{name} must be integers, got dtype {array.dtype}; round and cast it first.")
            pair.append(array.astype(np.int64, copy=False))
        try:
            row, col = np.broadcast_arrays(*pair)
        except ValueError as error:
            shapes = f"{pair[0].shape} and {pair[1].shape}"
            raise ArgumentError(f"i and j must broadcast, got shapes {shapes}; add axes, as in i[:, None].") from error
        slot = find_slots(self._slot_index, row.ravel(), col.ravel()).reshape(row.shape)
        return int(slot) if slot.ndim == 0 else slot

    def values_to_csr(self, values: NDArray[Any]) -> NDArray[Any]:
        """A copy of packed values (..., nnz) in CSR order: the columns of every row ascending.

        Raises ArgumentError if the last axis is not nnz long.
        """
        values = convert.array("values", values)
        if values.ndim == 0 or values.shape[-1] != self.nnz:
            raise ArgumentError(
                f"values must have shape (..., nnz) with nnz = {self.nnz}, got {values.shape}; pass what sddmm gave "
                "for this mask."
            )
        order = csr_order(self.runs)
        return values.copy() if order is None else values[..., order]

    def values_from_csr(
        self, values: NDArray[Any], indptr: ArrayLike | None = None, indices: ArrayLike | None = None
    ) -> NDArray[Any]:
        """A copy of a CSR matrix's values (..., nnz) in packed order, for spmm: the other way round than values_to_csr.

        indptr, indices: of the matrix, whose columns may stand in any order in a row, as SciPy leaves them; without
        them every row's ascend. Raises ArgumentError if the last axis is not nnz long or the matrix holds other pairs
        than the mask, or one twice, FormatError and FormatTypeError for arrays that are no CSR.
        """
        values = convert.array("values", values)
        if values.ndim == 0 or values.shape[-1] != self.nnz:
            raise ArgumentError(
                f"values must have shape (..., nnz) with nnz = {self.nnz}, got {values.shape}; pass the data of a "
                "matrix with just the mask's pairs."
            )
        if (indptr is None) != (indices is None):
            raise ArgumentError("indptr and indices must be given together, got one; pass both, or neither.")
        if indptr is None or indices is None:
            order = csr_order(self.runs)
            place = np.arange(self.nnz) if order is None else order
        else:
            rows, columns = convert.csr_pairs(indptr, indices, self.shape)
            place = np.asarray(self.slot(rows, columns))
            convert.check_each_once(place, rows, columns)
        packed = np.empty_like(values)
        packed[..., place] = values
        return packed

    def __or__(self, other: object) -> "ACSR":
        return ACSR(run_algebra.union(self.runs, self._operand(other)))

    def __and__(self, other: object) -> "ACSR":
        return ACSR(run_algebra.intersect(self.runs, self._operand(other)))

    __ror__ = __or__
    __rand__ = __and__

    def _operand(self, other: object) -> Runs:
        if isinstance(other, Pattern):
            runs: Runs = pattern_runs(other, *self.shape)
            return runs
        if not isinstance(other, ACSR):
            raise FormatTypeError(
                f"mask must be combined with an ACSR or a Pattern, got {shown(other)} of type {kind(other)}; build "
                "one, for example with splat.ACSR.from_dense."
            )
        if other.shape != self.shape:
            raise FormatError(
                f"mask of shape {other.shape} does not combine with one of shape {self.shape}; both must keep the "
                "same queries and keys: rebuild one for the other's lengths."
            )
        return other.runs

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ACSR):
            return NotImplemented
        if self is other:
            return True
        if self.shape != other.shape or self.nnz != other.nnz:
            return False
        return run_algebra.equal(self.runs, other.runs)

    def __hash__(self) -> int:
        return self._hash

    def _repr_html_(self) -> str:
        from splat_numba.formats.drawing import acsr_html  # which is above, and needed in notebooks alone

        return acsr_html(self)

    def __repr__(self) -> str:
        kind = "regular" if self.is_regular else f"{self.run_start.size} runs"
        return f"<ACSR {self.shape[0]} x {self.shape[1]}, nnz {self.nnz}, density {self.density:.3g}, {kind}>"
