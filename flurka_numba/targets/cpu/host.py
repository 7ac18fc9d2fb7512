"""What NumPy does between the launches of a schedule: weights, scales and views. All of it is small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.targets.cpu.plan import CpuPlan

Array = NDArray[Any]
LARGEST_SUM = -16  # as a power of two: queries of float32's largest then meet 256 features without overflow
LARGEST_EXPONENT = 100  # of sums that are brought there, so that scales have inverses in float32


def first_split(partial: Array) -> Array:
    """Of partial sums where there is but one."""
    return partial[:, :, 0]


def cut(rows: int | None, dims: int, padded: Array) -> Array:
    """An array of ours, (batch, heads, ...), without its pads."""
    return padded[:, :, :rows, :dims]


def transposed(array: Array) -> Array:
    """Rows for columns of the last two axes, contiguous."""
    return np.ascontiguousarray(array.swapaxes(2, 3))


def largest_of(splits: Array) -> Array:
    """Over splits."""
    found: Array = splits.max(axis=2)
    return found


def clear_without_keys(array: Array, lengths: Array) -> None:
    """Zeros for batch entries without keys, whatever their queries hold."""
    array[lengths == 0] = 0


def scaled_by_head(array: Array, scales: Array) -> Array:
    """array[batch, head] times scales[batch, head]."""
    return array * scales[:, :, None, None]


def add(target: Array, more: Array) -> None:
    """target += more."""
    target += more


def scaled(scale: float, array: Array) -> Array:
    """An array times a number, in its own type."""
    found: Array = array * array.dtype.type(scale)
    return found


def scaled_state(state: Array, sums: Array) -> tuple[Array, Array, Array]:
    """State and sums times their head's power of two, and those, (batch, heads), which bring the largest of the sums to
    2^LARGEST_SUM: else products with long queries would overflow. NaN where that has overflown, as the results would be
    zeros.
    """
    largest = np.abs(sums).max(axis=(2, 3), keepdims=True, initial=0)
    exponents = np.clip(np.frexp(largest)[1], -LARGEST_EXPONENT, LARGEST_EXPONENT)
    scales: Array = np.ldexp(sums.dtype.type(1), LARGEST_SUM - exponents)
    scales[np.isinf(largest)] = np.nan
    return state * scales, sums * scales, scales[:, :, 0, 0].copy()


def random_weights(plan: CpuPlan, factor: float, omega: Array) -> tuple[Array, Array]:
    """weights_of the rows of omega times a factor, one for all heads."""
    return weights_of(plan, (omega if factor == 1 else omega * omega.dtype.type(factor))[None, None])


def weights_of(plan: CpuPlan, rows: Array) -> tuple[Array, Array]:
    """w and w_t of a feature map that begins with u = x w, from the rows of w_t, (batch or 1, heads or 1, kept,
    head_dim). w: (.., head_dim, part), its first column repeated beyond the kept ones; w_t: the transpose, padded with
    zeros.
    """
    kept, head_dim = rows.shape[2:]
    w_t = np.zeros((*rows.shape[:2], plan.padded(kept), plan.padded(head_dim)), plan.compute_dtype)
    w_t[:, :, :kept, :head_dim] = rows
    w = transposed(w_t[..., :head_dim])
    w[..., kept:] = w[..., :1]
    return w, w_t


def slot_weights(plan: CpuPlan, rank: int, head_dim: int, scale: float, padded: Array) -> tuple[Array, Array, Array]:
    """Low-rank attention: w of a head's slots times powers of two, w_t of slots times the scale, and what q w is
    multiplied with to be scores.
    """
    slots = padded[:, :, :rank, :head_dim]
    near, scales = _brought_near(slots, scale)
    largest = np.finfo(slots.dtype).max  # what meets it then is a gradient of 0
    with np.errstate(over="ignore"):
        steep = np.clip(slots * slots.dtype.type(scale), -largest, largest)
    return weights_of(plan, near)[0], weights_of(plan, steep)[1], scales


def _brought_near(slots: Array, scale: float) -> tuple[Array, Array]:
    """Slots times the power of two that brings the largest of their head to 1, and the sign of the scale; and what
    differences of their products with queries are multiplied with, (batch, heads), which unlike scores may be infinite.
    """
    exponents = np.frexp(np.abs(slots).max(axis=(2, 3), keepdims=True, initial=0))[1]
    exponents = np.clip(exponents, -LARGEST_EXPONENT, np.finfo(slots.dtype).maxexp - 2)
    powers = np.ldexp(slots.dtype.type(math.copysign(1, scale)), -exponents)
    with np.errstate(over="ignore"):
        stretch = np.ldexp(np.float64(abs(scale)), exponents[:, :, 0, 0])
    return slots * powers, np.minimum(stretch, np.finfo(slots.dtype).max).astype(slots.dtype)
