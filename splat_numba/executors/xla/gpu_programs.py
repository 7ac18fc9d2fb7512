"""A GPU's attention, forward and back, as programs that XLA calls: the schedules that any call on a GPU runs.

Arrays are contiguous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from splat_numba.arguments.layouts import bhsd_axes
from splat_numba.executors.executor import Recipe
from splat_numba.executors.gpu.executor import gpu
from splat_numba.executors.gpu.parts import heads_passes, heads_plans, target_of
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.backward import GRADIENTS, Wanted
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.schedule import InPlace, Schedule, copied_of
from splat_numba.gen.schedules.tensor import Tensor, contiguous
from splat_numba.gen.targets.gradients import LEVELS, OPERANDS, backward_schedule
from splat_numba.gen.targets.registry import check_taken
from splat_numba.gen.targets.target import attention_schedule
from splat_numba.runtime.xla.gpu_program import GpuProgram, program_over
from splat_numba.settings import Settings


@dataclass(frozen=True, slots=True)
class XlaGpuCall:
    """A program, and the bytes of scratch memory that its last result is, 0 for none."""

    program: GpuProgram
    scratch: int


def forward_call(recipe: Recipe, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> XlaGpuCall:
    """attention over (q, k, v) or (q, k, v, kv_lengths int32) to (out, lse), contiguous in the recipe's layout.

    Raises ArgumentTypeError for dtypes that no target takes, PlanError, CompileError, BackendError without a GPU.
    """
    check_taken("q", problem, recipe.executor.target)
    parts = recipe.parts_for(problem, scale, settings, ragged=ragged)
    target = target_of(parts)
    tensors = {name: _tokens(name, problem, recipe.layout) for name in ("q", "k", "v", "out")}
    rules = target.in_place(tensors)
    passes = [one for part in parts for one in heads_passes(part, problem)]
    schedule = attention_schedule(target, passes, tensors, scale, gpu().multiprocessors, copied_of(rules))
    given = ("q", "k", "v", "kv_lengths") if ragged else ("q", "k", "v")
    return _call(schedule, given, ("out", "lse"), rules)


def backward_call(recipe: Recipe, problem: Problem, scale: float, _settings: Settings, *, ragged: bool) -> XlaGpuCall:
    """attention_backward over (q, k, v[, kv_lengths], out, lse, dout, dlse) to (dq, dk, dv), likewise."""
    check_taken("q", problem, recipe.executor.target)
    plans, target = heads_plans(recipe, problem, scale, gpu(), ragged=ragged)
    tensors = {name: _tokens(name, problem, recipe.layout) for name in (*OPERANDS, *GRADIENTS)}
    rules = target.backward_in_place(tensors)
    tensors |= {name: _level(name, problem) for name in LEVELS}
    schedule = backward_schedule(target, plans, tensors, Wanted(), scale, gpu().multiprocessors, copied_of(rules))
    given = (*("q", "k", "v"), *(("kv_lengths",) if ragged else ()), "out", "lse", "dout", "dlse")
    return _call(schedule, given, GRADIENTS, rules)


def _call(schedule: Schedule, given: Sequence[str], made: Sequence[str], rules: Mapping[str, InPlace]) -> XlaGpuCall:
    """The program of a call. given, made: names of XLA's arguments and results."""
    alignment = max(rule.alignment for rule in rules.values())
    return XlaGpuCall(program_over(schedule, given, made, alignment), schedule.scratch)


def _tokens(name: str, problem: Problem, layout: str) -> Tensor:
    """A contiguous array of this layout as (batch, heads, seq, dim)."""
    sizes = problem.sizes(name)
    steps = contiguous(bhsd_axes(sizes, layout, 1), sizes[3], problem.itemsize)
    return Tensor(sizes, bhsd_axes(steps, layout, 0), problem.dtype, name)


def _level(name: str, problem: Problem) -> Tensor:
    """lse or its gradient as (batch, heads, seq, 1)."""
    sizes = (*problem.lse_sizes, 1)
    return Tensor(sizes, contiguous(sizes, 1, ITEMSIZE[problem.compute_dtype]), problem.compute_dtype, name)
