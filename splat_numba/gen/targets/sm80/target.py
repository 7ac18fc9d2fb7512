"""GPUs from Ampere on as a target: attention and gradients of 16 bits and of float32, by a warp's matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from splat_numba.gen.plans.machine import GPU, SHARED_BYTES, Gpu
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

FIRST = (8, 0)  # the capability that brought cp.async, and 16-bit products of depth 16 in both formats


@dataclass(frozen=True, slots=True)
class Sm80Target(BoxTarget):
    """A text is compiled for the GPU that its plan is made for; its source is the same for all."""

    name: str = "sm80"
    kind: str = GPU
    generation: str = "Ampere and later"
    capabilities: frozenset[tuple[int, int]] = frozenset(one for one in SHARED_BYTES if one >= FIRST)

    def refusal(self, problem: Problem) -> str | None:
        """Its products take numbers of 16 and 32 bits; every chip has a tile for heads up to 256."""
        if problem.dtype != "float64":
            return None
        return (
            f"wanted as float16, bfloat16 or float32 for target {self.name!r}, got {problem.dtype}. "
            "Leave target out, or convert it."
        )

    def gives_way(self, problem: Problem, gpu: Gpu) -> str | None:
        """float32 on chips whose products of TF32 are no faster than their FMA units, and where no tile fits."""
        from splat_numba.gen.targets.sm80.cost import slower_than_fma
        from splat_numba.gen.targets.sm80.tile_shapes import no_tile

        if problem.dtype != "float32":
            return None
        return no_tile(problem, gpu) or slower_than_fma(problem, gpu)

    def tiles(self, problem: Problem, gpu: Gpu) -> Tiles:
        """Those that a multiprocessor can hold."""
        from splat_numba.gen.targets.sm80.tile_shapes import tiles_of

        return tiles_of(problem, gpu)

    def text_of(self, traits: Traits, gpu: Gpu) -> Text:
        """Compiled for this GPU."""
        from splat_numba.gen.targets.sm80.schedule import attention_text

        return attention_text(traits, gpu)

    def record_pass(self, builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall) -> None:
        """Add the launch of one pass."""
        from splat_numba.gen.targets.sm80.schedule import record_pass

        record_pass(builder, number, one, call)

    def plan_backward(self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
        """The plan of gradients of the least predicted time."""
        from splat_numba.gen.targets.sm80.backward.planning import plan_backward

        return plan_backward(self.name, geometry, problem, gpu, conditions)

    def record_backward(self, builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
        """One launch for what gradients need of every query, then one a pass."""
        from splat_numba.gen.targets.gpu.gradient_schedule import record_backward
        from splat_numba.gen.targets.sm80.backward.schedule import TEXTS, TEXTS_OF_REALS

        record_backward(builder, plans, call, TEXTS_OF_REALS if call.q.dtype == "float32" else TEXTS)


SM80 = Sm80Target()
