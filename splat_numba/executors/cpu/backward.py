"""A backward call on a CPU: its arrays checked, its passes planned and compiled once, its gradients as the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.masks import Stored
from splat_numba.executors.cpu.executor import CpuExecutor, Timer, host_plan_for, threads_worth
from splat_numba.executors.executor import BackwardCall, Executor, HeadsMask, Recipe
from splat_numba.executors.host_gradients import import_backward
from splat_numba.gen.plans.backward import Sums, Wanted
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.array_schedule import ArraySchedule
from splat_numba.gen.schedules.array_steps import finish_sums
from splat_numba.gen.targets.registry import choose_target, cpu_target
from splat_numba.runtime.compile import CompiledText
from splat_numba.runtime.cpu import code
from splat_numba.runtime.cpu.machine import SCHEDULES_KEPT, LoadedSchedule
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.recent import REMEMBERED, Recent
from splat_numba.settings import Settings, current


@dataclass(frozen=True, slots=True)
class CompiledBackward:
    """A plan's backward pass with its machine code; and the schedules that calls used last, by what they depend on."""

    plan: Plan
    wanted: Wanted
    code: CompiledText
    loaded: Recent[LoadedSchedule] = field(default_factory=lambda: Recent(SCHEDULES_KEPT), compare=False, repr=False)

    def schedule_for(
        self, problem: Problem, heads: tuple[int, ...] | None, scale: float, shares: int
    ) -> LoadedSchedule:
        """The steps for arrays of these sizes, remembered."""
        key = problem, heads, scale, shares
        return self.loaded.get(key, lambda: self._load(*key))

    def _load(self, problem: Problem, heads: tuple[int, ...] | None, scale: float, shares: int) -> LoadedSchedule:
        return LoadedSchedule(self.schedule(problem, heads, scale, shares), self.code.functions)

    def schedule(self, problem: Problem, heads: tuple[int, ...] | None, scale: float, shares: int) -> ArraySchedule:
        """Those steps as they are."""
        return cpu_target(self.plan.target).backward_schedule(self.plan, problem, heads, scale, self.wanted, shares)


def compile_gradients(plan: Plan, wanted: Wanted, settings: Settings) -> CompiledBackward:
    """The backward pass of a plan's passes, compiled or from disk."""
    text = cpu_target(plan.target).backward_text(plan, wanted)
    return CompiledBackward(plan, wanted, code.compile_text(text, plan.as_dict, settings))


@lru_cache(maxsize=REMEMBERED)
def compiled_backward(
    mask: Stored, problem: Problem, wanted: Wanted, settings: Settings, request: str | None,
    heads: tuple[int, ...] | None = None, timer: Timer | None = None,
) -> CompiledBackward:  # fmt: skip
    """The backward pass of the plan that is predicted to be fastest forward, remembered; with a timer of the one that
    is fastest for the gradients of these heads.
    """
    return compile_gradients(gradient_plan(mask, problem, wanted, settings, request, heads, timer), wanted, settings)


def gradient_plan(
    mask: Stored, problem: Problem, wanted: Wanted, settings: Settings, request: str | None,
    heads: tuple[int, ...] | None, timer: Timer | None,
) -> Plan:  # fmt: skip
    """The plan whose passes make the gradients."""
    if timer is None:
        return host_plan_for(mask, problem, settings.threads, request)
    from splat_numba.executors.cpu.tuning import tuned_plan  # which compiles what it times by this module

    return tuned_plan(mask, heads, problem, settings, timer, wanted, request)


def compiled_of(executor: Executor, one: HeadsMask, wanted: Wanted, settings: Settings) -> CompiledBackward:
    """The gradients of one mask of a call. Raises TypeError for another backend's executor."""
    if not isinstance(executor, CpuExecutor):
        raise TypeError(executor)
    tuning = (one.heads, executor.timer) if executor.timer else ()
    return compiled_backward(one.mask, one.problem, wanted, settings, executor.target, *tuning)


def backward(recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
    """The gradients of q, k and v. Raises ArgumentError, ArgumentTypeError, BackendError."""
    given = import_backward(recipe, call)
    problem, scale, wanted = given.problem, given.scale, given.wanted
    if wanted is None:
        return None, None, None
    settings = current()
    masks = recipe.masks_for(problem)  # not its parts, which are forward texts with their machine code
    made = [compiled_of(recipe.executor, one, wanted, settings) for one in masks]
    planned = sums_for(recipe.executor.target, problem, machine(None), wanted)  # whatever the threads of this call
    targets = given.targets
    sums = fresh_sums(targets, planned, problem)
    arrays = {**given.operands.views, **given.views, **targets, **sums, "kv_lengths": given.lengths}
    threads = threads_worth([one.plan for one in made], problem, settings.threads or cores())
    for one, compiled in zip(masks, made, strict=True):
        compiled.schedule_for(problem, one.heads, scale, planned.shares).run(arrays, threads)
    for name, total in sums.items():
        if total.base is None:
            finish_sums(total, targets[name].shape[3], problem.dtype, targets[name])
    return given.exported(call)


@lru_cache(maxsize=256)
def sums_for(request: str | None, problem: Problem, host: Machine, wanted: Wanted) -> Sums:
    """Those of a call on this machine, remembered. request: the argument ``target``."""
    target, _ = choose_target(request, problem, host)
    return target.sums_of(problem, host, wanted)


def fresh_sums(targets: Mapping[str, NDArray[Any]], sums: Sums, problem: Problem) -> dict[str, NDArray[Any]]:
    """Zeros for the sums of all shares, by gradient. targets: the gradients."""
    return {name: _sums(targets[name], width, problem, sums.shares) for name, width in sums.widths.items()}


def _sums(target: NDArray[Any], width: int, problem: Problem, shares: int) -> NDArray[Any]:
    """Zeros for a gradient's sums: a view of the gradient itself where that has their form, else fresh."""
    shape = (shares, *target.shape[:3], width)
    if shape == (1, *target.shape) and target.dtype == problem.compute_dtype and target.flags.c_contiguous:
        target[...] = 0
        return target[None]
    return np.zeros(shape, problem.compute_dtype)
