"""The way of a call in which PyTorch has a hand: to autograd in eager mode, or to an operator that everything sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from splat_numba.arguments.layouts import check_layout
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.options import scale_number
from splat_numba.bridges.torch import operators
from splat_numba.bridges.torch.autograd import Eager, recorded
from splat_numba.bridges.torch.functions import check_local, is_differentiated, wants_gradient
from splat_numba.bridges.torch.names import mask_name
from splat_numba.bridges.torch.watch import RECORDED, is_seen_as_a_whole
from splat_numba.errors import ArgumentError, ArgumentTypeError

WITH_AUTOCAST = ("cpu", "cuda")  # kinds of devices, of those that take a call


def attend(
    mask: Any, options: tuple[Any, ...], q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool,
    watched: bool | str = True,
) -> Any:  # fmt: skip
    """Out, or (out, lse). mask: a Kernel, too; options: scale, layout, backend, target and autotune, as given;
    watched: what watch.is_watched() says.
    """
    scale, layout, backend, target, autotune = options
    # In graphs ``whole`` checks what the operator does not.
    if watched is RECORDED or not torch.compiler.is_compiling():
        _check_options(scale, layout, autotune, return_lse)
    if scale is not None:
        options = float(scale), layout, backend, target, autotune
    if watched is RECORDED and out is None:  # nearly always: all further questions are answered
        return recorded(q, k, v, (kv_lengths, return_lse, mask, options))
    if not (isinstance(q, torch.Tensor) and isinstance(k, torch.Tensor) and isinstance(v, torch.Tensor)):
        return _plain(mask, options, q, k, v, kv_lengths, out, return_lse)
    q, k, v = under_autocast(q, k, v)
    if is_seen_as_a_whole(torch, q, k, v):
        return _whole(mask, options, q, k, v, kv_lengths, out, return_lse)
    if is_differentiated(q, k, v):
        if out is not None:
            refuse_out()
        return Eager.apply(q, k, v, (kv_lengths, return_lse, mask, options))
    return _plain(mask, options, q, k, v, kv_lengths, out, return_lse)


def _check_options(scale: Any, layout: str, autotune: bool, return_lse: bool) -> None:
    """Raise ArgumentError, ArgumentTypeError for what no call takes."""
    check_layout(layout)
    if scale is not None:
        scale_number(scale)
    if autotune is not False:
        check_flag("autotune", autotune)
    if return_lse is not False:
        check_flag("return_lse", return_lse)


def under_autocast(*tensors: Any) -> Sequence[Any]:
    """Where the first one's device has autocast on: of its dtype, as PyTorch casts SDPA's tensors; float64 stays."""
    kind = tensors[0].device.type
    # "meta" has no autocast; torch.amp.is_autocast_available would say so, but PyTorch 2.11 does not trace it.
    if kind not in WITH_AUTOCAST or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return [one if one.dtype == torch.float64 or not one.is_floating_point() else one.to(dtype) for one in tensors]


def _whole(
    mask: Any, options: tuple[Any, ...], q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool
) -> Any:
    """By the operator."""
    check_not_nested((("q", q), ("k", k), ("v", v)))
    if torch.compiler.is_compiling():
        from splat_numba.bridges.torch.in_graphs import fits_a_graph, outside, whole

        if out is not None or not fits_a_graph(mask):
            return outside(mask, options, q, k, v, kv_lengths, out, return_lse)
    else:
        check_local(q, k, v)
        if out is not None:
            refuse_out()
        if wants_gradient(q, k, v):  # tangents are refused by the operator, within a vmap too
            from splat_numba.bridges.torch.autograd import whole
        else:
            whole = torch.ops.splat_numba.attention
    scale, layout, backend, target, autotune = options
    lengths = kv_lengths
    if not (lengths is None or isinstance(lengths, torch.Tensor)):
        lengths = torch.as_tensor(lengths, device="cpu")  # whatever the default device is
    out, lse = whole(q, k, v, mask_name(mask), scale, layout, lengths, backend, target, autotune)
    return (out, lse) if return_lse else out


def check_not_nested(named: Sequence[tuple[str, Any]]) -> None:
    """Raise ArgumentTypeError for a tensor whose entries have lengths of their own; None is none."""
    for name, one in named:
        if one is not None and one.is_nested:
            raise ArgumentTypeError(
                f"{name} wanted as a tensor of numbers in memory, got a nested one. Give "
                f"torch.nested.to_padded_tensor({name}, 0.0), and kv_lengths."
            )


def _plain(
    mask: Any, options: tuple[Any, ...], q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool
) -> Any:
    """As a call that nobody watches."""
    recipe = operators.recipe_for(q, mask, *options)
    return recipe.executor.attend(recipe, q, k, v, kv_lengths, out, return_lse)


def refuse_out() -> None:
    """Raise ArgumentError."""
    raise ArgumentError(
        "out wanted left out where PyTorch records, traces, transforms or watches the call, got an array: what is "
        "written to it is not seen. Leave it out, or call within torch.no_grad()."
    )
