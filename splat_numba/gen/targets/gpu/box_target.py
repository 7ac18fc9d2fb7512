"""What targets share whose passes are of boxes: how their plans are made, and that each pass is a launch over arrays
that are taken in place where they can be.

Planners and emitters are imported when they are first asked for: calls on a CPU see targets too, and would wait 40 ms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from splat_numba.gen.plans.machine import gpu_of_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from splat_numba.formats.geometry import Geometry
    from splat_numba.gen.boxes.passes import Traits
    from splat_numba.gen.boxes.tiles import Tiles
    from splat_numba.gen.plans.machine import Gpu
    from splat_numba.gen.plans.plan import Choice, Plan
    from splat_numba.gen.plans.problem import Conditions, Problem
    from splat_numba.gen.schedules.schedule import InPlace, ScheduleBuilder, Text
    from splat_numba.gen.schedules.tensor import Tensor
    from splat_numba.gen.targets.target import AttentionCall, Candidate, HeadsPass


class BoxTarget:
    """Its subclasses say which tiles there are, which text has given traits, how a pass is recorded; and where a text
    does not read by address, which arrays it takes in place.
    """

    __slots__ = ()
    name: str
    capabilities: frozenset[tuple[int, int]]

    def runs_on(self, problem: Problem) -> frozenset[tuple[int, int]]:
        """Its GPUs, whatever the dtype."""
        return self.capabilities

    def gives_way(self, problem: Problem, gpu: Gpu) -> str | None:
        """It takes what it can."""
        return None

    def tiles(self, problem: Problem, gpu: Gpu) -> Tiles:
        """The tiles for one problem."""
        raise NotImplementedError

    def text_of(self, traits: Traits, gpu: Gpu) -> Text:
        """The text of a pass with these traits."""
        raise NotImplementedError

    def record_pass(self, builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall) -> None:
        """Add the launch of one pass."""
        raise NotImplementedError

    def in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """Rows of whole chunks of 16 bytes, as texts read them by address."""
        from splat_numba.gen.targets.gpu.launches import chunks_in_place

        return chunks_in_place(tensors)

    def backward_in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """As in_place()."""
        from splat_numba.gen.targets.gpu.launches import gradients_in_place

        return gradients_in_place(tensors)

    def plan(self, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions) -> Plan:
        """The plan of the least predicted time."""
        from splat_numba.gen.boxes import plans as box_plans

        return box_plans.plan(self.name, self.tiles(problem, gpu), geometry, problem, gpu, mask, conditions)

    def candidates(
        self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, most: int
    ) -> tuple[Candidate, ...]:
        """Orders of rows with a tile shape for each pass."""
        from splat_numba.gen.boxes import plans as box_plans

        return box_plans.candidates(self.tiles(problem, gpu), geometry, problem, conditions, most)

    def plan_of(
        self, candidate: Candidate, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions,
        reasons: Sequence[Choice],
    ) -> Plan:  # fmt: skip
        """The plan of one of candidates()."""
        from splat_numba.gen.boxes import plans as box_plans

        tiles = self.tiles(problem, gpu)
        return box_plans.plan_of(self.name, tiles, candidate, geometry, problem, gpu, mask, conditions, reasons)

    def texts(self, plan: Plan) -> tuple[Text, ...]:
        """A text of each pass's traits."""
        from splat_numba.gen.boxes.passes import BoxPass

        gpu = gpu_of_plan(plan.machine)
        return tuple(self.text_of(one.traits, gpu) for one in plan.passes if isinstance(one, BoxPass))

    def record(self, builder: ScheduleBuilder, passes: Sequence[HeadsPass], call: AttentionCall) -> None:
        """One launch a pass; with memory for what rounding takes off between two of them."""
        from splat_numba.gen.targets.gpu.launches import rest_bytes

        if nbytes := max((rest_bytes(one, call) for one in passes), default=0):
            call = replace(call, rest=builder.scratch(nbytes))
        for number, one in enumerate(passes):
            self.record_pass(builder, number, one, call)


def refuse_wide(name: str, problem: Problem) -> str | None:
    """Why a target whose tensor cores take 16-bit inputs alone does not take a problem; of dims the plan says so."""
    from splat_numba.gen.language.instructions import MATRIX_TYPE

    if problem.dtype in MATRIX_TYPE:
        return None
    return f"wanted as float16 or bfloat16 for target {name!r}, got {problem.dtype}. Leave target out, or convert it."
