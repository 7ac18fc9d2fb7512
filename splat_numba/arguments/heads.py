"""Grouped-query heads: every key head serves the same number of query heads."""

from __future__ import annotations

from splat_numba.errors import ArgumentError


def check_heads(heads_q: int, heads_kv: int, *, name: str = "k", like: str = "q's") -> None:
    """Raise ArgumentError unless key heads divide query heads."""
    if heads_q and (heads_kv == 0 or heads_q % heads_kv):
        raise ArgumentError(
            f"{name} wanted with a number of heads that divides {like} {heads_q}, got {heads_kv}. Check axes and "
            "layout."
        )


def check_equal_heads(heads: int, heads_kv: int) -> None:
    """Raise ArgumentError unless k has as many heads as q."""
    if heads_kv != heads:
        raise ArgumentError(
            f"k wanted with q's {heads} heads, got {heads_kv}: grouped-query heads are not supported. Repeat them, for "
            f"example with np.repeat(k, {max(heads // max(heads_kv, 1), 1)}, axis=-3), and those of v."
        )
