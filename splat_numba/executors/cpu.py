"""The CPU as an executor: Numba functions on threads, over NumPy views of the caller's arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from splat_numba.arguments.layouts import to_bhsd
from splat_numba.arguments.masks import Stored, describe
from splat_numba.arguments.options import check_kv_lengths, check_scale
from splat_numba.errors import BackendError
from splat_numba.executors.executor import BackwardCall, Executor, Part, Recipe
from splat_numba.executors.operands import export_lse, import_operands, prepare_out
from splat_numba.formats.geometry import geometry
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.backward import BackwardPlan, Wanted
from splat_numba.gen.cost import LAUNCH_NS
from splat_numba.gen.cpu_entry import CpuText
from splat_numba.gen.plan import Plan
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.cpu import planning
from splat_numba.gen.targets.cpu.attention import attention_text
from splat_numba.gen.targets.cpu.backward import backward_text
from splat_numba.gen.targets.cpu.schedule import attention_schedule
from splat_numba.runtime.compile import CompiledText
from splat_numba.runtime.cpu import code
from splat_numba.runtime.cpu.machine import LoadedSchedule
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.recent import Recent
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current


@lru_cache(maxsize=256)
def plan_for(mask: Stored, problem: Problem, threads: int | None) -> Plan:
    """The plan for one mask, remembered."""
    found = geometry(mask, problem.seq_q, problem.seq_kv)
    return planning.plan(found, problem, machine(threads), describe(mask))


@dataclass(frozen=True, slots=True)
class CompiledPlan:
    """A plan's text with its machine code; and the schedules that calls used last, by what they depend on."""

    plan: Plan
    text: CpuText
    code: CompiledText
    loaded: Recent[LoadedSchedule] = field(default_factory=lambda: Recent(16), compare=False, repr=False)

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
            schedule = attention_schedule(self.plan, problem, heads, scale)
            found = self.loaded.keep(key, LoadedSchedule(schedule, self.code.functions))
        return found


@lru_cache(maxsize=256)
def compiled_for(mask: Stored, problem: Problem, settings: Settings) -> tuple[Plan, CompiledPlan]:
    """Plan and machine code for one mask, remembered. Masks that differ in tables only share one text."""
    plan = plan_for(mask, problem, settings.threads)
    text = attention_text(plan)
    return plan, CompiledPlan(plan, text, code.compile_text(text, plan.as_dict, settings))


# Below this, threads cost more than they bring: another one begins some 10 us after it was asked for, and in Python
# takes turns with the caller.
FEWEST_SECONDS = 4e-5


def threads_worth(parts: tuple[Part, ...], problem: Problem, threads: int) -> int:
    """Threads of a call: one where its plans predict less time than threads take to come. A kernel's plan may have been
    made for other sizes, and then says nothing of these.
    """
    if threads == 1 or any([part.plan.problem != problem for part in parts]):  # noqa: C419 - a few, at every call
        return threads
    launches = sum([len(part.plan.passes) for part in parts])  # whose fixed part is predicted, too
    seconds = sum([part.plan.cost.seconds for part in parts]) - launches * LAUNCH_NS * 1e-9
    return threads if seconds > FEWEST_SECONDS else 1


@dataclass(frozen=True, slots=True)
class CpuExecutor:
    """Closed forms serve every length and every kind of key lengths, so a part is never adapted."""

    name: ClassVar[str] = "cpu"
    target: ClassVar[str | None] = None

    def plan(self, mask: Stored, problem: Problem, scale: float, settings: Settings) -> Plan:
        """The plan for one mask, remembered."""
        return plan_for(mask, problem, settings.threads)

    def part(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, scale: float, settings: Settings,
        *, ragged: bool = False,
    ) -> Part:  # fmt: skip
        """Plan and machine code for one mask, remembered."""
        return Part(mask, heads, *compiled_for(mask, problem, settings))

    def serves_every_length(self, part: Part) -> bool:
        """Whether bounds are expressions, not tables."""
        return isinstance(part.mask, Pattern) and part.plan.closed

    def adapt(self, part: Part, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> Part:
        """The part itself."""
        return part

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
        parts = recipe.parts_for(problem, scale, settings, ragged=kv_lengths is not None)
        lse = np.empty((problem.batch, problem.heads_q, problem.seq_q), problem.compute_dtype)
        result = to_bhsd(written.array.bits, operands.layout)
        arrays = {**operands.views, "out": result, "lse": lse, "kv_lengths": lengths}
        threads = threads_worth(parts, problem, settings.threads or cores())
        for part in parts:
            part.compiled.schedule_for(problem, part.heads, scale).run(arrays, threads)
        exported = written.exported(q)
        return (exported, export_lse(lse, operands, q)) if return_lse else exported

    def plan_backward(self, mask: Stored, problem: Problem, scale: float, settings: Settings) -> BackwardPlan:
        """The forward plan's passes, which make all gradients."""
        return planning.backward_plan(self.plan(mask, problem, scale, settings))

    def backward_sources(
        self, recipe: Recipe, problem: Problem, scale: float, settings: Settings
    ) -> tuple[KernelSource, ...]:
        """A text for every mask."""
        plans = (plan_for(mask, problem, settings.threads) for mask, _ in recipe.masks_for(problem))
        return tuple(dict.fromkeys(code.source_of(backward_text(plan, Wanted())) for plan in plans))

    def compile_backward(self, recipe: Recipe, problem: Problem, scale: float, settings: Settings) -> None:
        """Compile them, or read them from disk."""
        from splat_numba.executors.cpu_backward import compiled_backward

        for mask, _ in recipe.masks_for(problem):
            compiled_backward(mask, problem, Wanted(), settings)

    def backward(self, recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
        """The gradients of q, k and v; None for frozen ones."""
        from splat_numba.executors.cpu_backward import backward  # which has this module's plans

        return backward(recipe, call)


CPU: Executor = CpuExecutor()
