"""Its tiles as the search for plans asks for them."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.box_cost import Work
from splat_numba.gen.boxes import Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.sm80.cost import predict_work
from splat_numba.gen.targets.sm80.tile_shapes import candidates as tile_shapes


@dataclass(frozen=True, slots=True)
class Sm80Tiles:
    """The tiles for one problem. Raises PlanError for dims that no tile fits."""

    problem: Problem
    gpu: Gpu

    @property
    def shapes(self) -> tuple[Traits, ...]:
        """Those that a multiprocessor can hold."""
        return tile_shapes(self.problem, self.gpu)

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        return predict_work(work, traits, self.problem, self.gpu)
