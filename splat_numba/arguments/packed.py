"""The arguments of the packed operators, checked: arrays as a backend reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from splat_numba.arguments.dtypes import check_dtype_name
from splat_numba.arguments.heads import check_heads, check_layouts_agree
from splat_numba.arguments.masks import OneMask, store_mask, stored_pairs
from splat_numba.arguments.numbers import check_number
from splat_numba.arguments.options import check_scale_range
from splat_numba.arguments.sizes import LARGEST_DIM, LARGEST_HEADS, check_size, check_sizes
from splat_numba.arguments.tokens import Described, check_axes, check_dtype, check_keys, check_like, check_tokens
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.packed.problem import PackedProblem
from splat_numba.plain import kind, shown

GpuOperator: TypeAlias = Literal["sddmm", "softmax", "softmax_backward", "spmm", "spmm_transposed"]
"""Those that GPUs have."""

Read: TypeAlias = Callable[[str, Any], Described]
"""What a backend makes of an argument, by its name. Raises ArgumentError, ArgumentTypeError, BackendError."""


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a result."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """sddmm's arguments: q and k as they were read. heads_kv: of k."""

    q: Described
    k: Described
    heads_kv: int
    acsr: ACSR
    scale: float

    @property
    def values_shape(self) -> tuple[int, ...]:
        """Of the packed values, less the axes that q has not."""
        return (*self.q.shape[:-2], self.acsr.nnz)


@dataclass(frozen=True, slots=True)
class Weighted:
    """spmm's arguments: values and v as they were read. heads_kv: of v."""

    values: Described
    v: Described
    heads_kv: int
    acsr: ACSR

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Of the result, less the axes that values has not."""
        return (*self.values.shape[:-1], self.acsr.shape[0], self.v.shape[-1])


def import_sampled(q: Any, k: Any, mask: OneMask, scale: float, read: Read) -> Sampled:
    """Raises ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError."""
    arrays = {name: read(name, array) for name, array in (("q", q), ("k", k))}
    check_tokens(arrays, ("batch", "heads", "seq", "head_dim"))
    q4, k4 = (_all_axes(array, 4) for array in arrays.values())
    check_keys(q4, k4)
    check_layouts_agree(q4, k4)
    check_heads(q4[1], k4[1])
    check_sizes(q4[2], k4[2], q4[3], q4[3])
    factor = check_number("scale", scale, "Give a Python float, or leave it out for 1.")
    factor = check_scale_range(factor, arrays["q"].dtype)
    stored = store_mask(mask, q4[2], k4[2])
    return Sampled(arrays["q"], arrays["k"], k4[1], stored_pairs(stored, q4[2], k4[2]), factor)


def _all_axes(array: Described, axes: int) -> tuple[int, ...]:
    """Its shape, 1 for leading axes that it has not."""
    return (1,) * (axes - len(array.shape)) + array.shape


def import_values(values: Any, acsr: Any, read: Read) -> Described:
    """Packed values of an ACSR, (batch, heads, nnz) less leading axes. Raises ArgumentError, ArgumentTypeError,
    BackendError.
    """
    check_acsr(acsr)
    given = read("values", values)
    check_packed(given, acsr)
    return given


def import_weighted(values: Any, v: Any, acsr: Any, read: Read, *, transpose: bool = False) -> Weighted:
    """Those of spmm, over the transposed mask too. Raises ArgumentError, ArgumentTypeError, BackendError."""
    check_acsr(acsr)
    given, dense = read("values", values), read("v", v)
    check_packed(given, acsr)
    check_like("v", dense, "values", given, 1)
    values3, v4 = _all_axes(given, 3), _all_axes(dense, 4)
    seq_q, seq_kv = acsr.shape
    wanted_seq = seq_q if transpose else seq_kv
    if v4[0] != values3[0] or v4[2] != wanted_seq:
        wanted = (values3[0], v4[1], wanted_seq, "any")
        raise ArgumentError(
            f"v wanted as (batch, heads, seq, value_dim) = {wanted} to fit values and acsr, got {v4}. Check its axes."
        )
    if transpose and v4[1] != values3[1]:
        raise ArgumentError(
            f"v wanted with the values' {values3[1]} heads for transpose=True, got {v4[1]}. Repeat its heads."
        )
    check_heads(values3[1], v4[1], name="v", like="the values'")
    check_sizes(seq_q, seq_kv, 1, v4[3])
    return Weighted(given, dense, v4[1], acsr)


def import_gradient(name: str, gradient: Any, of: str, result: Result, read: Read) -> Described:
    """The gradient of a result ``of`` this shape and dtype. Raises ArgumentError, ArgumentTypeError, BackendError."""
    given = read(name, gradient)
    if given.shape != result.shape:
        raise ArgumentError(
            f"{name} wanted of shape {result.shape} as {of} is, got {given.shape}. Give one of this shape."
        )
    check_dtype(name, given, of, result)
    return given


def check_packed(values: Described, acsr: ACSR) -> None:
    """Raise ArgumentError unless there is a value for every pair of the mask."""
    check_axes("values", values, ("batch", "heads", "nnz"), 1)
    if values.shape[-1] != acsr.nnz:
        raise ArgumentError(
            f"values wanted with a last axis of nnz = {acsr.nnz}, one for each pair of acsr, got shape {values.shape}. "
            "Give what sddmm gave for this mask."
        )


def check_acsr(acsr: Any) -> None:
    """Raise ArgumentTypeError for anything but an ACSR."""
    if isinstance(acsr, ACSR):
        return
    if isinstance(acsr, Pattern):
        raise ArgumentTypeError(
            "acsr wanted as an ACSR, got a Pattern, which has no size. "
            "Build it with splat.ACSR.from_pattern(pattern, seq_q, seq_kv)."
        )
    if isinstance(acsr, (list, tuple)):
        raise ArgumentTypeError(f"acsr wanted as one ACSR, got a {kind(acsr)}. Only attention takes a mask a head.")
    raise ArgumentTypeError(
        f"acsr wanted as an ACSR, got {kind(acsr)}. Build it with splat.from_dense(mask) or splat.from_csr(...)."
    )


def import_packed_problem(operator: Any, dtype: Any, batch: Any, heads: Any, dim: Any) -> PackedProblem:
    """The sizes of a GPU's call. Raises ArgumentError, ArgumentTypeError."""
    known = get_args(GpuOperator)
    if operator not in known:
        raise ArgumentError(f"operator wanted among {', '.join(known)}, got {shown(operator)}. Name one of them.")
    products = not operator.startswith("softmax")
    numbers = check_size("dim", dim, int(products), LARGEST_DIM if products else 0)
    sizes = check_size("batch", batch), check_size("heads", heads, 1, LARGEST_HEADS)
    return PackedProblem(operator, check_dtype_name(dtype), *sizes, numbers)
