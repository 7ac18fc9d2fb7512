"""Which design makes gradients: two kernels that both make slopes (dS), or one that keeps them for the other."""

from __future__ import annotations

from dataclasses import replace

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.plans.backward import BackwardPlan
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.gpu.gradient_plans import MADE_TWICE, plan_twice
from splat_numba.gen.targets.sm90.backward.kept import KEPT, Kept, plan_kept
from splat_numba.gen.targets.sm90.backward.tile_shapes import gradient_tiles
from splat_numba.plain import duration

LEAST_GAIN = 0.97  # what is kept takes memory


def plan_backward(target: str, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
    """The plan of the least predicted time. Raises PlanError where no tile shape fits the head dimensions."""
    twice = plan_twice(target, geometry, problem, gpu, conditions, gradient_tiles)
    kept = plan_kept(geometry.transposed(), problem, gpu, conditions)
    seconds = twice.seconds or 0.0
    if isinstance(kept, Kept) and faster(kept, seconds):
        choice = Choice("gradients", KEPT, kept.words, ((MADE_TWICE, f"predicted {duration(seconds)}"),))
        return replace(
            twice, queries=(kept.queries,), keys=(kept.keys,), choices=(choice, *kept.reasons), seconds=kept.seconds,
            keys_first=True, heads_at_once=kept.heads_at_once,
        )  # fmt: skip
    refused = kept.words if isinstance(kept, Kept) else kept
    choice = replace(twice.choices[0], refused=((KEPT, refused),))
    return replace(twice, choices=(choice, *twice.choices[1:]))


def faster(kept: Kept, twice: float) -> bool:
    """Whether slopes had better be kept than made again: memory has to be worth its while."""
    return kept.seconds < LEAST_GAIN * twice
