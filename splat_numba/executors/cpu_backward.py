"""A backward call on a CPU: its arrays checked, its passes planned and compiled once, its gradients as the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.masks import Stored
from splat_numba.executors.cpu import plan_for, threads_worth
from splat_numba.executors.executor import BackwardCall, Recipe
from splat_numba.executors.host_gradients import import_backward
from splat_numba.gen.backward import Wanted
from splat_numba.gen.machine import Machine
from splat_numba.gen.plan import Plan
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.cpu.backward import backward_text
from splat_numba.gen.targets.cpu.backward_schedule import (
    backward_schedule,
    finish_sums,
    shares_of,
    sums_shape,
)
from splat_numba.runtime.compile import CompiledText
from splat_numba.runtime.cpu import code
from splat_numba.runtime.cpu.machine import LoadedSchedule
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.recent import Recent
from splat_numba.settings import Settings, current


@dataclass(frozen=True, slots=True)
class CompiledBackward:
    """A plan's backward pass with its machine code; and the schedules that calls used last, by what they depend on."""

    plan: Plan
    wanted: Wanted
    code: CompiledText
    loaded: Recent[LoadedSchedule] = field(default_factory=lambda: Recent(16), compare=False, repr=False)

    def schedule_for(
        self, problem: Problem, heads: tuple[int, ...] | None, scale: float, shares: int
    ) -> LoadedSchedule:
        """The steps for arrays of these sizes, remembered."""
        key = problem, heads, scale, shares
        return self.loaded.get(key, lambda: self._load(*key))

    def _load(self, problem: Problem, heads: tuple[int, ...] | None, scale: float, shares: int) -> LoadedSchedule:
        schedule = backward_schedule(self.plan, problem, heads, scale, self.wanted, shares)
        return LoadedSchedule(schedule, self.code.functions)


@lru_cache(maxsize=256)
def compiled_backward(mask: Stored, problem: Problem, wanted: Wanted, settings: Settings) -> CompiledBackward:
    """The forward plan's backward pass, remembered."""
    plan = plan_for(mask, problem, settings.threads)
    return CompiledBackward(plan, wanted, code.compile_text(backward_text(plan, wanted), plan.as_dict, settings))


def backward(recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
    """The gradients of q, k and v. Raises ArgumentError, ArgumentTypeError, BackendError."""
    given = import_backward(recipe, call)
    problem, scale, wanted = given.problem, given.scale, given.wanted
    if wanted is None:
        return None, None, None
    settings = current()
    parts = recipe.parts_for(problem, scale, settings, ragged=call.kv_lengths is not None)
    shares, widths = _sums_for(problem, machine(None), wanted)  # whatever the threads of this call
    targets = given.targets
    sums = {name: _sums(targets[name], width, problem, shares) for name, width in widths.items()}
    arrays = {**given.operands.views, **given.views, **targets, **sums, "kv_lengths": given.lengths}
    threads = threads_worth(parts, problem, settings.threads or cores())
    for part in parts:
        compiled = compiled_backward(part.mask, part.plan.problem, wanted, settings)
        compiled.schedule_for(problem, part.heads, scale, shares).run(arrays, threads)
    for name, one in sums.items():
        if one.base is None:
            finish_sums(one, targets[name].shape[3], problem.dtype, targets[name])
    return given.exported(call)


@lru_cache(maxsize=256)
def _sums_for(problem: Problem, host: Machine, wanted: Wanted) -> tuple[int, Mapping[str, int]]:
    """Shares of the sums over queries, and the widths of their rows by name. The order of sums follows from both."""
    return shares_of(problem, host, wanted), sums_shape(problem, host, wanted)


def _sums(target: NDArray[Any], width: int, problem: Problem, shares: int) -> NDArray[Any]:
    """Zeros for a gradient's sums: a view of the gradient itself where that has their form, else fresh."""
    shape = (shares, *target.shape[:3], width)
    if shape == (1, *target.shape) and target.dtype == problem.compute_dtype and target.flags.c_contiguous:
        target[...] = 0
        return target[None]
    return np.zeros(shape, problem.compute_dtype)
