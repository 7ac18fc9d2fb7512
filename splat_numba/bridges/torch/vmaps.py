"""torch.func.vmap of the operators: the mapped axis joins the batch, so that one call serves all of it."""

from __future__ import annotations

from typing import Any

import torch

from splat_numba.arguments.options import check_batch_axis


def attend(
    info: Any, in_dims: Any, q: Any, k: Any, v: Any, mask: str, scale: Any, layout: str, kv_lengths: Any, *options: Any
) -> Any:
    """The results, and the mapped axis of each."""
    size, axes = info.batch_size, _axes(q, in_dims[0])
    whole = [_fold(one, dim, size, layout) for one, dim in zip((q, k, v), in_dims[:3], strict=True)]
    lengths = _fold_lengths(kv_lengths, in_dims[6], size, axes)
    out, lse = torch.ops.splat_numba.attention(*whole, mask, scale, layout, lengths, *options)
    return (_unfold(out, size, axes, layout), _unfold_levels(lse, size, axes - 1)), (0, 0)


def backward(
    info: Any, in_dims: Any, dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, dlse: Any, mask: str, scale: Any,
    layout: str, kv_lengths: Any, *options: Any,
) -> Any:  # fmt: skip
    """The gradients of every entry's own q, k and v, and the mapped axis of each."""
    size, axes = info.batch_size, _axes(q, in_dims[1])
    arrays = zip((dout, q, k, v, out), in_dims[:5], strict=True)
    whole = [_fold(one, dim, size, layout) for one, dim in arrays]
    levels = [
        None if one is None else _fold_levels(one, dim, size)
        for one, dim in zip((lse, dlse), in_dims[5:7], strict=True)
    ]
    lengths = _fold_lengths(kv_lengths, in_dims[10], size, axes)
    found = torch.ops.splat_numba.attention_backward(*whole, *levels, mask, scale, layout, lengths, *options)
    wanted = options[-1]
    gradients = [_unfold(one, size, axes, layout) if kept else one for one, kept in zip(found, wanted, strict=True)]
    return tuple(gradients), tuple(0 if kept else None for kept in wanted)


def _axes(tensor: Any, dim: int | None) -> int:
    """Axes of a tensor without the mapped one."""
    return int(tensor.dim()) - (dim is not None)


def _front(tensor: Any, dim: int | None, size: int) -> Any:
    """The tensor with the mapped axis first, which may be one that repeats it."""
    return tensor.movedim(dim, 0) if dim is not None else tensor.unsqueeze(0).expand(size, *tensor.shape)


def _fold(tensor: Any, dim: int | None, size: int, layout: str) -> Any:
    """q, k, v and the like, with four axes."""
    whole = _front(tensor, dim, size)
    if whole.dim() == 5:
        return whole.flatten(0, 1)
    return whole if whole.dim() == 4 else whole.unsqueeze(2 if layout == "bshd" else 1)


def _unfold(whole: Any, size: int, axes: int, layout: str) -> Any:
    if axes == 4:
        return whole.unflatten(0, (size, -1))
    return whole if axes == 3 else whole.squeeze(2 if layout == "bshd" else 1)


def _fold_levels(level: Any, dim: int | None, size: int) -> Any:
    """lse and its gradient, with three axes."""
    whole = _front(level, dim, size)
    if whole.dim() == 4:
        return whole.flatten(0, 1)
    return whole if whole.dim() == 3 else whole.unsqueeze(1)


def _unfold_levels(whole: Any, size: int, axes: int) -> Any:
    if axes == 3:
        return whole.unflatten(0, (size, -1))
    return whole if axes == 2 else whole.squeeze(1)


def _fold_lengths(lengths: Any, dim: int | None, size: int, axes: int) -> Any:
    if lengths is None:
        return None
    check_batch_axis(axes)
    return _front(lengths, dim, size).flatten()
