"""Plans of gradients: a search on the mask for dq, one on the transposed mask for dk and dv."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.backward import BackwardPlan
from splat_numba.gen.box_cost import Work
from splat_numba.gen.box_passes import BoxCandidate, search
from splat_numba.gen.boxes import Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice
from splat_numba.gen.problem import Conditions, Problem
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm90.backward.traits import KEYS, QUERIES
from splat_numba.gen.targets.sm90.cost import predict_work

DESIGN = Choice(
    "gradients", "two kernels that make the weights again",
    "seven matrix products a tile, nothing of the mask's size stored, each gradient with one owner, so bits repeat",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GradientTiles:
    """Hopper's tiles for the gradients of queries or keys. Raises PlanError for dims that no tile fits."""

    problem: Problem
    gpu: Gpu
    of: str

    @property
    def shapes(self) -> tuple[Traits, ...]:
        """Those that a multiprocessor can hold."""
        return candidates(self.problem, self.of, self.gpu)[0]

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        key, value = (-(-dim // 16) * 16 for dim in (traits.head_dim, traits.value_dim))
        dims = 2 * key + value if self.of == QUERIES else 2 * key + 2 * value
        return predict_work(work, traits, self.problem, self.gpu, dims)


def plan_backward(
    target: str, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions
) -> BackwardPlan:
    """The plan of the least predicted time. Raises PlanError where no tile shape fits the head dimensions."""
    queries, why_queries = _best(geometry, problem, gpu, QUERIES, conditions)
    # A key's queries may come in any order: lengths are of keys.
    keys, why_keys = _best(geometry.transposed(), problem.transposed(), gpu, KEYS, replace(conditions, ragged=False))
    runs = geometry.runs
    return BackwardPlan(
        problem, target, gpu, mask, queries.passes(), keys.passes(), bool((np.diff(runs.row_ptr) == 0).any()),
        queries.seconds + keys.seconds, (DESIGN, *why_queries, *why_keys), conditions,
    )  # fmt: skip


def _best(
    geometry: Geometry, problem: Problem, gpu: Gpu, of: str, conditions: Conditions
) -> tuple[BoxCandidate, tuple[Choice, ...]]:
    tiles = GradientTiles(problem, gpu, of)
    found = search(geometry.table, problem, tiles, ragged=conditions.ragged, negate=conditions.negate)
    (best,) = found.best(1)
    return best, tuple(replace(one, what=f"{one.what}, gradients of {of}") for one in found.reasons(best))
