"""A mapped axis of torch.func.vmap as part of the batch, and back."""

from __future__ import annotations

from typing import Any

import torch

from splat_numba.arguments.options import check_batch_axis


def axes_of(tensor: Any, dim: int | None) -> int:
    """Axes of a tensor without the mapped one."""
    return int(tensor.dim()) - (dim is not None)


def front(tensor: Any, dim: int | None, size: int) -> Any:
    """The tensor with the mapped axis first, which may be one that repeats it."""
    return tensor.movedim(dim, 0) if dim is not None else tensor.unsqueeze(0).expand(size, *tensor.shape)


def fold(tensor: Any, dim: int | None, size: int, layout: str) -> Any:
    """q, k, v and the like, with four axes."""
    whole = front(tensor, dim, size)
    if whole.dim() == 5:
        return whole.flatten(0, 1)
    return whole if whole.dim() == 4 else whole.unsqueeze(2 if layout == "bshd" else 1)


def unfold(whole: Any, size: int, axes: int, layout: str) -> Any:
    """The mapped axis of fold()'s again, first. axes: of one entry's tensor."""
    if axes == 4:
        return whole.unflatten(0, (size, -1))
    return whole if axes == 3 else whole.squeeze(2 if layout == "bshd" else 1)


def fold_levels(level: Any, dim: int | None, size: int) -> Any:
    """lse and its gradient, with three axes."""
    whole = front(level, dim, size)
    if whole.dim() == 4:
        return whole.flatten(0, 1)
    return whole if whole.dim() == 3 else whole.unsqueeze(1)


def unfold_levels(whole: Any, size: int, axes: int) -> Any:
    """As unfold(), of lse and its gradient. axes: of one entry's."""
    if axes == 3:
        return whole.unflatten(0, (size, -1))
    return whole if axes == 2 else whole.squeeze(1)


def fold_lengths(lengths: Any, dim: int | None, size: int, axes: int) -> Any:
    """Key lengths of all entries, one a batch entry. axes: of one entry's q. Raises ArgumentError without batch."""
    if lengths is None:
        return None
    check_batch_axis(axes)
    return front(lengths, dim, size).flatten()


def looped(operator: Any, info: Any, in_dims: Any, arguments: Any) -> Any:
    """The operator once for each entry of the mapped axis, its results stacked, as register_vmap wants them: for what
    entries do not share, such as the gradient of a matrix that all of a batch has.
    """
    dims = [one if isinstance(one, int) else None for one in in_dims]
    entries = [
        operator(*(one if dim is None else one.select(dim, at) for one, dim in zip(arguments, dims, strict=True)))
        for at in range(info.batch_size)
    ]
    if isinstance(entries[0], torch.Tensor):
        return torch.stack(entries), 0
    return tuple(map(torch.stack, zip(*entries, strict=True))), (0,) * len(entries[0])
