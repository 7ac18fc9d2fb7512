"""Attention as functions of torch.autograd: a quick one for eager calls, and one that all of PyTorch sees into."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from splat_numba.arguments.layouts import check_layout
from splat_numba.bridges.torch import operators
from splat_numba.bridges.torch.functions import (
    check_known,
    check_local,
    differentiate,
    is_mapped,
    keep,
    last_function,
    only,
)
from splat_numba.bridges.torch.names import mask_name, settled
from splat_numba.bridges.torch.operators import attended, gone_back
from splat_numba.bridges.torch.watch import is_transformed
from splat_numba.errors import ArgumentError
from splat_numba.executors.executor import BackwardCall
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern

_NO_TANGENTS = (
    "q, k and v wanted without tangents, got torch.func.jvp, jacfwd, hessian or a dual tensor: attention has no "
    "derivative in forward mode. Use reverse mode: torch.func.vjp, grad or jacrev."
)
_NO_SECOND = (
    "dout wanted without a graph, got a derivative of attention's gradients (create_graph=True, or grad of grad): "
    "they have none. Detach them, or use torch.nn.functional.scaled_dot_product_attention with SDPBackend.MATH."
)


class Whole(torch.autograd.Function):  # type: ignore[misc] # PyTorch's classes are Any
    """(out, lse) by the operators, so that torch.func, torch.compile and modes see what is done."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Any, k: Any, v: Any, *options: Any) -> Any:
        """options: those of the operator after v."""
        return torch.ops.splat_numba.attention(q, k, v, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what the way back reads."""
        q, k, v, mask, scale, layout, kv_lengths, backend, target, _ = inputs
        ctx.options = mask, scale, layout, backend, target
        ctx.set_materialize_grads(False)
        keep(ctx, q, k, v, *output, kv_lengths)

    @staticmethod
    def backward(ctx: Any, dout: Any, dlse: Any) -> Any:
        """Gradients of q, k and v."""
        *arrays, kv_lengths = ctx.saved_tensors
        mask, scale, layout, backend, target = ctx.options
        wanted = list(ctx.needs_input_grad[:3])
        dout = torch.zeros_like(arrays[3]) if dout is None else dout
        found = WholeBackward.apply(dout, *arrays, dlse, mask, scale, layout, kv_lengths, backend, target, wanted)
        return (*only(found, wanted), *[None] * 7)

    @staticmethod
    def jvp(_ctx: Any, *_tangents: Any) -> NoReturn:
        """Raise ArgumentError."""
        raise ArgumentError(_NO_TANGENTS)


WholeBackward = last_function(torch.ops.splat_numba.attention_backward, _NO_SECOND, _NO_TANGENTS)  # (dq, dk, dv)
differentiate(operators.library, "attention", Whole, operators.attend)
differentiate(operators.library, "attention_backward", WholeBackward, operators.backward)


def whole(*arguments: Any) -> Any:
    """Whole.apply, as a call that stands in Dynamo's graphs as it is. Raises ArgumentError for another layout,
    ArgumentTypeError for DTensors and for a scale that no trace knows.
    """
    check_local(*arguments[:3])
    check_known("scale", arguments[4])
    check_layout(arguments[5])
    return Whole.apply(*arguments)


class Eager(torch.autograd.Function):  # type: ignore[misc] # as above
    """out, or (out, lse), straight from the executor, which takes less of the host's time than Whole."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, given: tuple[Any, ...]) -> Any:
        """given: kv_lengths, return_lse, the mask and the other options, in one: PyTorch looks at each argument."""
        kv_lengths, return_lse, mask, options = given
        stored = settled(mask)
        kind = (id(stored), *options, kv_lengths)  # what is known holds the mask
        found = None if kv_lengths is not None else attended.call(kind, (q, k, v))
        if found is None:
            recipe = _recipe(q, stored, mask, options)
            found = recipe.executor.attend(recipe, q, k, v, kv_lengths, None, True)
            if kv_lengths is None and _lasts(stored, mask):
                attended.learn(kind, (q, k), recipe.executor.attend_again(recipe, (q, k, v), True))
        out, lse = found
        ctx.kept = stored, mask, options
        ctx.set_materialize_grads(False)
        # A copy of what is not a tensor: PyTorch notices what becomes of saved tensors alone.
        ctx.save_for_backward(q, k, v, out, lse, _tensor(kv_lengths))
        return (out, lse) if return_lse else out

    @staticmethod
    def backward(ctx: Any, dout: Any, dlse: Any = None) -> Any:
        """Gradients of q, k and v."""
        (q, k, v, out, lse, kv_lengths), wanted = ctx.saved_tensors, ctx.needs_input_grad[:3]
        dout = torch.zeros_like(out) if dout is None else dout
        stored, mask, options = ctx.kept
        kind = (id(stored), *options, *wanted)
        if kv_lengths is None and not (_recording() or _modes()):  # of the rest tensors' dispatch keys tell
            arrays = (q, k, v, out, dout, lse) if dlse is None else (q, k, v, out, dout, lse, dlse)
            found = gone_back.call(kind, arrays)
            if found is not None:
                return (*found, None)
        if _recording() or is_transformed(torch) or is_mapped(dout) or is_mapped(dlse):
            return (*_watched_backward(ctx, (dout, q, k, v, out, lse, dlse), kv_lengths, list(wanted)), None)
        recipe = _recipe(q, stored, mask, options)
        call = BackwardCall(dout, q, k, v, out, lse, dlse, kv_lengths, operators.FROZEN[wanted])
        gradients = recipe.executor.backward(recipe, call)
        if kv_lengths is None and _lasts(stored, mask):
            gone_back.learn(kind, (q, k), recipe.executor.backward_again(recipe, call))
        return (*gradients, None)

    @staticmethod
    def jvp(_ctx: Any, *_tangents: Any) -> NoReturn:
        """Raise ArgumentError."""
        raise ArgumentError(_NO_TANGENTS)


_recording, _modes = torch.is_grad_enabled, torch._C._len_torch_function_stack  # noqa: SLF001 - as in watch.py
_apply = super(torch.autograd.Function, Eager).apply
_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # noqa: SLF001 - torch.func has no public question


def recorded(q: Any, k: Any, v: Any, given: tuple[Any, ...]) -> Any:
    """Eager.apply where no transform is active, without its questions for one: they take 2 us."""
    if _is_wrapped(q) or _is_wrapped(k) or _is_wrapped(v):  # left over from one that has ended
        return Eager.apply(q, k, v, given)
    return _apply(q, k, v, given)


def _recipe(q: Any, stored: Any, mask: Any, options: tuple[Any, ...]) -> Any:
    return operators.known_recipe(q, mask, options) if stored is mask else operators.recipe_for(q, stored, *options)


def _lasts(stored: Any, mask: Any) -> bool:
    """Whether the next call may have the same mask, and what is known of it holds that: its id stays its own."""
    return stored is mask and isinstance(mask, (Pattern, ACSR))


def _tensor(kv_lengths: Any) -> Any:
    return (
        kv_lengths
        if kv_lengths is None or isinstance(kv_lengths, torch.Tensor)
        else torch.tensor(kv_lengths, device="cpu")
    )


def _watched_backward(ctx: Any, arrays: tuple[Any, ...], kv_lengths: Any, wanted: list[bool]) -> tuple[Any, ...]:
    """The gradients with a graph, or of mapped ones: is_grads_batched=True."""
    mask, _, (scale, layout, backend, target, _) = ctx.kept
    found = WholeBackward.apply(*arrays, mask_name(mask), scale, layout, kv_lengths, backend, target, wanted)
    return only(found, wanted)
