"""Plans of box passes: the search's best candidate, with counted work and the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.box_cost import count_box_pass, predict_box, predict_dense
from splat_numba.gen.box_passes import BoxCandidate, search
from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.cost import Count
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice, Cost, Plan, dense_choice
from splat_numba.gen.problem import Conditions, Problem
from splat_numba.gen.targets.sm90.tile_shapes import candidates as tile_shapes


def plan(target: str, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, conditions: Conditions) -> Plan:
    """The plan of the least predicted time. Raises PlanError where no tile shape fits the head dimensions."""
    found = search(geometry.table, problem, gpu, ragged=conditions.ragged, negate=conditions.negate)
    (best,) = found.best(1)
    reasons = found.reasons(best)
    return plan_of(target, best, geometry, problem, gpu, mask, conditions, reasons)


def candidates(
    geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions, most: int
) -> tuple[BoxCandidate, ...]:
    """The ways to run a problem that are predicted to be fastest, fastest first, at most so many."""
    found = search(geometry.table, problem, gpu, ragged=conditions.ragged, negate=conditions.negate, most=most)
    return found.best(most)


def plan_of(
    target: str, candidate: BoxCandidate, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str,
    conditions: Conditions, reasons: Sequence[Choice],
) -> Plan:  # fmt: skip
    """The plan that a candidate stands for. reasons: why it was chosen."""
    passes = candidate.passes()
    cost = _cost(passes, problem, gpu)
    bands, choices = len(geometry.table.step), (*reasons, dense_choice(cost))
    return Plan(
        problem, target, gpu, geometry.label, mask, bands, passes, True, cost, choices, problem.dtype, conditions
    )


def _cost(passes: Sequence[BoxPass], problem: Problem, gpu: Gpu) -> Cost:
    total, seconds = Count(), 0.0
    for one in passes:
        total += count_box_pass(one)
        seconds += predict_box(one, problem, gpu)
    dense_seconds = min(predict_dense(traits, problem, gpu) for traits in tile_shapes(problem, gpu))
    return Cost(total.kept, total.area, total.blocks, total.tiles, total.full, seconds, dense_seconds, total.exact)
