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
from splat_numba.bridges.torch.functions import all_bare, bare, define, filled
from splat_numba.bridges.torch.names import named
from splat_numba.executors.choice import choose_executor, tuned
from splat_numba.executors.executor import BackwardCall, Recipe
from splat_numba.executors.given import Given
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
    return Given(mask, tuned(executor) if autotune else executor, layout, scale)


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


def _named_recipe(q: Any, name: str, options: tuple[Any, ...]) -> Recipe:
    """known_recipe() of the mask with this name, found by that in one look-up. Raises ArgumentError for a layout."""
    key = name, options, q.is_cuda
    found = _by_name.glance(key)
    if found is not None:
        stay_outside_graphs("splat_numba")
        return found
    check_layout(options[1])
    found = known_recipe(q, named(name), options)
    return found if options[2] == "cuda" and not q.is_cuda else _by_name.keep(key, found)  # settings decide, as above


_by_name: Recent[Recipe] = Recent(REMEMBERED)


def attend(
    q: Any, k: Any, v: Any, mask: str, scale: float | None, layout: str, kv_lengths: Any, backend: str,
    target: str | None, autotune: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """(out, lse) of tensors in memory, contiguous."""
    q, k, v = all_bare((q, k, v))
    recipe = _named_recipe(q, mask, (scale, layout, backend, target, autotune))
    out, lse = recipe.executor.attend(recipe, q, k, v, kv_lengths, None, True)
    return out.contiguous(), lse.contiguous()


def backward(
    dout: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, dlse: Any, mask: str, scale: float | None, layout: str,
    kv_lengths: Any, backend: str, target: str | None, wanted: list[bool],
) -> tuple[Any, Any, Any]:  # fmt: skip
    """(dq, dk, dv), contiguous; those that are not wanted have no elements."""
    dout, q, k, v, out, lse = all_bare((dout, q, k, v, out, lse))
    recipe = _named_recipe(q, mask, (scale, layout, backend, target, False))
    call = BackwardCall(dout, q, k, v, out, lse, bare(dlse), kv_lengths, FROZEN[tuple(wanted)])
    found = recipe.executor.backward(recipe, call)
    dq, dk, dv = filled(found, q)
    return dq, dk, dv


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
