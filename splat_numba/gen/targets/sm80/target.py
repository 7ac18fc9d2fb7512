"""GPUs from Ampere on as a target: 16-bit attention by a warp's matrix products. It makes no gradients yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from splat_numba.errors import BackendError
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

FIRST = (8, 0)  # the capability that brought cp.async, and 16-bit products of depth 16 in both formats


@dataclass(frozen=True, slots=True)
class Sm80Target:
    """A text is compiled for the GPU that its plan is made for; its source is the same for all."""

    name: str = "sm80"
    kind: str = GPU
    generation: str = "Ampere and later"
    capabilities: frozenset[tuple[int, int]] = frozenset(one for one in SHARED_BYTES if one >= FIRST)
    makes_gradients: bool = False

    def refusal(self, problem: Problem) -> str | None:
        """Its products take 16-bit inputs alone; every chip has a tile for heads up to 256."""
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
        from splat_numba.gen.targets.sm80.planning import Sm80Tiles

        return box_plans.plan(self.name, Sm80Tiles(problem, gpu), geometry, problem, gpu, mask, conditions)

    def candidates(
        self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, most: int
    ) -> tuple[Candidate, ...]:
        """Orders of rows with a tile shape for each pass."""
        from splat_numba.gen import box_plans
        from splat_numba.gen.targets.sm80.planning import Sm80Tiles

        return box_plans.candidates(Sm80Tiles(problem, gpu), geometry, problem, conditions, most)

    def plan_of(
        self, candidate: Candidate, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions,
        reasons: Sequence[Choice],
    ) -> Plan:  # fmt: skip
        """The plan of one of candidates()."""
        from splat_numba.gen import box_plans
        from splat_numba.gen.targets.sm80.planning import Sm80Tiles

        tiles = Sm80Tiles(problem, gpu)
        return box_plans.plan_of(self.name, tiles, candidate, geometry, problem, gpu, mask, conditions, reasons)

    def texts(self, plan: Plan) -> tuple[Text, ...]:
        """A text of each pass's traits."""
        from splat_numba.gen.boxes import BoxPass
        from splat_numba.gen.targets.sm80.schedule import attention_text

        gpu = gpu_of_plan(plan.machine)
        return tuple(attention_text(one.traits, gpu) for one in plan.passes if isinstance(one, BoxPass))

    def in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """Rows of whole chunks of 16 bytes."""
        from splat_numba.gen.targets.gpu.launches import chunks_in_place

        return chunks_in_place(tensors)

    def record(self, builder: ScheduleBuilder, passes: Sequence[HeadsPass], call: AttentionCall) -> None:
        """One launch a pass."""
        from splat_numba.gen.targets.sm80.schedule import record_pass

        for number, one in enumerate(passes):
            record_pass(builder, number, one, call)

    def plan_backward(self, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
        """None yet. Raises BackendError: targets.registry asks makes_gradients first."""
        raise no_gradients(self.name)

    def backward_in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, InPlace]:
        """Raises BackendError."""
        raise no_gradients(self.name)

    def record_backward(self, builder: ScheduleBuilder, plans: Sequence[HeadsPlan], call: GradientCall) -> None:
        """Raises BackendError."""
        raise no_gradients(self.name)


def no_gradients(name: str) -> BackendError:
    """For who asks this target for gradients."""
    return BackendError(f"gradients wanted of a target that makes them, got {name!r}. Leave target out.")


SM80 = Sm80Target()
