"""Any NVIDIA GPU as a target: float32, float64, and 16 bits computed in float32, on the FMA units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from splat_numba.gen.language.dtypes import IEEE
from splat_numba.gen.plans.machine import FIRST_WITH_HALVES, GPU, SHARED_BYTES, Gpu
from splat_numba.gen.targets.gpu.box_target import BoxTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from splat_numba.formats.geometry import Geometry
    from splat_numba.gen.boxes.passes import Traits
    from splat_numba.gen.boxes.tiles import Tiles
    from splat_numba.gen.plans.backward import BackwardPlan
    from splat_numba.gen.plans.problem import Conditions, Problem
    from splat_numba.gen.schedules.schedule import ScheduleBuilder, Text
    from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan
    from splat_numba.gen.targets.target import AttentionCall, HeadsPass


@dataclass(frozen=True, slots=True)
class SimtTarget(BoxTarget):
    """A text is compiled for the GPU that its plan is made for; its source is the same for all."""

    name: str = "simt"
    kind: str = GPU
    generation: str = "any NVIDIA GPU from Turing on"
    capabilities: frozenset[tuple[int, int]] = frozenset(SHARED_BYTES)

    def runs_on(self, problem: Problem) -> frozenset[tuple[int, int]]:
        """Numbers of 16 bits are converted in pairs, which Turing has no instruction for."""
        from splat_numba.gen.language.dtypes import ITEMSIZE

        if ITEMSIZE[problem.dtype] > 2:
            return self.capabilities
        return frozenset(one for one in self.capabilities if one >= FIRST_WITH_HALVES)

    def refusal(self, problem: Problem) -> str | None:
        """It takes every dtype, but has no products of TF32; dims that are too large are the plan's to refuse."""
        return None if problem.precision == IEEE else "has no products of TF32, which precision='tf32' asks for"

    def tiles(self, problem: Problem, gpu: Gpu) -> Tiles:
        """Those that a multiprocessor can hold."""
        from splat_numba.gen.targets.simt.tile_shapes import tiles_of

        return tiles_of(problem, gpu)

    def text_of(self, traits: Traits, gpu: Gpu) -> Text:
        """Compiled for this GPU."""
        from splat_numba.gen.targets.simt.schedule import attention_text

        return attention_text(traits, gpu)

    def record_pass(self, builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall) -> None:
        """Add the launch of one pass."""
        from splat_numba.gen.targets.simt.schedule import record_pass

        record_pass(builder, number, one, call)

    def plan_backward(self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
        """The plan of gradients of the least predicted time."""
        from splat_numba.gen.targets.gpu.gradient_plans import plan_twice
        from splat_numba.gen.targets.simt.backward.tile_shapes import gradient_tiles

        return plan_twice(self.name, geometry, problem, gpu, conditions, gradient_tiles)

    def record_backward(self, builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
        """One launch for what gradients need of every query, then one a pass."""
        from splat_numba.gen.targets.gpu.gradient_schedule import record_backward
        from splat_numba.gen.targets.simt.backward.schedule import TEXTS

        record_backward(builder, plans, call, TEXTS)


SIMT = SimtTarget()
