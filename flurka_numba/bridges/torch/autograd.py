"""FLuRKA and its methods as functions of torch.autograd: a quick one for eager calls, one that PyTorch sees into."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import torch

from flurka_numba.backends import choose_executor
from flurka_numba.bridges.torch import operators
from flurka_numba.bridges.torch.given import as_tensor, check_omega
from flurka_numba.bridges.torch.names import map_name
from flurka_numba.checks import ARRAYS
from flurka_numba.problem import Call
from splat_numba.bridges.torch.functions import (
    check_known,
    check_local,
    differentiate,
    is_mapped,
    keep,
    last_function,
    only,
)
from splat_numba.bridges.torch.watch import is_transformed
from splat_numba.errors import ArgumentError

NO_TANGENTS = (
    "q, k, v and projections wanted without tangents, got a dual tensor: there is no derivative in forward mode. Use "
    "reverse mode."
)
NO_SECOND = (
    "dout wanted without a graph, got a derivative of FLuRKA's gradients (create_graph=True): they have none. Detach "
    "them."
)
_TENSORS, _OPTIONS = 7, 6  # of the operator's arguments
WholeBackward = last_function(torch.ops.flurka_numba.attention_backward, NO_SECOND, NO_TANGENTS)


class Whole(torch.autograd.Function):  # type: ignore[misc] # PyTorch's classes are Any
    """The result by the operator, so that torch.func, torch.compile and modes see what is done."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Any:
        """arguments: the operator's."""
        return torch.ops.flurka_numba.attention(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, _output: Any) -> None:
        """Keep what the way back reads."""
        ctx.options = inputs[_TENSORS:]
        keep(ctx, *inputs[:_TENSORS])

    @staticmethod
    def backward(ctx: Any, dout: Any) -> Any:
        """Gradients of the arrays."""
        wanted = list(ctx.needs_input_grad[: len(ARRAYS)])
        found = WholeBackward.apply(dout, *ctx.saved_tensors, *ctx.options, wanted)
        return (*only(found, wanted), *[None] * (_TENSORS - len(ARRAYS) + _OPTIONS))

    @staticmethod
    def jvp(_ctx: Any, *_tangents: Any) -> NoReturn:
        """Raise ArgumentError."""
        raise ArgumentError(NO_TANGENTS)


differentiate(operators.library, "attention", Whole, operators.attend)
differentiate(operators.library, "attention_backward", WholeBackward, operators.backward)


def whole(*arguments: Any) -> Any:
    """Whole.apply, as a call that stands in Dynamo's graphs as it is. Raises ArgumentError for omega's
    gradient, ArgumentTypeError for DTensors and for options that no trace knows.
    """
    check_local(*arguments[:5], names=ARRAYS)
    check_known("eps", arguments[9])
    check_known("scale", arguments[10])
    check_omega(arguments[5])
    return Whole.apply(*arguments)


class Eager(torch.autograd.Function):  # type: ignore[misc] # as above
    """A call's result and its gradients straight from the executor, which keeps what was made of keys and values."""

    @staticmethod
    def forward(ctx: Any, call: Call, *arrays: Any) -> Any:
        """arrays: those of ARRAYS, or None."""
        named = dict(zip(ARRAYS, arrays, strict=True))
        wanted = dict(zip(ARRAYS, ctx.needs_input_grad[1:], strict=True))
        frozen = frozenset(name for name, one in wanted.items() if not one and named[name] is not None)
        call = replace(call, **named)
        out, ctx.vjp = choose_executor(call).attend_vjp(call, frozen)
        ctx.options = call.method, map_name(call.feature_map), call.eps, call.scale, call.backend, call.target
        # So that PyTorch notices changes of what vjp reads.
        ctx.save_for_backward(*arrays, as_tensor(call.omega), as_tensor(call.kv_lengths))
        return out

    @staticmethod
    def backward(ctx: Any, dout: Any) -> Any:
        """Gradients of the arrays."""
        saved, wanted = ctx.saved_tensors, list(ctx.needs_input_grad[1:])
        if torch.is_grad_enabled() or is_transformed(torch) or is_mapped(dout):
            return (None, *only(WholeBackward.apply(dout, *saved, *ctx.options, wanted), wanted))
        return (None, *ctx.vjp(dout))

    @staticmethod
    def jvp(_ctx: Any, *_tangents: Any) -> NoReturn:
        """Raise ArgumentError."""
        raise ArgumentError(NO_TANGENTS)
