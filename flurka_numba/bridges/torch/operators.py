"""FLuRKA and its methods as PyTorch operators: torch.ops.flurka_numba.attention and .attention_backward.

Importing this defines them. Gradients begin with the forward pass, since what it leaves for them has other sizes on
every machine: a graph holds the inputs alone.
"""

from __future__ import annotations

from typing import Any

import torch

from flurka_numba.backends import choose_executor
from flurka_numba.bridges.torch.names import named_map
from flurka_numba.checks import ARRAYS
from flurka_numba.problem import Call
from splat_numba.bridges.torch.folding import axes_of, fold, fold_lengths, looped, unfold
from splat_numba.bridges.torch.functions import bare, define, fake_gradients, filled

_TENSORS = "Tensor q, Tensor k, Tensor v, Tensor? proj_k, Tensor? proj_v, Tensor? omega, Tensor? kv_lengths"
_OPTIONS = "str method, str? feature_map, float? eps, float? scale, str backend, str? target"
library = torch.library.Library("flurka_numba", "DEF")


def attend(*arguments: Any) -> Any:
    """Out of tensors in memory, contiguous."""
    call = _call(*arguments)
    return choose_executor(call).attend(call).contiguous()


def backward(dout: Any, *arguments: Any) -> Any:
    """The gradients of q, k, v, proj_k and proj_v, contiguous; those that are not wanted have no elements."""
    *given, wanted = arguments
    call = _call(*given)
    absent = [name for name, kept in zip(ARRAYS, wanted, strict=True) if not kept and getattr(call, name) is not None]
    _, vjp = choose_executor(call).attend_vjp(call, frozenset(absent))
    return filled(vjp(bare(dout)), call.q)


def _call(
    q: Any, k: Any, v: Any, proj_k: Any, proj_v: Any, omega: Any, kv_lengths: Any, method: str, feature_map: Any,
    eps: float | None, scale: float | None, backend: str, target: str | None,
) -> Call:  # fmt: skip
    q, k, v, proj_k, proj_v, omega = map(bare, (q, k, v, proj_k, proj_v, omega))
    phi = named_map(feature_map)
    return Call(method, q, k, v, proj_k, proj_v, phi, omega, eps, scale, kv_lengths, backend, target)


def _fake(q: Any, _k: Any, v: Any, *_others: Any) -> Any:
    return q.new_empty((*q.shape[:-1], v.shape[-1]))


def _fake_backward(_dout: Any, *arguments: Any) -> Any:
    return fake_gradients(arguments[:5], arguments[-1], arguments[0])


def _vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
    """Entries join the batch, unless they have projections or random rows of their own."""
    if any(isinstance(one, int) for one in in_dims[3:6]):
        return looped(torch.ops.flurka_numba.attention, info, in_dims, arguments)
    whole, axes = _folded(info, in_dims, arguments)
    return unfold(torch.ops.flurka_numba.attention(*whole), info.batch_size, axes, "bhsd"), 0


def _vmap_backward(info: Any, in_dims: Any, *arguments: Any) -> Any:
    """As _vmap; the gradient of a projection that entries share is one for each of them."""
    dout, *inner, wanted = arguments
    if any(isinstance(one, int) for one in in_dims[4:7]) or any(wanted[3:]):
        return looped(torch.ops.flurka_numba.attention_backward, info, in_dims, arguments)
    size = info.batch_size
    whole, axes = _folded(info, in_dims[1:], inner)
    found = torch.ops.flurka_numba.attention_backward(fold(dout, in_dims[0], size, "bhsd"), *whole, wanted)
    made = [unfold(one, size, axes, "bhsd") if kept else one for one, kept in zip(found, wanted, strict=True)]
    return tuple(made), tuple(0 if kept else None for kept in wanted)


def _folded(info: Any, in_dims: Any, arguments: Any) -> tuple[list[Any], int]:
    """The arguments with the mapped axis in the batch, and the axes of one entry's q."""
    q, k, v, proj_k, proj_v, omega, kv_lengths, *options = arguments
    size, axes = info.batch_size, axes_of(q, in_dims[0])
    tokens = [fold(one, dim, size, "bhsd") for one, dim in zip((q, k, v), in_dims[:3], strict=True)]
    return [*tokens, proj_k, proj_v, omega, fold_lengths(kv_lengths, in_dims[6], size, axes), *options], axes


define(library, "attention", f"({_TENSORS}, {_OPTIONS}) -> Tensor", attend, _fake, _vmap)
define(
    library, "attention_backward",
    f"(Tensor dout, {_TENSORS}, {_OPTIONS}, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    backward, _fake_backward, _vmap_backward,
)  # fmt: skip
