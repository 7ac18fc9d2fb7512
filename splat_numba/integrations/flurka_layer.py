"""FLuRKA's layer in PyTorch: torch.ops.flurka_numba.layer, and the functions of autograd over it.

As in flurka_numba.bridges.torch: a quick function for eager calls, and operators for all that sees into a call.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from flurka_numba import FlurkaLayer
from flurka_numba.bridges.torch.autograd import NO_SECOND, NO_TANGENTS
from flurka_numba.bridges.torch.names import map_name, named_map
from flurka_numba.bridges.torch.operators import library
from splat_numba.bridges.torch.folding import looped
from splat_numba.bridges.torch.functions import (
    bare,
    check_local,
    define,
    differentiate,
    fake_gradients,
    filled,
    is_mapped,
    keep,
    last_function,
    only,
)
from splat_numba.bridges.torch.watch import is_transformed
from splat_numba.errors import ArgumentError

WEIGHTS = ("w_q", "w_k", "w_v", "w_o", "proj_k", "proj_v")
NAMES = ("x", *WEIGHTS)  # in the order of their gradients
_SCHEMA = f"{', '.join(f'Tensor {name}' for name in NAMES)}, Tensor? omega, int heads, str feature_map"


def attend(*arguments: Any) -> Any:
    """The layer's output, contiguous. arguments: the operator's."""
    layer, x = _layer(*arguments)
    return layer(x).contiguous()


def backward(dout: Any, *arguments: Any) -> Any:
    """The gradients of NAMES, contiguous; those that are not wanted have no elements."""
    *given, wanted = arguments
    layer, x = _layer(*given)
    _, vjp = layer.vjp(x, frozen=_frozen(wanted))
    return filled(map(vjp(bare(dout)).get, NAMES), x)


def _layer(*arguments: Any) -> tuple[FlurkaLayer, Any]:
    *arrays, heads, feature_map = arguments
    x, *weights, omega = map(bare, arrays)
    return FlurkaLayer(*weights, heads=heads, feature_map=named_map(feature_map), omega=omega), x


def _frozen(wanted: Any) -> list[str]:
    return [name for name, one in zip(NAMES, wanted, strict=True) if not one]


def _fake(x: Any, *_others: Any) -> Any:
    return x.new_empty(x.shape)


def _fake_backward(_dout: Any, *arguments: Any) -> Any:
    return fake_gradients(arguments[: len(NAMES)], arguments[-1], arguments[0])


def _vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
    return looped(torch.ops.flurka_numba.layer, info, in_dims, arguments)


def _vmap_backward(info: Any, in_dims: Any, *arguments: Any) -> Any:
    return looped(torch.ops.flurka_numba.layer_backward, info, in_dims, arguments)


define(library, "layer", f"({_SCHEMA}) -> Tensor", attend, _fake, _vmap)
define(
    library, "layer_backward",
    f"(Tensor dout, {_SCHEMA}, bool[] wanted) -> ({', '.join(['Tensor'] * len(NAMES))})",
    backward, _fake_backward, _vmap_backward,
)  # fmt: skip
WholeBackward = last_function(torch.ops.flurka_numba.layer_backward, NO_SECOND, NO_TANGENTS)


class Whole(torch.autograd.Function):  # type: ignore[misc] # PyTorch's classes are Any
    """The layer by the operator, so that torch.func, torch.compile and modes see what is done."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Any:
        """arguments: the operator's."""
        return torch.ops.flurka_numba.layer(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, _output: Any) -> None:
        """Keep what the way back reads."""
        *arrays, ctx.heads, ctx.feature_map = inputs
        keep(ctx, *arrays)

    @staticmethod
    def backward(ctx: Any, dout: Any) -> Any:
        """Gradients of NAMES."""
        return (*_watched(ctx, dout, list(ctx.needs_input_grad[: len(NAMES)])), None, None, None)

    @staticmethod
    def jvp(_ctx: Any, *_tangents: Any) -> NoReturn:
        """Raise ArgumentError."""
        raise ArgumentError(NO_TANGENTS)


def _watched(ctx: Any, dout: Any, wanted: list[bool]) -> tuple[Any, ...]:
    return only(WholeBackward.apply(dout, *ctx.saved_tensors, ctx.heads, ctx.feature_map, wanted), wanted)


differentiate(library, "layer", Whole, attend)
differentiate(library, "layer_backward", WholeBackward, backward)


def whole(*arguments: Any) -> Any:
    """Whole.apply, as a call that stands in Dynamo's graphs as it is. Raises ArgumentTypeError for DTensors."""
    check_local(*arguments[: len(NAMES)], names=NAMES)
    return Whole.apply(*arguments)


torch.compiler.allow_in_graph(whole)  # see splat_numba.bridges.torch.in_graphs


class Eager(torch.autograd.Function):  # type: ignore[misc] # as above
    """A layer's output and gradients straight from FlurkaLayer, which keeps what was made of keys and values."""

    @staticmethod
    def forward(ctx: Any, x: Any, layer: FlurkaLayer, *weights: Any) -> Any:
        """weights: the layer's, in the order of WEIGHTS."""
        wanted = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:])
        out, ctx.vjp = layer.vjp(x, frozen=_frozen(wanted))
        ctx.heads, ctx.feature_map = layer.heads, map_name(layer.feature_map)
        ctx.save_for_backward(x, *weights, layer.omega)  # so that PyTorch notices changes of what vjp reads
        return out

    @staticmethod
    def backward(ctx: Any, dout: Any) -> Any:
        """Gradients of x and of the weights."""
        _ = ctx.saved_tensors  # PyTorch looks here whether they have changed
        wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2:]]
        if torch.is_grad_enabled() or is_transformed(torch) or is_mapped(dout):
            found = list(_watched(ctx, dout, wanted))
        else:
            found = list(map(ctx.vjp(dout).get, NAMES))
        return (found[0], None, *found[1:])

    @staticmethod
    def jvp(_ctx: Any, *_tangents: Any) -> NoReturn:
        """Raise ArgumentError."""
        raise ArgumentError(NO_TANGENTS)
