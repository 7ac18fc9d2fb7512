"""Hopper as a target: tensor copies and warpgroup products, 16-bit inputs.

Planners and emitters are imported when they are first asked for: calls on a CPU see this value too, and would
wait 40 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from splat_numba.gen.plans.machine import GPU, Gpu
from splat_numba.gen.targets.gpu.box_target import BoxTarget, refuse_wide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from splat_numba.formats.geometry import Geometry
    from splat_numba.gen.boxes.passes import Traits
    from splat_numba.gen.boxes.tiles import Tiles
    from splat_numba.gen.plans.backward import BackwardPlan
    from splat_numba.gen.plans.problem import Conditions, Problem
    from splat_numba.gen.schedules.schedule import InPlace, ScheduleBuilder, Text
    from splat_numba.gen.schedules.tensor import Tensor
    from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan
    from splat_numba.gen.targets.target import AttentionCall, HeadsPass


@dataclass(frozen=True, slots=True)
class Sm90Target(BoxTarget):
    """ "a" means that later GPUs may lack its instructions: it runs on capability 9.0 alone."""

    name: str = "sm_90a"
    kind: str = GPU
    generation: str = "Hopper"
    capabilities: frozenset[tuple[int, int]] = frozenset({(9, 0)})

    def refusal(self, problem: Problem) -> str | None:
        """Its tensor cores take 16-bit inputs alone; dims that are too large are the plan's to refuse."""
        return refuse_wide(self.name, problem)

    def tiles(self, problem: Problem, gpu: Gpu) -> Tiles:
        """Those that a multiprocessor can hold."""
        from splat_numba.gen.targets.sm90.tile_shapes import tiles_of

        return tiles_of(problem, gpu)

    def text_of(self, traits: Traits, gpu: Gpu) -> Text:
        """The same for every GPU that it is for."""
        from splat_numba.gen.targets.sm90.schedule import attention_text

        return attention_text(traits)

    def record_pass(self, builder: ScheduleBuilder, number: int, one: HeadsPass, call: AttentionCall) -> None:
        """Add the launch of one pass."""
        from splat_numba.gen.targets.sm90.schedule import record_pass

        record_pass(builder, number, one, call)

    def in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """What the copy engine can describe, and where the last step's stores are aligned."""
        from splat_numba.gen.schedules.schedule import InPlace
        from splat_numba.gen.schedules.tensor_map import ALIGNMENT, describable
        from splat_numba.gen.targets.sm90.schedule import store_bytes, writable_in_place
        from splat_numba.gen.targets.target import with_shared_heads

        seen = with_shared_heads(tensors)
        rules = {name: InPlace(describable(0, seen[name]), ALIGNMENT) for name in ("q", "k", "v")}
        return {**rules, "out": InPlace(writable_in_place(0, seen["out"]), store_bytes(seen["out"]))}

    def plan_backward(self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
        """The plan of gradients of the least predicted time."""
        from splat_numba.gen.targets.gpu.gradient_kept import plan_least
        from splat_numba.gen.targets.sm90.backward.kept import KEEPING
        from splat_numba.gen.targets.sm90.backward.tile_shapes import gradient_tiles

        return plan_least(self.name, geometry, problem, gpu, conditions, gradient_tiles, KEEPING)

    def backward_in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """As in_place(); rows of dout and out are read in whole words too."""
        from splat_numba.gen.plans.backward import GRADIENTS
        from splat_numba.gen.schedules.schedule import InPlace
        from splat_numba.gen.schedules.tensor_map import ALIGNMENT, describable
        from splat_numba.gen.targets.sm90.schedule import store_bytes, writable_in_place

        whole = tensors["dout"].sizes[3] % 2 == 0
        rules = {name: InPlace(describable(0, tensors[name]), ALIGNMENT) for name in ("q", "k", "v")}
        rules |= {name: InPlace(whole and describable(0, tensors[name]), ALIGNMENT) for name in ("out", "dout")}
        for name in GRADIENTS:
            one = tensors.get(name)
            rules[name] = InPlace(True, 1) if one is None else InPlace(writable_in_place(0, one), store_bytes(one))
        return rules

    def record_backward(self, builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
        """One launch for what gradients need of every query, then one a pass, and one to round what several made."""
        from splat_numba.gen.targets.gpu.gradient_schedule import record_backward
        from splat_numba.gen.targets.sm90.backward.schedule import TEXTS

        record_backward(builder, plans, call, TEXTS)


SM90 = Sm90Target()
