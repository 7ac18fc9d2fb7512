"""The order of an array's axes, and the leading ones that may be missing."""

from __future__ import annotations

from typing import Any, TypeVar

from numpy.typing import NDArray

from splat_numba.arguments.typed import Layout
from splat_numba.errors import ArgumentError
from splat_numba.plain import shown

LAYOUTS = {"bhsd": ("batch", "heads", "seq", "dim"), "bshd": ("batch", "seq", "heads", "dim")}
_Number = TypeVar("_Number")


def check_layout(layout: str) -> Layout:
    """The layout, or ArgumentError."""
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ArgumentError(
            f"layout wanted as 'bhsd' or 'bshd', got {shown(layout)}. Choose the order of your arrays' axes."
        )
    return layout  # type: ignore[return-value]  # as was asked


def to_bhsd(array: NDArray[Any], layout: str) -> NDArray[Any]:
    """The (batch, heads, seq, dim) view of an array of 2 to 4 axes."""
    whole = with_leading(array, 4)
    return whole.swapaxes(1, 2) if layout == "bshd" and array.ndim > 2 else whole


def with_leading(array: NDArray[Any], axes: int) -> NDArray[Any]:
    """A view with axes of size 1 put before the others."""
    return array[(None,) * (axes - array.ndim)]


def without_leading(array: NDArray[Any], axes: int) -> NDArray[Any]:
    """A view of the last ``axes`` axes, where those before have size 1."""
    trimmed: NDArray[Any] = array[(0,) * (array.ndim - axes)]
    return trimmed


def bhsd_axes(
    values: tuple[_Number, ...], layout: str, missing: _Number
) -> tuple[_Number, _Number, _Number, _Number]:  # fmt: skip
    """Sizes or strides of an array of 2 to 4 axes, as (batch, heads, seq, dim); missing: for the axes it has not."""
    batch, second, third, dim = (missing,) * (4 - len(values)) + values
    turned = layout == "bshd" and len(values) > 2
    return (batch, third, second, dim) if turned else (batch, second, third, dim)
