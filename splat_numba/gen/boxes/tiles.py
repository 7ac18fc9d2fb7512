"""Tiles: what the search for passes over boxes asks of a target about one problem, as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from splat_numba.gen.boxes.cost import Work
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem

Cost = Callable[[Work, Traits, Problem, Gpu, int], float]
"""Seconds that a pass's work takes, for all heads and batch entries; the last is the multiply-adds for a pair."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """shapes: of tiles worth trying, those of equal groups together, tile_kv ascending; a search wants one at least.
    cost: of the target; dims: multiply-adds for a pair of a tile, of what the pass makes.
    """

    problem: Problem
    gpu: Gpu
    shapes: tuple[Traits, ...]
    cost: Cost
    dims: Callable[[Traits], int]

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        return self.cost(work, traits, self.problem, self.gpu, self.dims(traits))
