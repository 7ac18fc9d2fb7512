"""Plans of box passes: the search's best candidate, with counted work and the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.box_cost import Work, count_box_pass, work_of_dense, work_of_pass
from splat_numba.gen.box_passes import BoxCandidate, Search, search
from splat_numba.gen.boxes import BoxPass, Traits
from splat_numba.gen.cost import Count
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice, Cost, Plan, dense_choice
from splat_numba.gen.problem import Conditions, Problem
from splat_numba.gen.targets.sm90.cost import predict_work, product_dims
from splat_numba.gen.targets.sm90.tile_shapes import candidates as tile_shapes


@dataclass(frozen=True, slots=True)
class Sm90Tiles:
    """Hopper's tiles for one problem. Raises PlanError for other than 16-bit types, or dims that no tile fits."""

    problem: Problem
    gpu: Gpu

    @property
    def shapes(self) -> tuple[Traits, ...]:
        """Those that a multiprocessor can hold."""
        return tile_shapes(self.problem, self.gpu)

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        return predict_work(work, traits, self.problem, self.gpu, product_dims(traits))


def plan(target: str, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions) -> Plan:
    """The plan of the least predicted time. Raises PlanError where no tile shape fits the head dimensions."""
    found = _search(geometry, problem, gpu, conditions)
    (best,) = found.best(1)
    reasons = found.reasons(best)
    return plan_of(target, best, geometry, problem, gpu, mask, conditions, reasons)


def candidates(
    geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, most: int
) -> tuple[BoxCandidate, ...]:
    """The ways to run a problem that are predicted to be fastest, fastest first, at most so many."""
    found = search(
        geometry.table, problem, Sm90Tiles(problem, gpu), ragged=conditions.ragged, negate=conditions.negate, most=most
    )
    return found.best(most)


def _search(geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, most: int = 1) -> Search:
    tiles = Sm90Tiles(problem, gpu)
    return search(geometry.table, problem, tiles, ragged=conditions.ragged, negate=conditions.negate, most=most)


def plan_of(
    target: str, candidate: BoxCandidate, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str,
    conditions: Conditions, reasons: Sequence[Choice],
) -> Plan:  # fmt: skip
    """The plan that a candidate stands for. reasons: why it was chosen."""
    passes = candidate.passes()
    cost = _cost(passes, Sm90Tiles(problem, gpu))
    bands, choices = len(geometry.table.step), (*reasons, dense_choice(cost))
    return Plan(
        problem, target, gpu, geometry.label, mask, bands, passes, True, cost, choices, problem.dtype, conditions
    )


def _cost(passes: Sequence[BoxPass], tiles: Sm90Tiles) -> Cost:
    total, seconds, problem = Count(), 0.0, tiles.problem
    for one in passes:
        total += count_box_pass(one)
        seconds += tiles.seconds(work_of_pass(one), one.traits)
    dense = (tiles.seconds(work_of_dense(one, problem.seq_q, problem.seq_kv), one) for one in tiles.shapes)
    return Cost(total.kept, total.area, total.blocks, total.tiles, total.full, seconds, min(dense), total.exact)
