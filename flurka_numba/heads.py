"""Heads as an axis of their own, and side by side in the rows that products with weights make and take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flurka_numba.problem import Call, Problem


def split(rows: Any, heads: int) -> Any:
    """(..., seq, model_dim) -> (..., heads, seq, head_dim), a view at the same address."""
    *leading, model_dim = rows.shape
    return rows.reshape((*leading, heads, model_dim // heads)).swapaxes(-2, -3)


def merge(heads: Any) -> Any:
    """(..., heads, seq, head_dim) -> (..., seq, model_dim)."""
    rows = heads.swapaxes(-2, -3)
    return rows.reshape(*rows.shape[:-2], rows.shape[-2] * rows.shape[-1])  # -1 would mean nothing where rows are none


def product(a: Any, b: Any) -> Any:
    """``a @ b``, with sums in float32 where NumPy would keep them in 16 bits."""
    if isinstance(a, np.ndarray) and a.dtype.itemsize == 2:
        return (a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype)
    return a @ b


def with_queries(call: Call) -> Call:
    """The call with its queries, where it has what they are made from."""
    return call if call.w_q is None else replace(call, q=product(call.q, call.w_q), w_q=None)


def needs_queries(call: Call, problem: Problem) -> bool:
    """Whether they are still to be made: the problem takes no layer's input, but the call has one."""
    return call.w_q is not None and not problem.model_dim


def with_views(call: Call) -> Call:
    """The call with an axis of heads in all of its arrays, where they are rows; that of q in a layer's input, too."""
    if not call.heads:
        return call
    q, k, v = (split(rows, call.heads) for rows in (call.q, call.k, call.v))
    return replace(call, q=q, k=k, v=v, out=None if call.out is None else split(call.out, call.heads), heads=0)
