"""What attention is to XLA on each platform: a foreign call to a program, with its memory.

JAX is imported here, so that only those who have its arrays import this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from splat_numba.arguments.options import check_scale
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.given import Given
from splat_numba.executors.jax.operations import called, registered
from splat_numba.executors.jax.platforms import refuse_elsewhere
from splat_numba.executors.jax.sharding import BACKWARD, Names
from splat_numba.executors.xla.cpu_programs import backward_call, forward_call
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
        name, scratch = _gpu_target(self, current())
        kinds = self.kinds(arrays)
        return called(name, [*kinds, *scratch], arrays)[: len(kinds)]

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
        return replace(self.recipe, executor=executor.measured() if measured else executor)

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
def _gpu_target(call: Attention, settings: Settings) -> tuple[str, list[Any]]:
    """The same on GPUs."""
    from splat_numba.executors.xla import gpu_programs as programs  # imports what CPUs have no use for
    from splat_numba.runtime.xla.gpu_register import gpu_target_of

    backward = call.names == BACKWARD
    make = programs.backward_call if backward else programs.forward_call
    made = make(call.recipe_on("cuda"), call.problem, _scale(call), settings, ragged=call.ragged)
    name = gpu_target_of(f"{GPU_TARGET}_backward" if backward else GPU_TARGET, made.program, settings)
    return name, [((made.scratch,), np.uint8)] if made.scratch else []


def _scale(call: Attention) -> float:
    return check_scale(call.recipe.scale, call.problem.head_dim, call.problem.dtype)
