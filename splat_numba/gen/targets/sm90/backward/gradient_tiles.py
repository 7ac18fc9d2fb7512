"""What the search for tiles asks of Hopper about gradients."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.backward import QUERIES
from splat_numba.gen.box_cost import Work
from splat_numba.gen.boxes import Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm90.cost import predict_work


@dataclass(frozen=True, slots=True)
class GradientTiles:
    """Hopper's tiles for the gradients of queries or keys. Raises PlanError for dims that no tile fits.

    width: that their right sides must have, 0 for any; perhaps none has it.
    """

    problem: Problem
    gpu: Gpu
    of: str
    width: int = 0

    @property
    def shapes(self) -> tuple[Traits, ...]:
        """Those that a multiprocessor can hold."""
        found = candidates(self.problem, self.of, self.gpu)[0]
        return tuple(one for one in found if self.width in {0, one.tile_kv})

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        key, value = (-(-dim // 16) * 16 for dim in (traits.head_dim, traits.value_dim))
        dims = 2 * key + value if self.of == QUERIES else 2 * key + 2 * value
        return predict_work(work, traits, self.problem, self.gpu, dims)
