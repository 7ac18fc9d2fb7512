"""The CPU as an executor of the packed operators: a plan a mask and problem, run over NumPy views on threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, ClassVar

from numpy.typing import NDArray

from splat_numba.executors.packed.machine import kept
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.packed.groups import GroupTable
from splat_numba.gen.packed.problem import PackedProblem, RunTable
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.targets.cpu.packed import packed_text
from splat_numba.gen.targets.cpu.packed_plan import (
    PackedPlan,
    keys_to_share,
    make_packed_plan,
    rows_to_share,
)
from splat_numba.gen.targets.cpu.packed_schedule import packed_schedule
from splat_numba.runtime.compile import CompiledText
from splat_numba.runtime.cpu import code
from splat_numba.runtime.cpu.machine import LoadedSchedule
from splat_numba.runtime.device import cores, machine
from splat_numba.runtime.recent import Recent
from splat_numba.runtime.source import KernelSource
from splat_numba.runtime.threads import RANGES_PER_THREAD
from splat_numba.settings import Settings


@dataclass(frozen=True, slots=True)
class MaskState:
    """The run table of a mask or of its transpose, its rows in groups, by the size of those and of a piece, and the
    schedules over it that calls used last, by what they depend on.
    """

    table: RunTable
    groups: dict[tuple[int, int], GroupTable] = field(default_factory=dict)
    loaded: Recent[LoadedSchedule] = field(default_factory=lambda: Recent(16))

    def grouped(self, problem: PackedProblem, host: Machine) -> GroupTable | None:
        """Its rows in groups as a plan may want them, made once."""
        key = rows_to_share(problem, host), keys_to_share(problem, host)
        if key[0] == 1:
            return None
        found = self.groups.get(key)
        return self.groups.setdefault(key, GroupTable.of(self.table, *key)) if found is None else found


_states: dict[tuple[int, bool], MaskState] = {}


def state_of(acsr: ACSR, transposed: bool = False) -> MaskState:
    """Kept as long as the mask."""
    return kept(_states, acsr, transposed, MaskState)


@dataclass(frozen=True, slots=True)
class CpuPackedExecutor:
    """Kernels in which lengths are arguments; the schedule holds the mask's runs, and its rows in ranges."""

    name: ClassVar[str] = "cpu"

    def plan(self, problem: PackedProblem, acsr: ACSR, settings: Settings) -> PackedPlan:
        """The plan of a problem for a mask."""
        state, host = state_of(acsr, problem.transposed), machine(settings.threads)
        return make_packed_plan(problem, state.table, host, state.grouped(problem, host))

    def run(
        self, problem: PackedProblem, acsr: ACSR, arrays: Mapping[str, NDArray[Any]], settings: Settings
    ) -> None:  # fmt: skip
        """Write the operator's last argument from the others, by name; 16-bit numbers as uint16."""
        threads = settings.threads or cores()
        loaded, key = state_of(acsr, problem.transposed).loaded, (problem, settings, threads)
        schedule = loaded.find(key)
        if schedule is None:
            schedule = loaded.keep(key, self._loaded(problem, acsr, threads, settings))
        schedule.run(arrays, threads)

    def _loaded(self, problem: PackedProblem, acsr: ACSR, threads: int, settings: Settings) -> LoadedSchedule:
        plan = self.plan(problem, acsr, settings)
        state = state_of(acsr, problem.transposed)
        groups = state.grouped(problem, machine(settings.threads)) if plan.grouped else None
        schedule = packed_schedule(plan, problem, groups or state.table, threads * RANGES_PER_THREAD)
        if not schedule.launches:
            return LoadedSchedule(schedule, {})
        return LoadedSchedule(schedule, self.compiled(plan, settings).functions)

    def source(self, plan: PackedPlan) -> KernelSource:
        """The plan's text."""
        return code.source_of(packed_text(plan))

    def compiled(self, plan: PackedPlan, settings: Settings) -> CompiledText:
        """Its machine code, compiled or from disk."""
        return code.compile_text(packed_text(plan), partial(asdict, plan), settings)


CPU_PACKED = CpuPackedExecutor()
