"""The arguments of the packed operators, checked: arrays as imported, and as views with all their axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from splat_numba.arguments.heads import check_heads, check_layouts_agree
from splat_numba.arguments.layouts import with_leading
from splat_numba.arguments.masks import OneMask, store_mask
from splat_numba.arguments.numbers import check_number
from splat_numba.arguments.options import check_scale_range
from splat_numba.arguments.sizes import check_sizes
from splat_numba.arguments.tokens import check_axes, check_dtype, check_keys, check_like, check_tokens
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.plain import kind
from splat_numba.runtime.arrays import Array, import_array


@dataclass(frozen=True, slots=True)
class Sampled:
    """sddmm's arguments: q and k as imported and as (batch, heads, seq, head_dim) views."""

    q: Array
    k: Array
    q4: NDArray[Any]
    k4: NDArray[Any]
    acsr: ACSR
    scale: float

    @property
    def values_shape(self) -> tuple[int, ...]:
        """Of the packed values, less the axes that q has not."""
        return (*self.q.shape[:-2], self.acsr.nnz)


@dataclass(frozen=True, slots=True)
class Weighted:
    """spmm's arguments: values and v as imported, and as views of 3 axes (values3) and of 4."""

    values: Array
    v: Array
    values3: NDArray[Any]
    v4: NDArray[Any]
    acsr: ACSR

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Of the result, less the axes that values has not."""
        return (*self.values.shape[:-1], self.acsr.shape[0], self.v.shape[-1])


def import_sampled(q: Any, k: Any, mask: OneMask, scale: float) -> Sampled:
    """Raises ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError."""
    arrays = {name: import_array(name, array) for name, array in (("q", q), ("k", k))}
    check_tokens(arrays, ("batch", "heads", "seq", "head_dim"))
    q4, k4 = (with_leading(array.bits, 4) for array in arrays.values())
    check_keys(q4.shape, k4.shape)
    check_layouts_agree(q4.shape, k4.shape)
    check_heads(q4.shape[1], k4.shape[1])
    check_sizes(q4.shape[2], k4.shape[2], q4.shape[3], q4.shape[3])
    factor = check_number("scale", scale, "Give a Python float, or leave it out for 1.")
    factor = check_scale_range(factor, arrays["q"].dtype)
    stored = store_mask(mask, q4.shape[2], k4.shape[2])
    acsr = _stored_pattern(stored, q4.shape[2], k4.shape[2]) if isinstance(stored, Pattern) else stored
    return Sampled(arrays["q"], arrays["k"], q4, k4, acsr, factor)


def import_values(values: Any, acsr: Any) -> Array:
    """Packed values of an ACSR, (batch, heads, nnz) less leading axes. Raises ArgumentError, ArgumentTypeError,
    BackendError.
    """
    check_acsr(acsr)
    given = import_array("values", values)
    check_packed(given, acsr)
    return given


def import_weighted(values: Any, v: Any, acsr: Any) -> Weighted:
    """Raises ArgumentError, ArgumentTypeError, BackendError."""
    check_acsr(acsr)
    given, dense = import_array("values", values), import_array("v", v)
    check_packed(given, acsr)
    check_like("v", dense, "values", given, 1)
    values3, v4 = with_leading(given.bits, 3), with_leading(dense.bits, 4)
    seq_q, seq_kv = acsr.shape
    if v4.shape[0] != values3.shape[0] or v4.shape[2] != seq_kv:
        wanted = (values3.shape[0], v4.shape[1], seq_kv, "any")
        raise ArgumentError(
            f"v wanted as (batch, heads, seq, value_dim) = {wanted} to fit values and acsr, got {v4.shape}. "
            "Check its axes."
        )
    check_heads(values3.shape[1], v4.shape[1], name="v", like="the values'")
    check_sizes(seq_q, seq_kv, 1, v4.shape[3])
    return Weighted(given, dense, values3, v4, acsr)


def import_gradient(name: str, gradient: Any, of: str, shape: tuple[int, ...], dtype: str) -> Array:
    """The gradient of a result ``of`` this shape and dtype. Raises ArgumentError, ArgumentTypeError, BackendError."""
    given = import_array(name, gradient)
    if given.shape != shape:
        raise ArgumentError(f"{name} wanted of shape {shape} as {of} is, got {given.shape}. Give one of this shape.")
    check_dtype(name, given, of, Array(given.bits, dtype, given.kind))
    return given


def check_packed(values: Array, acsr: ACSR) -> None:
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


@lru_cache(maxsize=16)
def _stored_pattern(pattern: Pattern, seq_q: int, seq_kv: int) -> ACSR:
    """The runs of a pattern, remembered: making them can take longer than using them."""
    return ACSR.from_pattern(pattern, seq_q, seq_kv)
