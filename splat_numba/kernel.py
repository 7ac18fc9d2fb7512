"""Kernel: what compile() returns, the plan, text and machine code for one mask, or for one mask a head."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentError
from splat_numba.formats.geometry import geometry
from splat_numba.formats.pattern_runs import check_lengths
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.plan import Plan
from splat_numba.gen.planner import make_plan
from splat_numba.gen.problem import Problem
from splat_numba.masks import Stored, describe
from splat_numba.operands import (
    Operands,
    Written,
    check_kv_lengths,
    export_lse,
    import_operands,
    prepare_out,
    to_bhsd,
)
from splat_numba.runtime import launch
from splat_numba.runtime.arrays import export_array
from splat_numba.runtime.compile import Compiled
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current


@lru_cache(maxsize=256)
def plan_for(mask: Stored, problem: Problem, threads: int | None) -> Plan:
    """The plan for one mask, remembered."""
    found = geometry(mask, problem.seq_q, problem.seq_kv)
    return make_plan(found, problem, machine(threads), describe(mask))


@lru_cache(maxsize=256)
def compiled_for(mask: Stored, problem: Problem, settings: Settings) -> tuple[Plan, Compiled]:
    """Plan and machine code for one mask, remembered."""
    plan = plan_for(mask, problem, settings.threads)
    source = launch.render(plan)
    if (source, settings) not in _compiled:  # masks that differ in tables only share one text
        _compiled[source, settings] = launch.compile_plan(plan, settings, source)
    return plan, _compiled[source, settings]


_compiled: dict[tuple[KernelSource, Settings], Compiled] = {}


@dataclass(frozen=True, slots=True)
class Part:
    """One mask and the query heads that use it; heads None: all, however many there are."""

    mask: Stored
    heads: tuple[int, ...] | None
    plan: Plan
    compiled: Compiled


@dataclass(frozen=True, slots=True)
class Kernel:
    """A compiled attention kernel; call it with arrays. Batch and head counts may vary from call to call.

    A kernel whose masks are Patterns in closed form serves every length; any other serves the lengths it was made for.
    ``parts``: one for every distinct mask; plan, source and path are the first one's.
    """

    parts: tuple[Part, ...]
    problem: Problem
    scale: float
    layout: str

    @property
    def plan(self) -> Plan:
        """The plan (of the first mask, where heads have different ones)."""
        return self.parts[0].plan

    @property
    def source(self) -> str:
        """The generated Python source."""
        return self.parts[0].compiled.source.text

    @property
    def path(self) -> Path | None:
        """The file of the generated source, None if the cache folder cannot be used."""
        return self.parts[0].compiled.path

    def explain(self) -> str:
        """The plans in words."""
        return "\n\n".join(part.plan.explain() for part in self.parts)

    def with_source(self, path: str | os.PathLike[str]) -> Kernel:
        """The same kernel run from the text in ``path``, for trying an edit: copy ``kernel.path``, change it, rerun.

        Raises ArgumentError for a kernel with several masks, CompileError where the text does not compile.
        """
        if len(self.parts) > 1:
            raise ArgumentError(f"kernel wanted with one mask, got {len(self.parts)}. Compile one for the mask alone.")
        part = self.parts[0]
        compiled = launch.compile_plan(part.plan, current(), KernelSource.from_file(path))
        return replace(self, parts=(replace(part, compiled=compiled),))

    @property
    def resources(self) -> dict[str, Any]:
        """Facts about the machine code; on a CPU whether it came from the disk cache, for each part."""
        return {"cached": [part.compiled.cached for part in self.parts]}

    def __call__(
        self, q: Any, k: Any, v: Any, *, kv_lengths: Any = None, out: Any = None, return_lse: bool = False
    ) -> Any:
        """Out, or (out, lse): see splat_numba.attention. Raises ArgumentError for shapes it was not compiled for."""
        operands = import_operands(q, k, v, self.layout)
        self._check(operands.problem)
        lengths = check_kv_lengths(kv_lengths, operands)
        return execute(self.parts, operands, prepare_out(out, operands), q, self.scale, lengths, return_lse, current())

    def _check(self, given: Problem) -> None:
        """Refuse arrays that the kernel was not compiled for."""
        for name, argument in (("head_dim", "q"), ("value_dim", "v"), ("dtype", "q")):
            self._check_same(argument, name, getattr(self.problem, name), getattr(given, name))
        lengths = (given.seq_q, given.seq_kv)
        for part in self.parts:
            if isinstance(part.mask, Pattern) and part.plan.closed:
                check_lengths(part.mask, *lengths)
            else:
                self._check_same("q and k", "lengths", (self.problem.seq_q, self.problem.seq_kv), lengths)
        if self.parts[0].heads is not None:
            self._check_same("q", "heads", self.problem.heads_q, given.heads_q)

    @staticmethod
    def _check_same(argument: str, name: str, wanted: object, got: object) -> None:
        if wanted != got:
            raise ArgumentError(
                f"{argument} wanted with {name} {wanted}, as compiled for, got {got}. Compile another kernel."
            )


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
    result = written.given if written.given is not None else export_array(written.array.bits, problem.dtype, like)
    return (result, export_lse(lse, operands, like)) if return_lse else result
