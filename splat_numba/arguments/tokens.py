"""q, k and v against each other: axes, dtypes, shapes, heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from splat_numba.errors import ArgumentError, ArgumentTypeError


class Described(Protocol):
    """An imported array of any backend: its shape as the caller laid it out, and its dtype's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""

    @property
    def dtype(self) -> str:
        """The name of its dtype."""


def check_axes(name: str, array: Described, axes: tuple[str, ...], fewest: int) -> None:
    """Raise ArgumentError unless the array has these axes, of which leading ones may be missing."""
    if not fewest <= len(array.shape) <= len(axes):
        raise ArgumentError(
            f"{name} wanted with axes {axes}, leading ones may be missing, got shape {array.shape}. Reshape it."
        )


def check_like(name: str, array: Described, like_name: str, like: Described, more: int = 0) -> None:
    """Raise unless the array has as many axes as ``like`` and ``more``, and its dtype."""
    axes = len(like.shape) + more
    if len(array.shape) != axes:
        fitting, advice = (
            (" as", "Give all the same axes.")
            if not more
            else (", one more than", "Leave leading axes out of both or of none.")
        )
        raise ArgumentError(
            f"{name} wanted with {axes} axes{fitting} {like_name} has, got shape {array.shape}. {advice}"
        )
    check_dtype(name, array, like_name, like)


def check_dtype(name: str, array: Described, like_name: str, like: Described) -> None:
    """Raise ArgumentTypeError unless the array has the dtype of ``like``."""
    if array.dtype != like.dtype:
        raise ArgumentTypeError(
            f"{name} wanted as {like.dtype} as {like_name} is, got {array.dtype}. Convert one of them."
        )


def check_tokens(arrays: Mapping[str, Described], axes: tuple[str, ...]) -> None:
    """Raise unless q has these axes (the first two may be missing), and k and v as many, of q's dtype."""
    first = arrays["q"]
    check_axes("q", first, axes, 2)
    for name in ("k", "v"):
        if name in arrays:
            check_like(name, arrays[name], "q", first)


def check_keys(q: tuple[int, ...], k: tuple[int, ...]) -> None:
    """Raise ArgumentError unless k has q's batch and head_dim. Both as (batch, heads, seq, dim)."""
    wanted = (q[0], *k[1:3], q[3])
    if k != wanted:
        raise ArgumentError(
            f"k wanted as (batch, heads, seq, head_dim) = {wanted} to fit q, got {k}. Check batch and head_dim."
        )


def check_values(k: tuple[int, ...], v: tuple[int, ...]) -> None:
    """Raise ArgumentError unless v has k's batch, heads and tokens. Both as (batch, heads, seq, dim)."""
    if v[:3] != k[:3]:
        raise ArgumentError(f"v wanted with (batch, heads, seq) = {k[:3]} to fit k, got {v}. Check its axes.")
