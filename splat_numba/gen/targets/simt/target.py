"""Any NVIDIA GPU as a target: float32, float64, and 16 bits computed in float32, on the FMA units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from splat_numba.gen.machine import GPU, SHARED_BYTES, Gpu, gpu_of_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from splat_numba.formats.geometry import Geometry
    from splat_numba.gen.backward import BackwardPlan
    from splat_numba.gen.plan import Choice, Plan
    from splat_numba.gen.problem import Conditions, Problem
    from splat_numba.gen.schedule import InPlace, ScheduleBuilder, Text
    from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan
    from splat_numba.gen.targets.target import AttentionCall, Candidate, HeadsPass
    from splat_numba.gen.tensor import Tensor


@dataclass(frozen=True, slots=True)
class SimtTarget:
    """A text is compiled for the GPU that its plan is made for; its source is the same for all."""

    name: str = "simt"
    kind: str = GPU
    generation: str = "any NVIDIA GPU from Turing on"
    capabilities: frozenset[tuple[int, int]] = frozenset(SHARED_BYTES)
    makes_gradients: bool = True

    def refusal(self, problem: Problem) -> str | None:
        """It takes every dtype; dims that are too large are the plan's to refuse."""
        return None

    def plan(self, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions) -> Plan:
        """The plan of the least predicted time."""
        from splat_numba.gen import box_plans
        from splat_numba.gen.targets.simt.planning import SimtTiles

        return box_plans.plan(self.name, SimtTiles(problem, gpu), geometry, problem, gpu, mask, conditions)

    def candidates(
        self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, most: int
    ) -> tuple[Candidate, ...]:
        """Orders of rows with a tile shape for each pass."""
        from splat_numba.gen import box_plans
        from splat_numba.gen.targets.simt.planning import SimtTiles

        return box_plans.candidates(SimtTiles(problem, gpu), geometry, problem, conditions, most)

    def plan_of(
        self, candidate: Candidate, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions,
        reasons: Sequence[Choice],
    ) -> Plan:  # fmt: skip
        """The plan of one of candidates()."""
        from splat_numba.gen import box_plans
        from splat_numba.gen.targets.simt.planning import SimtTiles

        tiles = SimtTiles(problem, gpu)
        return box_plans.plan_of(self.name, tiles, candidate, geometry, problem, gpu, mask, conditions, reasons)

    def texts(self, plan: Plan) -> tuple[Text, ...]:
        """A text of each pass's traits."""
        from splat_numba.gen.boxes import BoxPass
        from splat_numba.gen.targets.simt.schedule import attention_text

        gpu = gpu_of_plan(plan.machine)
        return tuple(attention_text(one.traits, gpu) for one in plan.passes if isinstance(one, BoxPass))

    def in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """Rows of whole chunks of 16 bytes."""
        from splat_numba.gen.targets.gpu.launches import chunks_in_place

        return chunks_in_place(tensors)

    def plan_backward(self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
        """The plan of gradients of the least predicted time."""
        from splat_numba.gen.targets.simt.backward.planning import plan_backward

        return plan_backward(self.name, geometry, problem, gpu, conditions)

    def backward_in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """As in_place()."""
        from splat_numba.gen.backward import GRADIENTS
        from splat_numba.gen.schedule import InPlace
        from splat_numba.gen.targets.gpu.launches import in_chunks
        from splat_numba.gen.targets.gradients import OPERANDS
        from splat_numba.gen.targets.simt.shape import CHUNK

        rules = {name: InPlace(in_chunks(tensors[name]), CHUNK) for name in OPERANDS}
        for name in GRADIENTS:
            one = tensors.get(name)
            rules[name] = InPlace(True, 1) if one is None else InPlace(in_chunks(one), CHUNK)
        return rules

    def record_backward(self, builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
        """One launch for what gradients need of every query, then one a pass."""
        from splat_numba.gen.targets.simt.backward.schedule import record_backward

        record_backward(builder, plans, call)

    def record(self, builder: ScheduleBuilder, passes: Sequence[HeadsPass], call: AttentionCall) -> None:
        """One launch a pass."""
        from splat_numba.gen.targets.simt.schedule import record_pass

        for number, one in enumerate(passes):
            record_pass(builder, number, one, call)


SIMT = SimtTarget()
