"""attention inside JAX: an operation that its transforms know, run by XLA through machine code on the CPU.

JAX is imported here, so that only those who have its arrays import this. What a transform sees: `custom_vjp` with the
residuals q, k, v, out and lse; within it `custom_vmap`, which makes a mapped axis part of the batch; within that
`custom_partitioning`, which leaves parts of the batch and of the heads where they are; and then a foreign function
call, whose target is a program of `executors.xla_programs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from splat_numba.arguments.layouts import bhsd_axes
from splat_numba.arguments.masks import Mask, split_heads, store_mask
from splat_numba.arguments.options import check_scale
from splat_numba.arguments.results import result_shape
from splat_numba.errors import ArgumentError, BackendError
from splat_numba.executors.choice import choose_executor, tuned
from splat_numba.executors.jax_manual import differ, made_alike
from splat_numba.executors.jax_operations import (
    GPUS,
    called,
    described,
    folded,
    forward_mode_refused,
    lengths_of,
    operation,
    registered,
)
from splat_numba.executors.jax_platforms import by_platform
from splat_numba.executors.jax_sharding import BACKWARD, FORWARD, Split, partitioned
from splat_numba.executors.operands import check_operands
from splat_numba.executors.xla_programs import backward_call, forward_call
from splat_numba.gen.backward import GRADIENTS
from splat_numba.gen.problem import Problem
from splat_numba.runtime.device import cores
from splat_numba.runtime.jax_arrays import is_traced
from splat_numba.settings import Settings, current

TARGET, GPU_TARGET = "splat_numba_cpu_attention", "splat_numba_cuda_attention"


def attend(recipe: Any, q: Any, k: Any, v: Any, kv_lengths: Any, return_lse: bool, backend: str = "auto") -> Any:
    """splat_numba.attention on JAX's arrays, tracers among them: out, or (out, lse). recipe: a kernel.Given, whose mask
    may be dense; backend: that was asked for. With "auto" the platform that JAX compiles for decides.

    Raises ArgumentError, ArgumentTypeError, BackendError, PatternError, FormatError.
    """
    given = {"q": q, "k": k, "v": v}
    shown = {name: described(name, one, GPUS) for name, one in given.items()}
    problem = check_operands(shown, recipe.layout)
    check_scale(recipe.scale, problem.head_dim, problem.dtype)
    axes = len(shown["q"].shape)
    lengths = () if kv_lengths is None else (lengths_of(kv_lengths, problem, axes),)
    layout = recipe.layout if axes > 2 else "bhsd"
    fixed = replace(recipe, mask=_fixed(recipe.mask, problem), layout=layout)
    arrays = [jnp.asarray(one)[(None,) * (4 - axes)] for one in given.values()]
    with forward_mode_refused():
        out, lse = _operator(fixed, backend)(*made_alike([*arrays, *lengths]))
    out = out.reshape(result_shape(shown["q"], problem))
    return (out, lse[(0,) * (4 - axes)]) if return_lse else out


@lru_cache(maxsize=512)
def _operator(recipe: Any, backend: str) -> Any:
    """(q, k, v) or (q, k, v, kv_lengths int32) -> (out, lse), of four axes in the recipe's layout, lse of three."""
    forward, backward = (
        folded(partial(_split, partial(_run, recipe, backend, names), recipe, names)) for names in (FORWARD, BACKWARD)
    )
    return operation("splat_attention", forward, backward, 3, keeps_results=True)


def _split(run: Callable[..., Any], recipe: Any, names: Any, *arrays: Any) -> Any:
    """Let JAX's partitioner run the function on parts of the arrays, where devices have parts and it looks for them."""
    if differ(arrays):  # within shard_map they are parts already
        return run(*arrays)
    given, made = names
    if len(arrays) > len(given):
        given = (*given[:3], "kv_lengths", *given[3:])
    alike = not isinstance(recipe.mask, tuple)
    return partitioned(run, Split(given, made, recipe.layout, _problem(recipe, *arrays[:3]), alike))(*arrays)


def _run(recipe: Any, backend: str, names: Any, *arrays: Any) -> Any:
    call = Attention(recipe, backend, _problem(recipe, *arrays[:3]), names, len(arrays) > len(names[0]))
    return by_platform(call, call.kinds(arrays), arrays)


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of a recipe over arrays of these sizes, as XLA runs it. backend: that was asked for; names: of the
    arrays that are given and made, those of the forward pass or of the gradients; ragged: whether key lengths are
    given, behind the first three.
    """

    recipe: Any
    backend: str
    problem: Problem
    names: tuple[tuple[str, ...], tuple[str, ...]]
    ragged: bool

    def cpu(self, *arrays: Any) -> Any:
        """The results, by a program for CPUs. Raises PlanError, CompileError."""
        kinds = self.kinds(arrays)
        name, scratch = _cpu_target(self, current())
        return called(name, [*kinds, *scratch], arrays)[: len(kinds)]

    def cuda(self, *arrays: Any) -> Any:
        """The same on NVIDIA GPUs. Raises ArgumentTypeError, PlanError, BackendError, CompileError."""
        name, scratch, padding = _gpu_target(self, current())
        given, _ = self.names
        places = (*given[:3], "kv_lengths", *given[3:]) if self.ragged else given
        wide = [_widened(one, padding.get(of, 0)) for of, one in zip(places, arrays, strict=True)]
        kinds = self.kinds(arrays)
        rows = [
            (_longer(shape, padding.get(of, 0)), dtype) for of, (shape, dtype) in zip(self.results, kinds, strict=True)
        ]
        found = called(name, [*rows, *scratch], wide)[: len(kinds)]
        return [
            one[..., : shape[-1]] if one.shape != shape else one for one, (shape, _) in zip(found, kinds, strict=True)
        ]

    @property
    def results(self) -> tuple[str, ...]:
        """The names of what is made: gradients, of the arrays that they are of."""
        return GRADIENTS if self.names == BACKWARD else self.names[1]

    def recipe_on(self, name: str) -> Any:
        """The recipe with the executor of this name. Raises BackendError where another one was asked for."""
        given = self.recipe.executor
        if self.backend not in ("auto", name) or (given.target is not None and given.name != name):
            asked = f"backend {self.backend!r}" if given.target is None else f"target {given.target!r}"
            raise BackendError(
                f"backend wanted as 'auto' or {name!r} where JAX compiles for that, got {asked}. Leave it out, or put "
                "the arrays elsewhere with jax.device_put."
            )
        if given.name == name:
            return self.recipe
        measured = given is not choose_executor(given.name, None)
        executor = choose_executor(name, None)
        return replace(self.recipe, executor=tuned(executor) if measured else executor)

    def kinds(self, arrays: Any) -> list[tuple[tuple[int, ...], Any]]:
        """Shapes and dtypes of the results."""
        q, _, v, *_ = arrays
        if self.names == BACKWARD:
            return [(one.shape, one.dtype) for one in arrays[:3]]
        return [((*q.shape[:3], v.shape[3]), q.dtype), (_level(self.problem), self.problem.compute_dtype)]


@lru_cache(maxsize=512)
def _cpu_target(call: Attention, settings: Settings) -> tuple[str, list[Any]]:
    """XLA's name of the program for these sizes, and the result that is its scratch memory, if it wants any."""
    threads = settings.threads or cores()
    make, label = (backward_call, f"{TARGET}_backward") if call.names == BACKWARD else (forward_call, TARGET)
    made = make(call.recipe_on("cpu"), call.problem, _scale(call), settings, threads, ragged=call.ragged)
    return registered(label, made, settings, threads)


@lru_cache(maxsize=512)
def _gpu_target(call: Attention, settings: Settings) -> tuple[str, list[Any], Mapping[str, int]]:
    """The same on GPUs, and by how much which arrays are padded."""
    from splat_numba.executors import xla_gpu_programs as programs  # imports what CPUs have no use for
    from splat_numba.runtime.xla.gpu_register import gpu_target_of

    backward = call.names == BACKWARD
    make = programs.backward_call if backward else programs.forward_call
    made = make(call.recipe_on("cuda"), call.problem, _scale(call), settings, ragged=call.ragged)
    name = gpu_target_of(f"{GPU_TARGET}_backward" if backward else GPU_TARGET, made.program, settings)
    return name, [((made.scratch,), np.uint8)] if made.scratch else [], made.padding


def _scale(call: Attention) -> float:
    return check_scale(call.recipe.scale, call.problem.head_dim, call.problem.dtype)


def _longer(shape: tuple[int, ...], more: int) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] + more)


def _widened(array: Any, more: int) -> Any:
    """An array with so many zeros behind each row."""
    if not more:
        return array
    return jax.lax.pad(array, np.zeros((), array.dtype), [(0, 0, 0)] * (array.ndim - 1) + [(0, more, 0)])


def _problem(recipe: Any, q: Any, k: Any, v: Any) -> Problem:
    sizes = [bhsd_axes(one.shape, recipe.layout, 1) for one in (q, k, v)]
    (batch, heads_q, seq_q, head_dim), (_, heads_kv, seq_kv, _), (*_, value_dim) = sizes
    return Problem(seq_q, seq_kv, head_dim, value_dim, str(q.dtype), batch, heads_q, heads_kv)


def _level(problem: Problem) -> tuple[int, int, int]:
    return problem.batch, problem.heads_q, problem.seq_q


def _fixed(mask: Mask, problem: Problem) -> Any:
    """The mask as values that can be compared: a Pattern or an ACSR, or a tuple of them, one a query head."""
    several = isinstance(mask, (list, tuple))
    for number, one in enumerate(mask if isinstance(mask, (list, tuple)) else [mask]):
        if is_traced(one):
            name = f"mask[{number}]" if several else "mask"
            raise ArgumentError(
                f"{name} wanted known while JAX traces, got its {type(one).__name__}: a kernel is made for the mask. "
                "Give a Pattern, an ACSR or a NumPy array, by a closure or static_argnums."
            )
    if not several:
        return store_mask(mask, problem.seq_q, problem.seq_kv)
    by_head = {
        head: stored
        for stored, heads in split_heads(mask, problem.heads_q, problem.seq_q, problem.seq_kv)
        for head in heads
    }
    return tuple(by_head[head] for head in sorted(by_head))
