"""Attention and its gradients as PyTorch operators: torch.ops.splat_numba.attention and .attention_backward.

Importing this defines them. Graphs of torch.compile, torch.export and make_fx hold them. Their derivatives stand in
bridges.torch.autograd.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch

from splat_numba.arguments.layouts import check_layout
from splat_numba.bridges.torch import fakes, vmaps
from splat_numba.bridges.torch.functions import all_bare, define, filled
from splat_numba.bridges.torch.names import named
from splat_numba.bridges.torch.shortcuts import shorten
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.executor import BackwardCall, Recipe
from splat_numba.executors.given import Given
from splat_numba.executors.known import Known
from splat_numba.runtime.graphs import stay_outside_graphs
from splat_numba.runtime.recent import REMEMBERED, Recent

_OPTIONS = "str mask, float? scale, str layout, Tensor? kv_lengths, str backend, str? target"
library = torch.library.Library("splat_numba", "DEF")


def recipe_for(
    q: Any, mask: Any, scale: float | None, layout: str, backend: str, target: str | None, autotune: bool
) -> Recipe:
    """What a call with these arguments means. mask: a kernel is a recipe itself."""
    if hasattr(mask, "parts_for"):
        kernel: Recipe = mask
        return kernel
    executor = choose_executor(backend, target, q)
    return Given(mask, executor.measured() if autotune else executor, layout, scale)


def known_recipe(q: Any, mask: Any, options: tuple[Any, ...]) -> Recipe:
    """recipe_for() a mask that cannot change, remembered: choosing takes 4 us."""
    try:
        key = id(mask), options, q.is_cuda
        found = _recipes.glance(key)
    except TypeError:  # an option of a wrong type, which is refused by name
        return recipe_for(q, mask, *options)
    if found is not None:
        stay_outside_graphs("splat_numba")
        return found
    found = recipe_for(q, mask, *options)
    if found is mask or (options[2] == "cuda" and not q.is_cuda):  # a kernel; or what settings decide
        return found
    return _recipes.keep(key, found)


_recipes: Recent[Recipe] = Recent(REMEMBERED)  # which hold their masks, so that ids stay theirs


def attend(
    q: Any, k: Any, v: Any, mask: str, scale: float | None, layout: str, kv_lengths: Any, backend: str,
    target: str | None, autotune: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """(out, lse) of tensors in memory, contiguous."""
    q, k, v = arrays = all_bare((q, k, v))
    options = mask, scale, layout, kv_lengths, backend, target, autotune
    known = attended.call(options, arrays)
    if known is not None:
        return known
    check_layout(layout)
    recipe = known_recipe(q, named(mask), (scale, layout, backend, target, autotune))
    out, lse = recipe.executor.attend(recipe, q, k, v, kv_lengths, None, True)
    if kv_lengths is None:
        attended.learn(options, arrays, recipe.executor.attend_again(recipe, arrays, True))
    return out.contiguous(), lse.contiguous()


def backward(
    dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, dlse: Any, mask: str, scale: float | None, layout: str,
    kv_lengths: Any, backend: str, target: str | None, wanted: list[bool],
) -> tuple[Any, Any, Any]:  # fmt: skip
    """(dq, dk, dv), contiguous; those that are not wanted have no elements."""
    dout, q, k, v, out, lse, dlse = all_bare((dout, q, k, v, out, lse, dlse))
    options, arrays = _split_backward(
        dout, q, k, v, out, lse, dlse, mask, scale, layout, kv_lengths, backend, target, wanted
    )
    known = gone_back.call(options, arrays)
    if known is not None:
        return known
    recipe = known_recipe(q, named(mask), (scale, layout, backend, target, False))
    call = BackwardCall(dout, q, k, v, out, lse, dlse, kv_lengths, FROZEN[tuple(wanted)])
    found = recipe.executor.backward(recipe, call)
    if kv_lengths is None and all(wanted):  # nearly always
        gone_back.learn(options, arrays, recipe.executor.backward_again(recipe, call))
    dq, dk, dv = filled(found, q)
    return dq, dk, dv


def _split(q: Any, k: Any, v: Any, *options: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return options, (q, k, v)


def _split_backward(
    dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, dlse: Any, *options: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    arrays = (q, k, v, out, dout, lse) if dlse is None else (q, k, v, out, dout, lse, dlse)
    return (*options[:-1], *options[-1]), arrays


attended, gone_back = Known(), Known()  # what was learned of both operators
FROZEN = {
    wanted: frozenset(name for name, one in zip(("q", "k", "v"), wanted, strict=True) if not one)
    for wanted in itertools.product((False, True), repeat=3)
}
"""The names of q, k and v whose gradients are not wanted, by which are."""


define(
    library, "attention", f"(Tensor q, Tensor k, Tensor v, {_OPTIONS}, bool autotune) -> (Tensor, Tensor)",
    attend, fakes.attend, vmaps.attend,
)  # fmt: skip
define(
    library, "attention_backward",
    "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? dlse, "
    f"{_OPTIONS}, bool[] wanted) -> (Tensor, Tensor, Tensor)",
    backward, fakes.backward, vmaps.backward,
)  # fmt: skip

shorten(torch.ops.splat_numba.attention.default, _split, attended)
shorten(torch.ops.splat_numba.attention_backward.default, _split_backward, gone_back)
