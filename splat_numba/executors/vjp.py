"""A call and its gradients: what the forward pass leaves is held for the way back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from splat_numba.arguments.frozen import check_frozen
from splat_numba.executors.executor import BackwardCall, Recipe
from splat_numba.gen.plans.backward import INPUTS


def with_vjp(recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, frozen: Collection[str], return_lse: bool) -> Any:
    """(out, vjp) or (out, lse, vjp) of a recipe's attention."""
    names, executor = check_frozen(frozen, INPUTS), recipe.executor
    out, lse = executor.attend(recipe, q, k, v, kv_lengths, None, True)

    def vjp(dout: Any, dlse: Any = None) -> tuple[Any, Any, Any]:
        return executor.backward(recipe, BackwardCall(dout, q, k, v, out, lse, dlse, kv_lengths, names))

    return (out, lse, vjp) if return_lse else (out, vjp)
