"""Calls on PyTorch's tensors that require gradients, in eager mode: a torch.autograd.Function over attend_vjp."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import torch

from flurka_numba.backends import choose_executor
from flurka_numba.checks import ARRAYS, GRADIENTS
from flurka_numba.problem import Call
from splat_numba.errors import ArgumentError
from splat_numba.runtime.tensors import check_tensor


def attend(call: Call) -> Any:
    """The result, recorded by autograd. Raises ArgumentError for an out, and for an omega that requires a gradient."""
    if call.out is not None:
        raise ArgumentError(
            "out wanted left out where PyTorch records gradients, got an array: what is written to it is not recorded. "
            "Leave it out, or call within torch.no_grad()."
        )
    if isinstance(call.omega, torch.Tensor):
        check_tensor("omega", call.omega, GRADIENTS)
    return Differentiated.apply(call, *(getattr(call, name) for name in ARRAYS))


class Differentiated(torch.autograd.Function):  # type: ignore[misc] # PyTorch's classes are Any
    """A call's result and its gradients."""

    @staticmethod
    def forward(ctx: Any, call: Call, *arrays: Any) -> Any:
        """arrays: those of ARRAYS, or None."""
        named = dict(zip(ARRAYS, arrays, strict=True))
        wanted = dict(zip(ARRAYS, ctx.needs_input_grad[1:], strict=True))
        frozen = frozenset(name for name, one in wanted.items() if not one and named[name] is not None)
        call = replace(call, **named)
        out, ctx.vjp = choose_executor(call).attend_vjp(call, frozen)
        kept = call.kv_lengths if isinstance(call.kv_lengths, torch.Tensor) else None
        ctx.save_for_backward(*arrays, kept)  # so that PyTorch notices changes of what vjp reads
        return out

    @staticmethod
    def backward(ctx: Any, dout: Any) -> Any:
        """Gradients of the arrays."""
        saved = ctx.saved_tensors
        return (None, *pulled(ctx.vjp, dout, saved))

    @staticmethod
    def jvp(_ctx: Any, *_tangents: Any) -> NoReturn:
        """Raise ArgumentError."""
        raise ArgumentError(
            "q, k, v and projections wanted without tangents, got a dual tensor: there is no derivative in forward "
            "mode. Use reverse mode."
        )


def pulled(vjp: Any, dout: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """What vjp gives for dout. Where autograd records it (create_graph=True), with a derivative that is refused."""
    with torch.no_grad():
        found = list(vjp(dout))
    if not torch.is_grad_enabled():
        return found
    places = [at for at, one in enumerate(found) if one is not None]
    recorded = _Last.apply([found[at] for at in places], dout, *inputs)
    for at, one in zip(places, recorded, strict=True):
        found[at] = one
    return found


class _Last(torch.autograd.Function):  # type: ignore[misc] # as above
    """Gradients as they are, with a derivative that is refused, and not zero as that of a constant."""

    @staticmethod
    def forward(_ctx: Any, found: list[Any], *_inputs: Any) -> Any:
        return tuple(found)

    @staticmethod
    def backward(_ctx: Any, *_gradients: Any) -> NoReturn:
        raise ArgumentError(
            "dout wanted without a graph, got a derivative of FLuRKA's gradients (create_graph=True): they have none. "
            "Detach them."
        )
