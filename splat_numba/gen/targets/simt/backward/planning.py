"""Plans of gradients: a search on the mask for dq, one on the transposed mask for dk and dv."""

from __future__ import annotations

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.plans.backward import BackwardPlan
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.gpu.gradient_plans import plan_twice
from splat_numba.gen.targets.simt.backward.tile_shapes import gradient_tiles


def plan_backward(target: str, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
    """The plan of the least predicted time. Raises PlanError where no tile shape fits the head dimensions."""
    return plan_twice(target, geometry, problem, gpu, conditions, gradient_tiles)
