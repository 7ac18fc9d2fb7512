"""CPUs as a target: texts for Numba over arrays, at any length and of every dtype.

Planner and emitters are imported when they are first asked for: calls on a GPU see this value too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from splat_numba.gen.plans.machine import CPU, Machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from splat_numba.formats.geometry import Geometry
    from splat_numba.gen.language.cpu_entry import CpuText
    from splat_numba.gen.plans.backward import BackwardPlan, Sums, Wanted
    from splat_numba.gen.plans.plan import Choice, Plan
    from splat_numba.gen.plans.problem import Conditions, Problem
    from splat_numba.gen.rows.passes import CpuCandidate
    from splat_numba.gen.schedules.array_schedule import ArraySchedule


@dataclass(frozen=True, slots=True)
class NumbaCpu:
    """Texts are compiled for the host that runs them, whatever its vectors are: no CPU is refused, nor any dtype."""

    name: str = "cpu"
    kind: str = CPU
    generation: str = "every CPU"
    capabilities: frozenset[tuple[int, int]] = frozenset()

    def runs_on(self, problem: Problem) -> frozenset[tuple[int, int]]:
        """GPUs are not its business."""
        return self.capabilities

    def refusal(self, problem: Problem) -> str | None:
        """None: it takes what attention takes."""
        return None

    def gives_way(self, problem: Problem, machine: Machine) -> str | None:
        """There is no other."""
        return None

    def plan(self, geometry: Geometry, problem: Problem, machine: Machine, mask: str, conditions: Conditions) -> Plan:
        """The plan of the least predicted time, whatever the conditions: its texts serve all of them."""
        from splat_numba.gen.targets.cpu import planning

        return planning.plan(geometry, problem, machine, mask)

    def text(self, plan: Plan) -> CpuText:
        """An entry function a pass."""
        from splat_numba.gen.targets.cpu.attention import attention_text

        return attention_text(plan)

    def schedule(self, plan: Plan, problem: Problem, heads: tuple[int, ...] | None, scale: float) -> ArraySchedule:
        """A step a pass, with what has to happen before the first and after the last."""
        from splat_numba.gen.targets.cpu.schedule import attention_schedule

        return attention_schedule(plan, problem, heads, scale)

    def candidates(self, geometry: Geometry, problem: Problem, machine: Machine, most: int) -> tuple[CpuCandidate, ...]:
        """Tile sizes and orders of rows."""
        from splat_numba.gen.targets.cpu import planning

        return planning.candidates(geometry, problem, machine, most)

    def plan_of(self, candidate: CpuCandidate, predicted: Plan, reasons: Sequence[Choice]) -> Plan:
        """The plan of one of candidates()."""
        from splat_numba.gen.targets.cpu import planning

        return planning.plan_of(candidate, predicted, reasons)

    def plan_backward(self, forward: Plan, *, measured: bool = False) -> BackwardPlan:
        """The forward plan's passes, which make all gradients."""
        from splat_numba.gen.targets.cpu import planning

        return planning.backward_plan(forward, measured=measured)

    def backward_text(self, plan: Plan, wanted: Wanted) -> CpuText:
        """An entry function a pass."""
        from splat_numba.gen.targets.cpu.backward import backward_text

        return backward_text(plan, wanted)

    def sums_of(self, problem: Problem, machine: Machine, wanted: Wanted) -> Sums:
        """Rows whose lanes lie along them."""
        from splat_numba.gen.targets.cpu.backward_schedule import sums_of

        return sums_of(problem, machine, wanted)

    def backward_schedule(
        self, plan: Plan, problem: Problem, heads: tuple[int, ...] | None, scale: float, wanted: Wanted, shares: int
    ) -> ArraySchedule:
        """A step a pass, each adding to what the others left."""
        from splat_numba.gen.targets.cpu.backward_schedule import backward_schedule

        return backward_schedule(plan, problem, heads, scale, wanted, shares)


NUMBA_CPU = NumbaCpu()
