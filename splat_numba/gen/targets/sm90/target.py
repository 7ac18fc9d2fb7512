"""Hopper as a target: tensor copies and warpgroup products, 16-bit inputs.

Planners and emitters are imported when they are first asked for: calls on a CPU see this value too, and would
wait 40 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from splat_numba.gen.machine import GPU, Gpu

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
class Sm90Target:
    """ "a" means that later GPUs may lack its instructions: it runs on capability 9.0 alone."""

    name: str = "sm_90a"
    kind: str = GPU
    generation: str = "Hopper"
    capabilities: frozenset[tuple[int, int]] = frozenset({(9, 0)})
    makes_gradients: bool = True

    def refusal(self, problem: Problem) -> str | None:
        """Its tensor cores take 16-bit inputs alone; dims that are too large are the plan's to refuse."""
        from splat_numba.gen.instructions import MATRIX_TYPE

        if problem.dtype in MATRIX_TYPE:
            return None
        return (
            f"wanted as float16 or bfloat16 for target {self.name!r}, got {problem.dtype}. "
            "Leave target out, or convert it."
        )

    def plan(self, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions) -> Plan:
        """The plan of the least predicted time."""
        from splat_numba.gen import box_plans
        from splat_numba.gen.targets.sm90.planning import Sm90Tiles

        return box_plans.plan(self.name, Sm90Tiles(problem, gpu), geometry, problem, gpu, mask, conditions)

    def candidates(
        self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, most: int
    ) -> tuple[Candidate, ...]:
        """Orders of rows with a tile shape for each pass."""
        from splat_numba.gen import box_plans
        from splat_numba.gen.targets.sm90.planning import Sm90Tiles

        return box_plans.candidates(Sm90Tiles(problem, gpu), geometry, problem, conditions, most)

    def plan_of(
        self, candidate: Candidate, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions,
        reasons: Sequence[Choice],
    ) -> Plan:  # fmt: skip
        """The plan of one of candidates()."""
        from splat_numba.gen import box_plans
        from splat_numba.gen.targets.sm90.planning import Sm90Tiles

        tiles = Sm90Tiles(problem, gpu)
        return box_plans.plan_of(self.name, tiles, candidate, geometry, problem, gpu, mask, conditions, reasons)

    def texts(self, plan: Plan) -> tuple[Text, ...]:
        """A text of each pass's traits."""
        from splat_numba.gen.boxes import BoxPass
        from splat_numba.gen.targets.sm90.schedule import attention_text

        return tuple(attention_text(one.traits) for one in plan.passes if isinstance(one, BoxPass))

    def in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """What the copy engine can describe, and where the last step's stores are aligned."""
        from splat_numba.gen.schedule import InPlace
        from splat_numba.gen.targets.sm90.schedule import store_bytes, writable_in_place
        from splat_numba.gen.targets.target import with_shared_heads
        from splat_numba.gen.tensor_map import ALIGNMENT, describable

        seen = with_shared_heads(tensors)
        rules = {name: InPlace(describable(0, seen[name]), ALIGNMENT) for name in ("q", "k", "v")}
        return {**rules, "out": InPlace(writable_in_place(0, seen["out"]), store_bytes(seen["out"]))}

    def plan_backward(self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
        """The plan of gradients of the least predicted time."""
        from splat_numba.gen.targets.sm90.backward.planning import plan_backward

        return plan_backward(self.name, geometry, problem, gpu, conditions)

    def backward_in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """As in_place(); rows of dout and out are read in whole words too."""
        from splat_numba.gen.backward import GRADIENTS
        from splat_numba.gen.schedule import InPlace
        from splat_numba.gen.targets.sm90.schedule import store_bytes, writable_in_place
        from splat_numba.gen.tensor_map import ALIGNMENT, describable

        whole = tensors["dout"].sizes[3] % 2 == 0
        rules = {name: InPlace(describable(0, tensors[name]), ALIGNMENT) for name in ("q", "k", "v")}
        rules |= {name: InPlace(whole and describable(0, tensors[name]), ALIGNMENT) for name in ("out", "dout")}
        for name in GRADIENTS:
            one = tensors.get(name)
            rules[name] = InPlace(True, 1) if one is None else InPlace(writable_in_place(0, one), store_bytes(one))
        return rules

    def record_backward(self, builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
        """One launch for what gradients need of every query, then one a pass, and one to round what several made."""
        from splat_numba.gen.targets.sm90.backward.schedule import record_backward

        record_backward(builder, plans, call)

    def record(self, builder: ScheduleBuilder, passes: Sequence[HeadsPass], call: AttentionCall) -> None:
        """One launch a pass."""
        from splat_numba.gen.targets.sm90.schedule import record_pass

        for number, one in enumerate(passes):
            record_pass(builder, number, one, call)


SM90 = Sm90Target()
