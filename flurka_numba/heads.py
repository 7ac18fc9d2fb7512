"""Heads as an axis of their own, and side by side in the rows that products with weights make and take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flurka_numba.problem import Call


def split(rows: Any, heads: int) -> Any:
    """(..., seq, model_dim) -> (..., heads, seq, head_dim), a view at the same address."""
    *leading, model_dim = rows.shape
    return rows.reshape((*leading, heads, model_dim // heads)).swapaxes(-2, -3)


def merge(heads: Any) -> Any:
    """(..., heads, seq, head_dim) -> (..., seq, model_dim)."""
    rows = heads.swapaxes(-2, -3)
    return rows.reshape(*rows.shape[:-2], -1)


def with_views(call: Call) -> Call:
    """The call with an axis of heads in all of its arrays, where they are rows."""
    if not call.heads:
        return call
    q, k, v = (split(rows, call.heads) for rows in (call.q, call.k, call.v))
    return replace(call, q=q, k=k, v=v, out=None if call.out is None else split(call.out, call.heads), heads=0)
