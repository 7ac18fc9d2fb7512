"""The emulator as an executor: the texts that a GPU would run, on NumPy, for small sizes and for debugging."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from splat_numba.arguments.layouts import to_bhsd
from splat_numba.arguments.masks import Stored
from splat_numba.arguments.options import check_kv_lengths, check_scale
from splat_numba.emulator.machine import EmulatedMachine, axes_of
from splat_numba.errors import BackendError
from splat_numba.executors.cpu.operands import export_lse, import_operands, prepare_out
from splat_numba.executors.executor import BackwardCall, Executor, Part, Recipe, refuse_measuring
from splat_numba.executors.gpu.parts import (
    OfGpuTexts,
    heads_passes,
    heads_plans,
    target_of,
    texts_of,
)
from splat_numba.executors.host_gradients import import_backward
from splat_numba.executors.plans import plan_for
from splat_numba.gen.language.dtypes import IEEE, ITEMSIZE
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.schedules.schedule import Text
from splat_numba.gen.targets.gradients import LEVELS, OPERANDS, backward_schedule
from splat_numba.gen.targets.registry import check_taken, gpu_target
from splat_numba.gen.targets.target import attention_schedule
from splat_numba.runtime.cuda.code import edited_text, source_of
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a plan's passes, which is all that the emulator needs."""

    texts: tuple[Text, ...]
    path: Path | None = None
    cached: bool = False

    @property
    def source(self) -> KernelSource:
        """The first pass's text."""
        return source_of(self.texts[0])


@dataclass(frozen=True, slots=True)
class EmulatedExecutor(OfGpuTexts):
    """As on a GPU, every length has its plan; nothing is compiled. target: the one asked for, None for any;
    precision: of products of float32.
    """

    target: str | None = None
    precision: str = IEEE
    name: ClassVar[str] = "emulate"
    transformable: ClassVar[bool] = False
    emulated: ClassVar[bool] = True

    def plan(self, mask: Stored, problem: Problem, scale: float, settings: Settings) -> Plan:
        """The plan for one mask, remembered. Raises ArgumentTypeError for dtypes that no target takes."""
        return self.part(mask, None, problem, scale, settings).plan

    def measured(self) -> Executor:
        """None. Raises ArgumentError."""
        return refuse_measuring(self)

    def check_present(self) -> None:
        """Nothing: it runs anywhere."""

    def part(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, scale: float, settings: Settings,
        *, ragged: bool = False,
    ) -> Part:  # fmt: skip
        """Plan and texts for one mask."""
        plan = plan_for(mask, self.precise(problem), self.planned_gpu(), self.target, Conditions(ragged, scale < 0))
        return Part(mask, heads, plan, Texts(texts_of(plan)))

    def planned_gpu(self) -> Gpu:
        """The whole GPU that plans are made for; the emulated one runs what one multiprocessor holds."""
        usual = Gpu()
        if self.target is None or usual.capability in gpu_target(self.target).capabilities:
            return usual
        return Gpu(capability=min(gpu_target(self.target).capabilities))

    def adapt(self, part: Part, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> Part:
        """The part planned for these lengths; a text of the caller's stays."""
        found = self.part(part.mask, part.heads, problem, scale, settings, ragged=ragged)
        same = texts_of(part.plan) == texts_of(found.plan)
        return replace(found, compiled=part.compiled) if same else found

    def with_source(self, part: Part, source: KernelSource, settings: Settings) -> Part:
        """The part run from another text. Raises ArgumentError for several texts, CompileError."""
        return replace(part, compiled=Texts((edited_text(part.compiled.texts, source),) * len(part.compiled.texts)))

    def resources(self, parts: tuple[Part, ...]) -> dict[str, Any]:
        """Shared memory of the largest block; there is no machine code."""
        sizes = [text.entry.shared_bytes for part in parts for text in part.compiled.texts]
        return {"shared_bytes": max(sizes, default=0), "cached": [part.compiled.cached for part in parts]}

    def listing(self, part: Part, form: str) -> NoReturn:
        """None of the forms. Raises BackendError."""
        raise BackendError(
            f"{form} wanted of a kernel for backend 'cuda', got one for 'emulate'. Compile it for 'cuda'."
        )

    def attend(self, recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
        """Check the arguments, then run every pass of every part. Raises EmulationError for a fault in a text."""
        operands = import_operands(q, k, v, recipe.layout)
        problem = operands.problem
        check_taken("q", problem, self.target)
        scale = check_scale(recipe.scale, problem.head_dim, problem.dtype)
        lengths = check_kv_lengths(kv_lengths, problem, operands.axes)
        written = prepare_out(out, operands)
        parts = recipe.parts_for(problem, scale, current(), ragged=kv_lengths is not None)
        machine = EmulatedMachine()
        tensors = {name: machine.place(name, view, problem.dtype) for name, view in operands.views.items()}
        rows = problem.lse_sizes
        tensors["out"] = machine.allocate("out", problem.sizes("out"), problem.dtype)
        machine.reserve("lse", ITEMSIZE[problem.compute_dtype] * prod(rows))
        machine.place_table("kv_lengths", lengths.astype(np.int32))
        passes = [one for part in parts for one in heads_passes(part, problem)]
        machine.run(attention_schedule(target_of(parts), passes, tensors, scale, multiprocessors=1))
        to_bhsd(written.array.bits, operands.layout)[...] = machine.read(tensors["out"])
        result = written.exported(q)
        if not return_lse:
            return result
        levels = machine.read_numbers("lse", prod(rows), problem.compute_dtype)
        return result, export_lse(levels.reshape(rows), operands, q)

    def compile_backward(self, recipe: Recipe, problem: Problem, scale: float, settings: Settings) -> None:
        """Nothing: the emulator reads the texts."""

    def backward(self, recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
        """The gradients, from the texts that a GPU would run. Raises EmulationError for a fault in one."""
        given = import_backward(recipe, call)
        problem, views, wanted = given.problem, {**given.operands.views, **given.views}, given.wanted
        check_taken("q", problem, self.target)
        if wanted is None:
            return None, None, None
        plans, target = heads_plans(
            recipe, problem, given.scale, self.planned_gpu(), ragged=call.kv_lengths is not None
        )
        machine, targets = EmulatedMachine(), given.targets
        tensors = {name: machine.place(name, views[name], problem.dtype) for name in OPERANDS}
        for name in LEVELS if call.dlse is not None else LEVELS[:1]:
            tensors[name] = machine.place_as_it_is(name, views[name][..., None], problem.compute_dtype)
        made = {name: machine.allocate(name, axes_of(one.shape), problem.dtype) for name, one in targets.items()}
        machine.place_table("kv_lengths", given.lengths.astype(np.int32))
        machine.run(backward_schedule(target, plans, {**tensors, **made}, wanted, given.scale, multiprocessors=1))
        for name, one in made.items():
            targets[name][...] = machine.read(one)
        return given.exported(call)

    def attend_again(self, recipe: Recipe, arrays: tuple[Any, ...], return_lse: bool) -> None:
        """None: it begins anew each time."""

    def backward_again(self, recipe: Recipe, call: BackwardCall) -> None:
        """Likewise."""
