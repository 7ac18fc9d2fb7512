"""What the operators' results look like, for tensors without numbers: shapes may be symbols."""

from __future__ import annotations

from typing import Any

import torch

from splat_numba.bridges.torch.functions import fake_gradients


def attend(q: Any, _k: Any, v: Any, _mask: str, _scale: Any, layout: str, *_options: Any) -> tuple[Any, Any]:
    """(out, lse), contiguous: out as q with v's last axis, lse (batch, heads, seq_q) less the axes that are missing."""
    out = q.new_empty((*q.shape[:-1], v.shape[-1]))
    level = torch.float64 if q.dtype == torch.float64 else torch.float32
    return out, q.new_empty(level_shape(q.shape, layout), dtype=level)


def level_shape(shape: Any, layout: str) -> tuple[Any, ...]:
    """Of lse, for a q of this shape."""
    rows = tuple(shape[:-1])
    return (*rows[:-2], rows[-1], rows[-2]) if layout == "bshd" and len(rows) > 1 else rows


def backward(_dout: Any, q: Any, k: Any, v: Any, *others: Any) -> tuple[Any, Any, Any]:
    """(dq, dk, dv), contiguous; no elements for those that are not wanted, the last of ``others``."""
    dq, dk, dv = fake_gradients((q, k, v), others[-1], q)
    return dq, dk, dv
