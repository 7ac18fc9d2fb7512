"""Options that both packages' attention has, checked: the factor of the scores, and key lengths."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.numbers import check_number
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import shown
from splat_numba.runtime.arrays import host_numbers


class Lengths(Protocol):
    """What key lengths are checked against: a problem of either package."""

    @property
    def batch(self) -> int:
        """Batch entries."""

    @property
    def seq_kv(self) -> int:
        """Keys of an entry."""


# Magnitudes of a scale, other than 0: normal numbers of the arithmetic, still so times log2(e), which kernels apply.
SCALES = {"float32": (1.2e-38, 2.3e38), "float64": (2.3e-308, 1.2e308)}


def check_scale(scale: float | None, head_dim: int, dtype: str) -> float:
    """The factor of the scores, 1/sqrt(head_dim) unless given. dtype: of the arrays.

    Raises ArgumentError, ArgumentTypeError.
    """
    if scale is None:
        return 1.0 / math.sqrt(head_dim)
    return check_scale_range(scale_number(scale), dtype)


def scale_number(scale: Any) -> float:
    """A factor of the scores that was given, as a float. Raises ArgumentError, ArgumentTypeError."""
    return check_number("scale", scale, "Give a Python float, or leave it out for 1/sqrt(head_dim).")


def check_scale_range(scale: float, dtype: str) -> float:
    """The scale itself, if arrays of the dtype can be multiplied by it. Raises ArgumentError."""
    smallest, largest = SCALES["float64" if dtype == "float64" else "float32"]
    if scale and not smallest <= abs(scale) <= largest:
        raise ArgumentError(
            f"scale wanted as 0 or of a magnitude from {smallest} to {largest} for {dtype} arrays, got {scale}. "
            "Multiply q or k by a part of it."
        )
    return scale


def check_kv_lengths(kv_lengths: Any, problem: Lengths, axes: int) -> NDArray[np.int64]:
    """Key lengths, (batch,) int64; without any, the whole axis. axes: of the caller's q.

    Raises ArgumentError, ArgumentTypeError.
    """
    if kv_lengths is None:
        return np.full(problem.batch, problem.seq_kv, np.int64)
    lengths = _as_array(kv_lengths)
    check_lengths_kind(lengths.shape, str(lengths.dtype), lengths.dtype.kind in "iu", problem, axes)
    if lengths.size and not 0 <= int(lengths.min()) <= int(lengths.max()) <= problem.seq_kv:
        raise ArgumentError(
            f"kv_lengths wanted between 0 and seq_kv = {problem.seq_kv}, got {shown(lengths.tolist())}. Correct them."
        )
    return np.ascontiguousarray(lengths, np.int64)


def _as_array(kv_lengths: Any) -> NDArray[Any]:
    lengths = host_numbers("kv_lengths", kv_lengths)
    if lengths.size or isinstance(kv_lengths, np.ndarray):
        return lengths
    return lengths.astype(np.int64)  # an empty list has no dtype of its own


def check_lengths_kind(shape: tuple[int, ...], dtype: str, integers: bool, problem: Lengths, axes: int) -> None:
    """Raise unless kv_lengths are integers of shape (batch,) and there is a batch axis."""
    check_batch_axis(axes)
    if not integers:
        raise ArgumentTypeError(f"kv_lengths wanted as integers, got {dtype}. Convert them with .astype(np.int64).")
    if shape != (problem.batch,):
        raise ArgumentError(
            f"kv_lengths wanted of shape {(problem.batch,)}, got {shape}. Give one length a batch entry."
        )


def check_batch_axis(axes: int) -> None:
    """Raise ArgumentError unless a q with so many axes has one of batch entries, which kv_lengths need."""
    if axes != 4:
        raise ArgumentError(f"kv_lengths needs a batch axis, got q with {axes} axes. Give q[None], k[None], v[None].")
