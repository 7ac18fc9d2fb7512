"""The CPU as an executor: Numba functions on threads, over NumPy views of the caller's arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.layouts import to_bhsd
from splat_numba.arguments.masks import Stored, describe
from splat_numba.arguments.options import check_kv_lengths, check_scale
from splat_numba.arguments.results import Written
from splat_numba.errors import BackendError
from splat_numba.executors.executor import Executor, Part, Recipe
from splat_numba.executors.operands import Operands, export_lse, import_operands, prepare_out
from splat_numba.formats.geometry import geometry
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.plan import Plan
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.cpu import planning
from splat_numba.runtime import launch
from splat_numba.runtime.compile import Compiled
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.recent import Recent
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current


@lru_cache(maxsize=256)
def plan_for(mask: Stored, problem: Problem, threads: int | None) -> Plan:
    """The plan for one mask, remembered."""
    found = geometry(mask, problem.seq_q, problem.seq_kv)
    return planning.plan(found, problem, machine(threads), describe(mask))


@lru_cache(maxsize=256)
def compiled_for(mask: Stored, problem: Problem, settings: Settings) -> tuple[Plan, Compiled]:
    """Plan and machine code for one mask, remembered."""
    plan = plan_for(mask, problem, settings.threads)
    source = launch.render(plan)
    # Masks that differ in tables only share one text.
    return plan, _compiled.get((source, settings), lambda: launch.compile_plan(plan, settings, source))


_compiled: Recent[Compiled] = Recent(128)  # of 2 MB each, or 25 where they were compiled here


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
        source.check_defines(*(f"pass_{number}" for number in range(len(part.plan.passes))))
        return replace(part, compiled=launch.compile_plan(part.plan, settings, source))

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
        return execute(parts, operands, written, q, scale, lengths, return_lse, settings)


CPU: Executor = CpuExecutor()


def execute(
    parts: tuple[Part, ...],
    operands: Operands,
    written: Written,
    like: Any,
    scale: float,
    kv_lengths: NDArray[np.int64],
    return_lse: bool,
    settings: Settings,
) -> Any:
    """Launch every part and hand the results out as the caller's kind of array."""
    problem = operands.problem
    lse = np.empty((problem.batch, problem.heads_q, problem.seq_q), problem.compute_dtype)
    out = to_bhsd(written.array.bits, operands.layout)
    views = operands.views
    work = launch.Launch(views["q"], views["k"], views["v"], out, lse, kv_lengths, scale)
    threads = settings.threads or cores()
    for part in parts:
        heads = np.arange(problem.heads_q) if part.heads is None else np.array(part.heads, np.int64)
        launch.run(part.plan, part.compiled, work, heads, threads)
    result = written.exported(like)
    return (result, export_lse(lse, operands, like)) if return_lse else result
