"""What attention is to XLA on each platform: a foreign call to a program, with its memory and its padding.

JAX is imported here, so that only those who have its arrays import this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from splat_numba.arguments.options import check_scale
from splat_numba.executors.choice import choose_executor, tuned
from splat_numba.executors.given import Given
from splat_numba.executors.jax.operations import called, registered, within
from splat_numba.executors.jax.platforms import refuse_elsewhere
from splat_numba.executors.jax.sharding import BACKWARD, Names
from splat_numba.executors.xla.cpu_programs import backward_call, forward_call
from splat_numba.gen.plans.backward import GRADIENTS
from splat_numba.gen.plans.problem import Problem
from splat_numba.runtime.device import cores
from splat_numba.settings import Settings, current

TARGET, GPU_TARGET = "splat_numba_cpu_attention", "splat_numba_cuda_attention"


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of a recipe over arrays of these sizes, as XLA runs it. backend: that was asked for; names: of the
    arrays that are given and made, those of the forward pass or of the gradients; ragged: whether key lengths are
    given, behind the first three.
    """

    recipe: Given
    backend: str
    problem: Problem
    names: Names
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
        wide = [
            within(one, self.problem.seq_kv) if of == "kv_lengths" else _widened(one, padding.get(of, 0))
            for of, one in zip(places, arrays, strict=True)
        ]
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

    def recipe_on(self, name: str) -> Given:
        """The recipe with the executor of this name. Raises BackendError where another one was asked for."""
        given = self.recipe.executor
        if given.target is not None:
            refuse_elsewhere(name, given.name, f"target {given.target!r}")
        refuse_elsewhere(name, self.backend, f"backend {self.backend!r}")
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
        return [((*q.shape[:3], v.shape[3]), q.dtype), (self.problem.lse_sizes, self.problem.compute_dtype)]


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
    from splat_numba.executors.xla import gpu_programs as programs  # imports what CPUs have no use for
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
