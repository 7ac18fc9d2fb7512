"""torch.func.vmap of the operators: the mapped axis joins the batch, so that one call serves all of it."""

from __future__ import annotations

from typing import Any

import torch

from splat_numba.bridges.torch.folding import (
    axes_of,
    fold,
    fold_lengths,
    fold_levels,
    unfold,
    unfold_levels,
)


def attend(
    info: Any, in_dims: Any, q: Any, k: Any, v: Any, mask: str, scale: Any, layout: str, kv_lengths: Any, *options: Any
) -> Any:
    """The results, and the mapped axis of each."""
    size, axes = info.batch_size, axes_of(q, in_dims[0])
    whole = [fold(one, dim, size, layout) for one, dim in zip((q, k, v), in_dims[:3], strict=True)]
    lengths = fold_lengths(kv_lengths, in_dims[6], size, axes)
    out, lse = torch.ops.splat_numba.attention(*whole, mask, scale, layout, lengths, *options)
    return (unfold(out, size, axes, layout), unfold_levels(lse, size, axes - 1)), (0, 0)


def backward(
    info: Any, in_dims: Any, dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, dlse: Any, mask: str, scale: Any,
    layout: str, kv_lengths: Any, *options: Any,
) -> Any:  # fmt: skip
    """The gradients of every entry's own q, k and v, and the mapped axis of each."""
    size, axes = info.batch_size, axes_of(q, in_dims[1])
    arrays = zip((dout, q, k, v, out), in_dims[:5], strict=True)
    whole = [fold(one, dim, size, layout) for one, dim in arrays]
    levels = [
        None if one is None else fold_levels(one, dim, size) for one, dim in zip((lse, dlse), in_dims[5:7], strict=True)
    ]
    lengths = fold_lengths(kv_lengths, in_dims[10], size, axes)
    found = torch.ops.splat_numba.attention_backward(*whole, *levels, mask, scale, layout, lengths, *options)
    wanted = options[-1]
    gradients = [unfold(one, size, axes, layout) if kept else one for one, kept in zip(found, wanted, strict=True)]
    return tuple(gradients), tuple(0 if kept else None for kept in wanted)
