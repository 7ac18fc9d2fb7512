"""Plans of gradients: a search on the mask for dq, one on the transposed mask for dk and dv."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.backward import BackwardPlan
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice
from splat_numba.gen.problem import Conditions, Problem
from splat_numba.gen.targets.sm90.backward.gradient_tiles import best
from splat_numba.gen.targets.sm90.backward.kept import KEPT, Kept, plan_kept
from splat_numba.gen.targets.sm90.backward.traits import KEYS, QUERIES
from splat_numba.plain import duration

MADE_TWICE = "two kernels that both make the weights again"
LEAST_GAIN = 0.97
WHY_TWICE = (
    "seven products a tile, nothing of the mask's size stored, each gradient with one owner, so that bits repeat"
)


def plan_backward(target: str, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
    """The plan of the least predicted time. Raises PlanError where no tile shape fits the head dimensions."""
    queries, why_queries = best(geometry, problem, gpu, QUERIES, conditions)
    # A key's queries may come in any order: lengths are of keys.
    turned = replace(conditions, ragged=False)
    transposed = geometry.transposed()
    keys, why_keys = best(transposed, problem.transposed(), gpu, KEYS, turned)
    twice = queries.seconds + keys.seconds
    kept = plan_kept(transposed, problem, gpu, conditions)
    empty = bool((np.diff(geometry.runs.row_ptr) == 0).any())
    if isinstance(kept, Kept) and faster(kept, twice):
        choice = Choice("gradients", KEPT, kept.words, ((MADE_TWICE, f"predicted {duration(twice)}"),))
        return BackwardPlan(
            problem, target, gpu, (kept.queries,), (kept.keys,), (choice, *kept.reasons), conditions, empty,
            kept.seconds, keys_first=True, heads_at_once=kept.heads_at_once,
        )  # fmt: skip
    refused = kept.words if isinstance(kept, Kept) else kept
    choice = Choice("gradients", MADE_TWICE, f"{WHY_TWICE}; predicted {duration(twice)}", ((KEPT, refused),))
    return BackwardPlan(
        problem, target, gpu, queries.passes(), keys.passes(), (choice, *why_queries, *why_keys), conditions, empty,
        twice,
    )  # fmt: skip


def faster(kept: Kept, twice: float) -> bool:
    """Whether slopes had better be kept than made again: memory has to be worth its while."""
    return kept.seconds < LEAST_GAIN * twice
