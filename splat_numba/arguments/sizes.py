"""Sizes: whole numbers within what kernels can do."""

from __future__ import annotations

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import kind, shown, whole_number

LARGEST_DIM = 256
LARGEST_LENGTH = 2**31 - 1  # tile bounds are int32 in the kernels
LARGEST_SIZE = 2**40  # beyond every array, and small enough that products of a few sizes stay exact in int64
LARGEST_HEADS = 2**20  # each is listed in a plan


def check_size(name: str, value: object, least: int = 0, most: int = LARGEST_SIZE) -> int:
    """``value`` as an int from ``least`` to ``most``. Raises ArgumentError, ArgumentTypeError."""
    size = whole_number(value)
    if size is None:
        raise ArgumentTypeError(f"{name} wanted as an integer, got {kind(value)}. Give a whole number.")
    if size < least:
        raise ArgumentError(f"{name} wanted >= {least}, got {shown(size)}. Give at least {least}.")
    if size > most:
        raise ArgumentError(f"{name} wanted <= {most}, got {shown(size)}. Give at most {most}.")
    return size


def check_sizes(seq_q: int, seq_kv: int, head_dim: int, value_dim: int) -> None:
    """Raise ArgumentError for lengths and widths that the kernels cannot do."""
    for name, dim in (("head_dim (the last axis of q)", head_dim), ("value_dim (the last axis of v)", value_dim)):
        if not 1 <= dim <= LARGEST_DIM:
            raise ArgumentError(f"{name} wanted from 1 to {LARGEST_DIM}, got {dim}. Split or pad the heads.")
    for name, length in (("q", seq_q), ("k", seq_kv)):
        if length > LARGEST_LENGTH:
            raise ArgumentError(
                f"{name} wanted with at most {LARGEST_LENGTH} tokens, got {length}. Split the sequence."
            )
