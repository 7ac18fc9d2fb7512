"""attention inside JAX: an operation that its transforms know, run by XLA through machine code.

JAX is imported here, so that only those who have its arrays import this. What a transform sees: `custom_vjp` with the
residuals q, k, v, out and lse; within it `custom_vmap`, which makes a mapped axis part of the batch; within that
`custom_partitioning`, which leaves parts of the batch and of the heads where they are; and then an operation that is a
foreign function call on each platform, as `executors.jax.programs` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax.numpy as jnp

from splat_numba.arguments.layouts import bhsd_axes
from splat_numba.arguments.masks import Mask, split_heads, store_mask
from splat_numba.arguments.options import check_scale
from splat_numba.arguments.results import result_shape
from splat_numba.executors.cpu.operands import check_operands
from splat_numba.executors.given import Given
from splat_numba.executors.jax.explicit import run_partitioned
from splat_numba.executors.jax.manual import differ, made_alike
from splat_numba.executors.jax.operations import (
    described,
    folded,
    forward_mode_refused,
    lengths_of,
    operation,
)
from splat_numba.executors.jax.platforms import by_platform
from splat_numba.executors.jax.programs import Attention
from splat_numba.executors.jax.sharding import BACKWARD, FORWARD, Names, Split, partitioned
from splat_numba.gen.plans.problem import Problem


def attend(recipe: Given, q: Any, k: Any, v: Any, kv_lengths: Any, return_lse: bool, backend: str = "auto") -> Any:
    """splat_numba.attention on JAX's arrays, tracers among them: out, or (out, lse). recipe: its mask may be dense;
    backend: that was asked for. With "auto" the platform that JAX compiles for decides.

    Raises ArgumentError, ArgumentTypeError, BackendError, PatternError, FormatError.
    """
    given = {"q": q, "k": k, "v": v}
    shown = {name: described(name, one) for name, one in given.items()}
    problem = check_operands(shown, recipe.layout)
    check_scale(recipe.scale, problem.head_dim, problem.dtype)
    axes = len(shown["q"].shape)
    lengths = () if kv_lengths is None else (lengths_of(kv_lengths, problem, axes),)
    layout = recipe.layout if axes > 2 else "bhsd"
    fixed = replace(recipe, mask=_fixed(recipe.mask, problem), layout=layout)
    arrays = [*(jnp.asarray(one)[(None,) * (4 - axes)] for one in given.values()), *lengths]
    split = _split_of(fixed, FORWARD, arrays)
    with forward_mode_refused():
        out, lse = run_partitioned(_operator(fixed, backend), made_alike(arrays), split.results)
    out = out.reshape(result_shape(shown["q"], problem))
    return (out, lse[(0,) * (4 - axes)]) if return_lse else out


@lru_cache(maxsize=512)
def _operator(recipe: Given, backend: str) -> Any:
    """(q, k, v) or (q, k, v, kv_lengths int32) -> (out, lse), of four axes in the recipe's layout, lse of three."""
    forward, backward = (
        folded(partial(_split, partial(_run, recipe, backend, names), recipe, names)) for names in (FORWARD, BACKWARD)
    )
    return operation("splat_attention", forward, backward, 3, keeps_results=True)


def _split(run: Callable[..., Any], recipe: Given, names: Names, *arrays: Any) -> Any:
    """Let JAX's partitioner run the function on parts of the arrays, where devices have parts and it looks for them."""
    if differ(arrays):  # within shard_map they are parts already
        return run(*arrays)
    return partitioned(run, _split_of(recipe, names, arrays))(*arrays)


def _split_of(recipe: Given, names: Names, arrays: Sequence[Any]) -> Split:
    given, made = names
    if len(arrays) > len(given):
        given = (*given[:3], "kv_lengths", *given[3:])
    alike = not isinstance(recipe.mask, tuple)
    return Split(given, made, recipe.layout, _problem(recipe, *arrays[:3]), alike)


def _run(recipe: Given, backend: str, names: Names, *arrays: Any) -> Any:
    call = Attention(recipe, backend, _problem(recipe, *arrays[:3]), names, len(arrays) > len(names[0]))
    return by_platform(call, call.kinds(arrays), arrays)


def _problem(recipe: Given, q: Any, k: Any, v: Any) -> Problem:
    sizes = [bhsd_axes(one.shape, recipe.layout, 1) for one in (q, k, v)]
    (batch, heads_q, seq_q, head_dim), (_, heads_kv, seq_kv, _), (*_, value_dim) = sizes
    return Problem(seq_q, seq_kv, head_dim, value_dim, str(q.dtype), batch, heads_q, heads_kv)


def _fixed(mask: Mask, problem: Problem) -> Any:
    """The mask as values that can be compared: a Pattern or an ACSR, or a tuple of them, one a query head."""
    if not isinstance(mask, (list, tuple)):
        return store_mask(mask, problem.seq_q, problem.seq_kv)
    by_head = {
        head: stored
        for stored, heads in split_heads(mask, problem.heads_q, problem.seq_q, problem.seq_kv)
        for head in heads
    }
    return tuple(by_head[head] for head in sorted(by_head))
