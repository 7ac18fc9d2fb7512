"""Plans of gradients: a search on the mask for dq, one on the transposed mask for dk and dv."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.backward import QUERIES, BackwardPlan
from splat_numba.gen.box_cost import Work
from splat_numba.gen.boxes import Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.problem import Conditions, Problem
from splat_numba.gen.targets.gpu.gradient_plans import plan_twice
from splat_numba.gen.targets.simt.backward.tile_shapes import candidates
from splat_numba.gen.targets.simt.cost import predict_work


@dataclass(frozen=True, slots=True)
class GradientTiles:
    """The tiles for the gradients of queries or keys. Raises PlanError for dims that no tile fits."""

    problem: Problem
    gpu: Gpu
    of: str

    @property
    def shapes(self) -> tuple[Traits, ...]:
        """Those that a multiprocessor can hold."""
        return candidates(self.problem, self.of, self.gpu)[0]

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        key, value = traits.head_dim, traits.value_dim
        dims = 2 * key + value if self.of == QUERIES else 2 * key + 2 * value
        return predict_work(work, traits, self.problem, self.gpu, dims)


def plan_backward(target: str, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
    """The plan of the least predicted time. Raises PlanError where no tile shape fits the head dimensions."""
    return plan_twice(
        target, geometry, problem, gpu, conditions, lambda problem, of: GradientTiles(problem, gpu, of)
    )  # fmt: skip
