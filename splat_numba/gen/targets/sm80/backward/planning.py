"""Plans of gradients: two kernels that both make slopes (dS), or one that keeps them for the other."""

from __future__ import annotations

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.plans.backward import BackwardPlan
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.gpu.gradient_kept import plan_least
from splat_numba.gen.targets.gpu.gradient_plans import plan_twice
from splat_numba.gen.targets.sm80.backward.kept import KEEPING
from splat_numba.gen.targets.sm80.backward.tile_shapes import gradient_tiles


def plan_backward(target: str, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
    """The plan of the least predicted time; of float32 slopes are not kept, whose images are of 16 bits. Raises
    PlanError where no tile shape fits the head dimensions.
    """
    if problem.dtype == "float32":
        return plan_twice(target, geometry, problem, gpu, conditions, gradient_tiles)
    return plan_least(target, geometry, problem, gpu, conditions, gradient_tiles, KEEPING)
