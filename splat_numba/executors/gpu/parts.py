"""Parts of a GPU's call, the emulated one's too: which target, which plan, and passes with their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Self

from splat_numba.arguments.masks import Stored
from splat_numba.arguments.precision import with_precision
from splat_numba.executors.executor import HeadsMask, Part, Recipe
from splat_numba.executors.plans import plan_for
from splat_numba.formats.geometry import geometry
from splat_numba.formats.patterns import Pattern, full
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.backward import GRADIENTS, BackwardPlan, Wanted
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.schedules.schedule import ScheduleBuilder, Text
from splat_numba.gen.schedules.tensor import Tensor, contiguous, padded_strides
from splat_numba.gen.targets.gradients import OPERANDS, GradientCall, HeadsPlan, backward_schedule
from splat_numba.gen.targets.registry import choose_target, gpu_target
from splat_numba.gen.targets.target import AttentionCall, GpuTarget, HeadsPass
from splat_numba.runtime.cuda.code import source_of
from splat_numba.runtime.recent import REMEMBERED
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings


class OfGpuTexts:
    """What the executors of GPU texts share, a GPU's and the emulator's: dataclasses with these fields."""

    __slots__ = ()
    target: str | None
    precision: str

    def planned_gpu(self) -> Gpu:
        """The GPU that plans are made for."""
        raise NotImplementedError

    def with_precision(self, precision: str) -> Self:
        """The one whose products of float32 are of this precision."""
        return replace(self, precision=precision)  # type: ignore[type-var]

    def precise(self, problem: Problem) -> Problem:
        """A call's problem with that precision. Raises ArgumentError for arrays, or a target, that have no choice."""
        return with_precision(problem, self.precision, self.target)

    def serves_every_length(self, part: Part) -> bool:
        """Whether the mask does: plans are made anew."""
        return isinstance(part.mask, Pattern)

    def planned_for(self, part: Part, problem: Problem) -> Problem:
        """The call's: every length has a plan of its own."""
        return problem

    def sources(self, plan: Plan) -> tuple[KernelSource, ...]:
        """A text a pass; none where nothing is launched."""
        return tuple(dict.fromkeys(map(source_of, texts_of(plan))))

    def plan_backward(self, one: HeadsMask, scale: float, settings: Settings) -> BackwardPlan:
        """How the gradients for one mask are made, remembered."""
        problem, conditions = self.precise(one.problem), Conditions(negate=scale < 0)
        return backward_plan_for(one.mask, problem, self.planned_gpu(), self.target, conditions)

    def backward_sources(
        self, recipe: Recipe, problem: Problem, scale: float, settings: Settings
    ) -> tuple[KernelSource, ...]:
        """The texts of the launches."""
        return tuple(map(source_of, backward_texts(recipe, problem, scale, self.planned_gpu())))


@lru_cache(maxsize=REMEMBERED)
def backward_plan_for(
    mask: Stored, problem: Problem, gpu: Gpu, request: str | None, conditions: Conditions
) -> BackwardPlan:
    """The plan of the gradients for one mask, remembered. Arguments and errors as plan_for()."""
    target, _ = choose_target(request, problem, gpu)
    return target.plan_backward(geometry(mask, problem.seq_q, problem.seq_kv), problem, gpu, conditions)


def heads_plans(
    recipe: Recipe, problem: Problem, scale: float, gpu: Gpu, *, ragged: bool
) -> tuple[tuple[HeadsPlan, ...], GpuTarget]:
    """The plans of gradients for a recipe's masks, and their target."""
    request, conditions = recipe.executor.target, Conditions(ragged, scale < 0)
    plans = tuple(
        HeadsPlan(
            backward_plan_for(one.mask, recipe.executor.precise(one.problem), gpu, request, conditions),
            problem.query_heads(one.heads),
        )
        for one in recipe.masks_for(problem)
    )
    return plans, gpu_target(plans[0].planned.target)


def backward_texts(recipe: Recipe, problem: Problem, scale: float, gpu: Gpu) -> tuple[Text, ...]:
    """The texts of a recipe's gradients, of contiguous arrays of these sizes, in the order of the launches; equal ones
    once.
    """
    plans, target = heads_plans(recipe, problem, scale, gpu, ragged=False)
    sizes = {name: problem.sizes(name) for name in (*OPERANDS, *GRADIENTS)}
    tensors = {
        name: Tensor(one, padded_strides(one, problem.itemsize), problem.dtype, name) for name, one in sizes.items()
    }
    level, one = ITEMSIZE[problem.compute_dtype], (*problem.lse_sizes, 1)
    tensors["lse"] = Tensor(one, contiguous(one, 1, level), problem.compute_dtype, "lse")
    schedule = backward_schedule(target, plans, tensors, Wanted(), scale, gpu.multiprocessors)
    return tuple(dict.fromkeys(step.text for step in schedule.steps))


def texts_of(plan: Plan) -> tuple[Text, ...]:
    """The texts of a GPU's plan, in the order of its passes."""
    return gpu_target(plan.target).texts(plan)


def target_of(parts: Sequence[Part]) -> GpuTarget:
    """The target of a call's parts, which is one: it follows from what all of them share."""
    return gpu_target(parts[0].plan.target)


def heads_passes(part: Part, problem: Problem) -> list[HeadsPass]:
    """The passes of one mask with the texts that it was compiled from, the caller's perhaps."""
    heads, pairs = problem.query_heads(part.heads), zip(part.plan.passes, part.compiled.texts, strict=True)
    return [HeadsPass(one, text, heads) for one, text in pairs]


def record_dense_attention(builder: ScheduleBuilder, call: AttentionCall, gpu: Gpu, request: str | None = None) -> None:
    """Add the launches of attention in which every query has every key, for schedules of which it is a part. request:
    the argument ``target``.
    """
    problem = _dense_problem(call.q, call.v)
    plan = plan_for(full(), problem, gpu, request, Conditions(negate=call.scale < 0))
    heads, pairs = problem.query_heads(None), zip(plan.passes, texts_of(plan), strict=True)
    gpu_target(plan.target).record(builder, [HeadsPass(one, text, heads) for one, text in pairs], call)


def record_dense_gradients(builder: ScheduleBuilder, call: GradientCall, gpu: Gpu, request: str | None = None) -> None:
    """Add the launches of its gradients, likewise."""
    problem = _dense_problem(call.q, call.v)
    plan = backward_plan_for(full(), problem, gpu, request, Conditions(negate=call.scale < 0))
    with builder.apart("gradients"):
        gpu_target(plan.target).record_backward(builder, [HeadsPlan(plan, problem.query_heads(None))], call)


def _dense_problem(q: Tensor, v: Tensor) -> Problem:
    """What attention of these arrays is a problem of."""
    (batch, heads, seq_q, head_dim), (_, heads_kv, seq_kv, value_dim) = q.sizes, v.sizes
    return Problem(seq_q, seq_kv, head_dim, value_dim, q.dtype, batch, heads, heads_kv)
