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


def check_layouts_agree(q: tuple[int, ...], k: tuple[int, ...]) -> None:
    """Raise ArgumentError where q looks like (batch, seq, heads, dim) beside k as (batch, heads, seq, dim), or so.

    Both as (batch, heads, seq, dim). Heads that differ pass as grouped ones; but where q with its two middle axes
    swapped is of k's very shape, one of them was hardly meant so. Grouped heads meet the rule only with as many queries
    as there are key heads and as many keys as there are query heads: such a call repeats the heads of k and v.
    """
    if q[1] != k[1] and q[1:3] == k[2:0:-1]:
        raise ArgumentError(
            f"q wanted as (batch, heads, seq, dim), the order of k, {k}, got {q}: heads and seq seem to be swapped in "
            "one of them. Give q.swapaxes(1, 2), a view, or layout='bshd' for all three. If heads are grouped so, "
            "repeat those of k and v."
        )


def check_equal_heads(heads: int, heads_kv: int) -> None:
    """Raise ArgumentError unless k has as many heads as q."""
    if heads_kv != heads:
        raise ArgumentError(
            f"k wanted with q's {heads} heads, got {heads_kv}: grouped-query heads are not supported. Repeat them, for "
            f"example with np.repeat(k, {max(heads // max(heads_kv, 1), 1)}, axis=-3), and those of v."
        )
