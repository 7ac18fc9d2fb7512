"""The CPU as an executor: Numba functions on threads, over NumPy views of the caller's arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from splat_numba.arguments.layouts import to_bhsd
from splat_numba.arguments.masks import Stored
from splat_numba.arguments.options import check_kv_lengths, check_scale
from splat_numba.arguments.precision import refuse_precision
from splat_numba.errors import BackendError
from splat_numba.executors.cpu.operands import export_lse, import_operands, prepare_out
from splat_numba.executors.executor import BackwardCall, Executor, HeadsMask, Part, Recipe
from splat_numba.executors.plans import plan_for
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.language.cpu_entry import CpuText
from splat_numba.gen.plans.backward import BackwardPlan, Wanted
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.rows.cost import LAUNCH_NS
from splat_numba.gen.targets.registry import cpu_target
from splat_numba.runtime.compile import CompiledText
from splat_numba.runtime.cpu import code
from splat_numba.runtime.cpu.machine import SCHEDULES_KEPT, LoadedSchedule
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.recent import REMEMBERED, Recent
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current

Timer = Callable[[Sequence[Callable[[], object]]], list[float]]
"""Seconds of each call."""


def host_plan_for(mask: Stored, problem: Problem, threads: int | None, request: str | None = None) -> Plan:
    """The plan for one mask on this machine with so many threads, remembered. request: the argument ``target``."""
    return plan_for(mask, problem, machine(threads), request, Conditions())


@dataclass(frozen=True, slots=True)
class CompiledPlan:
    """A plan's text with its machine code; and the schedules that calls used last, by what they depend on."""

    plan: Plan
    text: CpuText
    code: CompiledText
    loaded: Recent[LoadedSchedule] = field(default_factory=lambda: Recent(SCHEDULES_KEPT), compare=False, repr=False)

    @property
    def source(self) -> KernelSource:
        """The generated text, or the caller's."""
        return self.code.source

    @property
    def path(self) -> Path | None:
        """The file of the text, None if the cache folder cannot be used."""
        return self.code.path

    @property
    def cached(self) -> bool:
        """Whether the machine code came from disk."""
        return self.code.cached

    def schedule_for(self, problem: Problem, heads: tuple[int, ...] | None, scale: float) -> LoadedSchedule:
        """The plan's steps for arrays of these sizes, remembered."""
        key = problem, heads, scale
        found = self.loaded.find(key)
        if found is None:
            schedule = cpu_target(self.plan.target).schedule(self.plan, problem, heads, scale)
            found = self.loaded.keep(key, LoadedSchedule(schedule, self.code.functions))
        return found


def compile_plan(plan: Plan, settings: Settings) -> CompiledPlan:
    """A plan's text with its machine code, compiled or from disk."""
    text = cpu_target(plan.target).text(plan)
    return CompiledPlan(plan, text, code.compile_text(text, plan.as_dict, settings))


@lru_cache(maxsize=REMEMBERED)
def compiled_for(
    mask: Stored, problem: Problem, settings: Settings, request: str | None, heads: tuple[int, ...] | None = None,
    timer: Timer | None = None,
) -> tuple[Plan, CompiledPlan]:  # fmt: skip
    """Plan and machine code for one mask, remembered. Masks that differ in tables only share one text.

    The plan is the one that is predicted to be fastest, or with a timer the one that is, for these heads.
    """
    if timer is None:
        plan = host_plan_for(mask, problem, settings.threads, request)
    else:
        from splat_numba.executors.cpu.tuning import tuned_plan  # which compiles what it times by this module

        plan = tuned_plan(mask, heads, problem, settings, timer, None, request)
    return plan, compile_plan(plan, settings)


# Below this, threads cost more than they bring: another one begins some 10 us after it was asked for, and in Python
# takes turns with the caller.
FEWEST_SECONDS = 4e-5


def threads_worth(plans: Sequence[Plan], problem: Problem, threads: int) -> int:
    """Threads of a call: one where its plans predict less time than threads take to come. A kernel's plan may have been
    made for other sizes, and then says nothing of these.
    """
    if threads == 1 or any([plan.problem != problem for plan in plans]):  # noqa: C419 - a few, at every call
        return threads
    launches = sum([len(plan.passes) for plan in plans])  # whose fixed part is predicted, too
    seconds = sum([plan.cost.seconds for plan in plans]) - launches * LAUNCH_NS * 1e-9
    return threads if seconds > FEWEST_SECONDS else 1


@dataclass(frozen=True, slots=True)
class CpuExecutor:
    """Closed forms serve every length and every kind of key lengths, so a part is never adapted.

    target: the one asked for, None for any; timer: seconds of each call, where plans are to be measured
    (autotune=True), else None.
    """

    target: str | None = None
    timer: Timer | None = None
    name: ClassVar[str] = "cpu"
    transformable: ClassVar[bool] = True
    emulated: ClassVar[bool] = False

    def plan(self, mask: Stored, problem: Problem, scale: float, settings: Settings) -> Plan:
        """The plan for one mask, remembered."""
        return host_plan_for(mask, problem, settings.threads, self.target)

    def with_precision(self, _precision: str) -> NoReturn:
        """None. Raises ArgumentError."""
        refuse_precision("for backend 'cpu', which makes products as float32")

    def precise(self, problem: Problem) -> Problem:
        """It has one precision."""
        return problem

    def sources(self, plan: Plan) -> tuple[KernelSource, ...]:
        """One text, with a function a pass."""
        return (code.source_of(cpu_target(plan.target).text(plan)),)

    def measured(self) -> Executor:
        """The one whose plans are timed on this machine."""
        return _measured(self.target)

    def check_present(self) -> None:
        """Nothing: there is always a CPU."""

    def part(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, scale: float, settings: Settings,
        *, ragged: bool = False,
    ) -> Part:  # fmt: skip
        """Plan and machine code for one mask, remembered."""
        tuning = (heads, self.timer) if self.timer else ()
        return Part(mask, heads, *compiled_for(mask, problem, settings, self.target, *tuning))

    def serves_every_length(self, part: Part) -> bool:
        """Whether bounds are expressions, not tables."""
        return isinstance(part.mask, Pattern) and part.plan.closed

    def adapt(self, part: Part, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> Part:
        """The part itself."""
        return part

    def planned_for(self, part: Part, problem: Problem) -> Problem:
        """The part's own, since it is never adapted."""
        return part.plan.problem

    def with_source(self, part: Part, source: KernelSource, settings: Settings) -> Part:
        """The part run from another text. Raises CompileError."""
        source.check_defines(*(entry.name for entry in part.compiled.text.entries))
        text = part.compiled.text
        made = code.compile_text(text, part.plan.as_dict, settings, source)
        return replace(part, compiled=CompiledPlan(part.plan, text, made))

    def resources(self, parts: tuple[Part, ...]) -> dict[str, Any]:
        """Whether the machine code came from the disk cache, for each part."""
        return {"cached": [part.compiled.cached for part in parts]}

    def listing(self, part: Part, form: str) -> Any:
        """None of the forms. Raises BackendError."""
        raise BackendError(f"{form} wanted of a kernel for backend 'cuda', got one for 'cpu'. Compile it for 'cuda'.")

    def attend(self, recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
        """Check the arguments, then launch every part."""
        operands = import_operands(q, k, v, recipe.layout)
        problem = operands.problem
        scale = check_scale(recipe.scale, problem.head_dim, problem.dtype)
        lengths = check_kv_lengths(kv_lengths, problem, operands.axes)
        written = prepare_out(out, operands)
        settings = current()
        parts, unfused = self._split(recipe, problem, scale, settings, ragged=kv_lengths is not None)
        lse = np.empty(problem.lse_sizes, problem.compute_dtype)
        result = to_bhsd(written.array.bits, operands.layout)
        arrays = {**operands.views, "out": result, "lse": lse, "kv_lengths": lengths}
        threads = threads_worth([part.plan for part in parts], problem, settings.threads or cores())
        for part in parts:
            part.compiled.schedule_for(problem, part.heads, scale).run(arrays, threads)
        if unfused:
            from splat_numba.executors.cpu.unfused import attend_unfused

            for one in unfused:
                attend_unfused(one, problem, scale, arrays, settings)
        exported = written.exported(q)
        return (exported, export_lse(lse, operands, q)) if return_lse else exported

    def _split(
        self, recipe: Recipe, problem: Problem, scale: float, settings: Settings, *, ragged: bool
    ) -> tuple[tuple[Part, ...], list[HeadsMask]]:
        """The parts that are kernels, and the masks that are left to the packed operators."""
        if recipe.fused:
            return recipe.parts_for(problem, scale, settings, ragged=ragged), []
        parts, unfused = [], []
        for one in recipe.masks_for(problem):
            if recipe.fused is None and host_plan_for(one.mask, one.problem, settings.threads, self.target).fused:
                parts.append(self.part(one.mask, one.heads, one.problem, scale, settings))
            else:
                unfused.append(one)
        return tuple(parts), unfused

    def plan_backward(self, one: HeadsMask, scale: float, settings: Settings) -> BackwardPlan:
        """Passes as a forward plan has them, which make all gradients."""
        forward = self._gradient_plan(one, settings)
        return cpu_target(forward.target).plan_backward(forward, measured=self.timer is not None)

    def _gradient_plan(self, one: HeadsMask, settings: Settings) -> Plan:
        from splat_numba.executors.cpu.backward import gradient_plan

        return gradient_plan(one.mask, one.problem, Wanted(), settings, self.target, one.heads, self.timer)

    def backward_sources(
        self, recipe: Recipe, problem: Problem, scale: float, settings: Settings
    ) -> tuple[KernelSource, ...]:
        """A text for every mask."""
        plans = (self._gradient_plan(one, settings) for one in recipe.masks_for(problem))
        texts = (cpu_target(plan.target).backward_text(plan, Wanted()) for plan in plans)
        return tuple(dict.fromkeys(map(code.source_of, texts)))

    def compile_backward(self, recipe: Recipe, problem: Problem, scale: float, settings: Settings) -> None:
        """Compile them, or read them from disk."""
        from splat_numba.executors.cpu.backward import compiled_of

        for one in recipe.masks_for(problem):
            compiled_of(self, one, Wanted(), settings)

    def backward(self, recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
        """The gradients of q, k and v; None for frozen ones."""
        from splat_numba.executors.cpu.backward import backward  # which has this module's plans

        return backward(recipe, call)

    def attend_again(self, recipe: Recipe, arrays: tuple[Any, ...], return_lse: bool) -> None:
        """None: it begins anew each time."""

    def backward_again(self, recipe: Recipe, call: BackwardCall) -> None:
        """Likewise."""


@cache
def _measured(target: str | None) -> Executor:
    """Made when first wanted."""
    from splat_numba.executors.cpu.tuning import least_seconds

    return CpuExecutor(target, least_seconds)


CPU: Executor = CpuExecutor()
