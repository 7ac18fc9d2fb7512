"""The array arguments of attention, checked and brought to (batch, heads, seq, dim) views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.gen.problem import Problem
from splat_numba.runtime.arrays import Array, check_out, empty, export_array, import_array

LAYOUTS = {"bhsd": ("batch", "heads", "seq", "dim"), "bshd": ("batch", "seq", "heads", "dim")}
LARGEST_DIM = 256
LARGEST_LENGTH = 2**31 - 1  # tile bounds are int32 in the kernels
_Number = TypeVar("_Number")


class Described(Protocol):
    """An imported array of any backend: its shape as the caller laid it out, and its dtype's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""

    @property
    def dtype(self) -> str:
        """The name of its dtype."""


@dataclass(frozen=True, slots=True)
class Operands:
    """One call's arrays: ``arrays`` as imported, ``views`` of shape (batch, heads, seq, dim), and the problem."""

    arrays: dict[str, Array]
    views: dict[str, NDArray[Any]]
    problem: Problem
    layout: str
    axes: int


def check_layout(layout: str) -> str:
    """The layout, or ArgumentError."""
    if layout not in LAYOUTS:
        raise ArgumentError(
            f"layout wanted as 'bhsd' or 'bshd', got {layout!r}. Choose the order of your arrays' axes."
        )
    return layout


def to_bhsd(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """The (batch, heads, seq, dim) view of an array of 2 to 4 axes."""
    if array.ndim == 2:
        return array[None, None]
    whole = array[None] if array.ndim == 3 else array
    return whole.swapaxes(1, 2) if layout == "bshd" else whole


def bhsd_axes(values: tuple[_Number, ...], layout: str, missing: _Number) -> tuple[_Number, ...]:
    """Sizes or strides of an array of 2 to 4 axes, as (batch, heads, seq, dim); missing: for the axes it has not."""
    if len(values) == 2:
        return (missing, missing, *values)
    whole = (missing,) * (4 - len(values)) + values
    return (whole[0], whole[2], whole[1], whole[3]) if layout == "bshd" else whole


def import_operands(q: Any, k: Any, v: Any, layout: str) -> Operands:
    """Check q, k and v against each other. Raises ArgumentError, ArgumentTypeError or BackendError."""
    check_layout(layout)
    arrays = {name: import_array(name, array) for name, array in (("q", q), ("k", k), ("v", v))}
    problem = check_operands(arrays, layout)
    views = {name: to_bhsd(array.bits, layout) for name, array in arrays.items()}
    return Operands(arrays, views, problem, layout, len(arrays["q"].shape))


def check_operands(arrays: Mapping[str, Described], layout: str) -> Problem:
    """The problem that q, k and v make. Raises ArgumentError, ArgumentTypeError where they do not fit together."""
    first = arrays["q"]
    if not 2 <= len(first.shape) <= 4:
        raise ArgumentError(
            f"q wanted with axes {LAYOUTS[layout]}, leading ones may be missing, got shape {first.shape}. Reshape it."
        )
    for name in ("k", "v"):
        other = arrays[name]
        if len(other.shape) != len(first.shape):
            raise ArgumentError(
                f"{name} wanted with {len(first.shape)} axes as q has, got shape {other.shape}. Give all the same axes."
            )
        if other.dtype != first.dtype:
            raise ArgumentTypeError(f"{name} wanted as {first.dtype} as q is, got {other.dtype}. Convert one of them.")
    shapes = {name: bhsd_axes(array.shape, layout, 1) for name, array in arrays.items()}
    return _problem(shapes, first.dtype)


def _problem(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> Problem:
    (batch, heads_q, seq_q, head_dim), k, v = shapes["q"], shapes["k"], shapes["v"]
    heads_kv, seq_kv = k[1:3]
    wanted = (batch, heads_kv, seq_kv, head_dim)
    if k[0] != batch or k[3] != head_dim:
        raise ArgumentError(
            f"k wanted as (batch, heads, seq, head_dim) = {wanted} to fit q, got {k}. Check batch and head_dim."
        )
    if v[:3] != wanted[:3]:
        raise ArgumentError(f"v wanted with (batch, heads, seq) = {wanted[:3]} to fit k, got {v}. Check its axes.")
    check_heads(heads_q, heads_kv)
    check_sizes(seq_q, seq_kv, head_dim, v[3])
    return Problem(seq_q, seq_kv, head_dim, v[3], dtype, batch, heads_q, heads_kv)


def check_heads(heads_q: int, heads_kv: int) -> None:
    """Grouped-query heads: every key head serves the same number of query heads."""
    if heads_q and (heads_kv == 0 or heads_q % heads_kv):
        raise ArgumentError(
            f"k wanted with a number of heads that divides q's {heads_q}, got {heads_kv}. Check axes and layout."
        )


def check_sizes(seq_q: int, seq_kv: int, head_dim: int, value_dim: int) -> None:
    """Lengths and widths that the kernels can do."""
    for name, dim in (("head_dim (the last axis of q)", head_dim), ("value_dim (the last axis of v)", value_dim)):
        if not 1 <= dim <= LARGEST_DIM:
            raise ArgumentError(f"{name} wanted from 1 to {LARGEST_DIM}, got {dim}. Split or pad the heads.")
    for name, length in (("q", seq_q), ("k", seq_kv)):
        if length > LARGEST_LENGTH:
            raise ArgumentError(
                f"{name} wanted with at most {LARGEST_LENGTH} tokens, got {length}. Split the sequence."
            )


def result_shape(q: Described, problem: Problem) -> tuple[int, ...]:
    """Shape of out in the caller's layout."""
    return (*q.shape[:-1], problem.value_dim)


def check_fits(out: Described, shape: tuple[int, ...], dtype: str) -> None:
    """Raise unless ``out`` has the result's shape and dtype."""
    if out.shape != shape:
        raise ArgumentError(f"out wanted of shape {shape}, got {out.shape}. Leave it out, or give one of this shape.")
    if out.dtype != dtype:
        raise ArgumentTypeError(
            f"out wanted as {dtype} as q is, got {out.dtype}. Leave it out, or give one of this dtype."
        )


@dataclass(frozen=True, slots=True)
class Written:
    """The array that a call writes, and what the caller gave for it, None where it is fresh."""

    array: Array
    given: Any


def prepare_out(out: Any, operands: Operands) -> Written:
    """The caller's ``out``, checked, or a fresh array."""
    shape, dtype = result_shape(operands.arrays["q"], operands.problem), operands.problem.dtype
    if out is None:
        return Written(Array(empty(shape, dtype), dtype, "numpy"), None)
    given = import_array("out", out)
    check_fits(given, shape, dtype)
    check_out(given.bits, {name: array.bits for name, array in operands.arrays.items()})
    return Written(given, out)


def export_lse(lse: NDArray[Any], operands: Operands, like: Any) -> Any:
    """lse with q's leading axes, (batch, heads, seq_q) less the missing ones."""
    trimmed = lse[(0,) * (4 - operands.axes)]
    return export_array(trimmed, operands.problem.compute_dtype, like)
