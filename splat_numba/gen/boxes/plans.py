"""Plans of box passes for any GPU target: the search's best candidate, with counted work and the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.boxes.cost import count_box_pass, work_of_dense, work_of_pass
from splat_numba.gen.boxes.passes import BoxPass
from splat_numba.gen.boxes.search import BoxCandidate, Search, search
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.plans.count import Count
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Choice, Cost, Plan, dense_choice
from splat_numba.gen.plans.problem import Conditions, Problem


def plan(
    target: str, tiles: Tiles, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions
) -> Plan:
    """The plan of the least predicted time, of a target's tiles for the problem. Raises PlanError where none fits."""
    found = _search(tiles, geometry, problem, conditions)
    (best,) = found.best(1)
    reasons = found.reasons(best)
    return plan_of(target, tiles, best, geometry, problem, gpu, mask, conditions, reasons)


def candidates(
    tiles: Tiles, geometry: Geometry, problem: Problem, conditions: Conditions, most: int
) -> tuple[BoxCandidate, ...]:
    """The ways to run a problem that are predicted to be fastest, fastest first, at most so many."""
    return _search(tiles, geometry, problem, conditions, most).best(most)


def _search(tiles: Tiles, geometry: Geometry, problem: Problem, conditions: Conditions, most: int = 1) -> Search:
    return search(geometry.table, problem, tiles, ragged=conditions.ragged, negate=conditions.negate, most=most)


def plan_of(
    target: str, tiles: Tiles, candidate: object, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str,
    conditions: Conditions, reasons: Sequence[Choice],
) -> Plan:  # fmt: skip
    """The plan that one of candidates() stands for. reasons: why it was chosen. Raises TypeError for another's."""
    if not isinstance(candidate, BoxCandidate):
        raise TypeError(candidate)
    passes = candidate.passes()
    cost = _cost(passes, tiles, problem)
    bands, choices = len(geometry.table.step), (*reasons, dense_choice(cost))
    return Plan(
        problem, target, gpu, geometry.label, mask, bands, passes, True, cost, choices, problem.dtype, conditions
    )


def _cost(passes: Sequence[BoxPass], tiles: Tiles, problem: Problem) -> Cost:
    total, seconds = Count(), 0.0
    for one in passes:
        total += count_box_pass(one)
        seconds += tiles.seconds(work_of_pass(one), one.traits)
    dense = (tiles.seconds(work_of_dense(one, problem.seq_q, problem.seq_kv), one) for one in tiles.shapes)
    return Cost(total.kept, total.area, total.blocks, total.tiles, total.full, seconds, min(dense), total.exact)
