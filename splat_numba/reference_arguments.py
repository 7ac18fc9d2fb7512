"""The arguments of the oracles: arrays in float64 with all their axes, masks as dense arrays, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import kind, real_array, real_number, shown

Float64: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]


class HasDense(Protocol):
    """A stored mask, such as an ACSR."""

    def to_dense(self) -> Bool:
        """Give the mask as a 2-D bool array (seq_q, seq_kv)."""
        ...


OneMask: TypeAlias = Bool | HasDense
Mask: TypeAlias = OneMask | Sequence[OneMask]
Layout: TypeAlias = Literal["bhsd", "bshd"]


def real(name: str, x: Any) -> Float64:
    """Give x in float64. Raises ArgumentTypeError for what holds no real numbers."""
    array = real_array(x)
    if array is None:
        raise ArgumentTypeError(
            f"{name}: wanted an array of real numbers, got {kind(x)}; make a plain NumPy array of it"
        )
    return array


def number(name: str, value: Any) -> float:
    """Give value as a float. Raises ArgumentTypeError for what is no number."""
    found = real_number(value)
    if found is None:
        raise ArgumentTypeError(f"{name}: wanted a number, got {kind(value)}; give a Python float")
    return found


def four_axes(name: str, x: ArrayLike, ndim: int, layout: Layout = "bhsd") -> Float64:
    """Give x in float64 as (batch, heads, seq, dim); ndim is the number of axes that all arrays of the call have."""
    array = real(name, x)
    if not isinstance(layout, str) or layout not in {"bhsd", "bshd"}:
        raise ArgumentError(f"layout: wanted 'bhsd' or 'bshd', got {shown(layout)}; reorder the axes to one of these")
    if not 2 <= array.ndim <= 4 or array.ndim != ndim:
        raise ArgumentError(
            f"{name}: wanted 2 to 4 axes and as many as the first argument ({ndim}), got shape {array.shape}; "
            "leave leading axes out of all arrays or of none"
        )
    if layout == "bshd" and ndim > 2:
        array = array.swapaxes(-2, -3)
    return array.reshape((1,) * (4 - ndim) + array.shape)


def row_gradients(dlse: ArrayLike | None, shape: tuple[int, int, int], ndim: int) -> Float64:
    """Give dlse in float64 as (batch, heads, seq_q), zeros for None; ndim: the axes that q has."""
    if dlse is None:
        return np.zeros(shape)
    array = real("dlse", dlse)
    if array.shape != shape[4 - ndim :]:
        raise ArgumentError(f"dlse: wanted the shape of lse, {shape[4 - ndim :]}, got {array.shape}; give its gradient")
    return array.reshape(shape)


def check_operands(q: Float64, k: Float64, v: Float64) -> None:
    """Raise ArgumentError unless arrays of four axes fit together."""
    if k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ArgumentError(
            f"k: wanted the batch and head_dim of q, {q.shape[0]} and {q.shape[3]}, got shape {k.shape}"
        )
    if v.shape[:3] != k.shape[:3]:
        raise ArgumentError(f"v: wanted the batch, heads and seq_kv of k, {k.shape[:3]}, got shape {v.shape}")
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise ArgumentError(f"k: wanted a number of heads that divides heads_q = {q.shape[1]}, got {k.shape[1]}")


def dense_masks(mask: Mask, heads: int, seq_q: int, seq_kv: int) -> list[Bool]:
    """Give one bool array (seq_q, seq_kv) per query head; all the same array where there is one mask for all heads."""
    if not isinstance(mask, list | tuple):
        return [_dense_mask("mask", mask, seq_q, seq_kv)] * heads
    if len(mask) != heads:
        raise ArgumentError(f"mask: wanted one mask per query head, {heads}, got a list of {len(mask)}")
    return [_dense_mask(f"mask[{h}]", one, seq_q, seq_kv) for h, one in enumerate(mask)]


def _dense_mask(name: str, mask: Any, seq_q: int, seq_kv: int) -> Bool:
    try:
        dense = np.asarray(mask.to_dense() if hasattr(type(mask), "to_dense") else mask)
    except Exception as error:
        raise ArgumentTypeError(f"{name}: wanted a bool array, got {kind(mask)}: {error}; make one of it") from error
    if isinstance(mask, np.ma.MaskedArray):
        raise ArgumentTypeError(f"{name}: wanted a plain bool array, got a masked one; give mask.filled(False)")
    if dense.dtype == np.object_ and not dense.ndim:  # no numbers at all
        raise ArgumentTypeError(
            f"{name}: wanted a bool array, got {kind(mask)}; of a Pattern give ACSR.from_pattern(it, seq_q, seq_kv)"
        )
    if dense.dtype != np.bool_:
        raise ArgumentTypeError(f"{name}: wanted a bool array, got {dense.dtype}; use mask.astype(bool) or mask > 0")
    if dense.shape != (seq_q, seq_kv):
        raise ArgumentError(f"{name}: wanted shape (seq_q, seq_kv) = {(seq_q, seq_kv)}, got {dense.shape}")
    return dense


def valid_keys(kv_lengths: ArrayLike | None, batch: int, seq_kv: int, *, has_batch: bool) -> Bool:
    """Say which keys exist for each batch element: bool (batch, seq_kv)."""
    if kv_lengths is None:
        return np.ones((batch, seq_kv), np.bool_)
    lengths = real("kv_lengths", kv_lengths)
    if not has_batch or lengths.shape != (batch,):
        raise ArgumentError(f"kv_lengths: wanted one length per batch element, shape ({batch},), got {lengths.shape}")
    if not (np.all(lengths == np.round(lengths)) and np.all(lengths >= 0) and np.all(lengths <= seq_kv)):
        raise ArgumentError(f"kv_lengths: wanted integers from 0 to seq_kv = {seq_kv}, got {shown(kv_lengths)}")
    return np.arange(seq_kv) < lengths[:, None]


def check_weighted(weights: Float64, v: Float64) -> None:
    """Raise ArgumentError unless weights and v, of four axes, fit together."""
    batch, heads, _, seq_kv = weights.shape
    if v.shape[0] != batch or v.shape[2] != seq_kv or not v.shape[1] or heads % v.shape[1]:
        raise ArgumentError(
            f"v: wanted (batch, heads_kv, seq_kv, value_dim) to fit weights of shape {weights.shape}, got {v.shape}"
        )


def check_gradient(name: str, gradient: Float64, wanted: tuple[int, ...]) -> None:
    """Raise ArgumentError unless a gradient of four axes has the shape of what it is of."""
    if gradient.shape != wanted:
        raise ArgumentError(f"{name}: wanted the shape {wanted} of what it is the gradient of, got {gradient.shape}")
