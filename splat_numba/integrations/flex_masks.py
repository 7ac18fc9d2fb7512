"""Masks as functions for FlexAttention: patterns as arithmetic on (q_idx, kv_idx), as its users would write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np

from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.acsr import ACSR

Keeps = Callable[[Any, Any, Any, Any], Any]


def mask_function(mask: nodes.Pattern | ACSR, seq_q: int, seq_kv: int, device: Any = "cpu") -> Keeps:
    """A function (batch, head, q_idx, kv_idx) -> bool of tensors on the device: arithmetic, or a look-up in a table."""
    found = mask_mod(mask, seq_q, seq_kv, device) if isinstance(mask, nodes.Pattern) else None
    if found is not None:
        return found
    import torch

    acsr = ACSR.from_pattern(mask, seq_q, seq_kv) if isinstance(mask, nodes.Pattern) else mask
    table = torch.from_numpy(acsr.to_dense()).to(device)

    def keeps(_b: Any, _h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return table[q_idx, kv_idx]

    return keeps


def mask_mod(pattern: nodes.Pattern, seq_q: int, seq_kv: int, device: Any = "cpu") -> Keeps | None:
    """A function (batch, head, q_idx, kv_idx) -> bool, or None for patterns that are better looked up in a table."""
    pair = _pair(pattern, seq_q, seq_kv, device)
    if pair is None:
        return None

    def keeps(_b: Any, _h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return pair(q_idx, kv_idx)

    return keeps


def _pair(pattern: nodes.Pattern, seq_q: int, seq_kv: int, device: Any) -> Callable[[Any, Any], Any] | None:
    match pattern:
        case nodes.Union(parts) | nodes.Intersection(parts):
            joined = [_pair(part, seq_q, seq_kv, device) for part in parts]
            both = or_ if isinstance(pattern, nodes.Union) else and_
            known = [one for one in joined if one is not None]
            return (lambda i, j: reduce(both, [one(i, j) for one in known])) if len(known) == len(joined) else None
        case nodes.AlignEnd(inner):
            one, shift = _pair(inner, seq_q, seq_kv, device), seq_kv - seq_q
            return None if one is None else lambda i, j: one(i + shift, j)
        case nodes.Documents(lengths):
            return _documents(lengths, device)
        case _:
            return _leaf(pattern)


def _leaf(pattern: nodes.Pattern) -> Callable[[Any, Any], Any] | None:
    match pattern:
        case nodes.Full():
            return lambda i, j: (i >= 0) & (j >= 0)
        case nodes.Causal():
            return lambda i, j: j <= i
        case nodes.Window(left, right):
            return lambda i, j: (i - j <= left) & (j - i <= right)
        case nodes.Dilated(window, step):
            return lambda i, j: ((i - j) % step == 0) & (abs(i - j) <= window * step)
        case nodes.Strided(step):
            return lambda i, j: (i - j) % step == 0
        case nodes.Columns(period, start, count):
            return lambda i, j: (i >= 0) & (j % period >= start) & (j % period < start + count)
        case nodes.Blocked(size, before, after):
            return lambda i, j: (i // size - before <= j // size) & (j // size <= i // size + after)
        case nodes.GlobalFirst(n):
            return lambda i, j: (i < n) | (j < n)
        case nodes.Sinks(n):
            return lambda i, j: (i >= 0) & (j < n)
        case nodes.Prefix(n):
            return lambda i, j: (j < n) | (j <= i)
    return None


def _documents(lengths: tuple[int, ...], device: Any) -> Callable[[Any, Any], Any]:
    import torch

    document = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
    return lambda i, j: document[i] == document[j]
