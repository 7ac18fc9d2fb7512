"""The plan for one mask on a machine of any kind, remembered."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from splat_numba.arguments.masks import Stored, planned_mask
from splat_numba.formats.geometry import geometry
from splat_numba.gen.plans.machine import Gpu, Machine
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.registry import choose_target
from splat_numba.runtime.recent import REMEMBERED


@lru_cache(maxsize=REMEMBERED)
def plan_for(
    mask: Stored, problem: Problem, machine: Machine | Gpu, request: str | None, conditions: Conditions
) -> Plan:
    """The plan for one mask, remembered. request: the argument ``target``.

    Raises ArgumentTypeError where no target takes the problem's dtype, PlanError for dims that are too large.
    """
    target, why = choose_target(request, problem, machine)
    found = geometry(mask, problem.seq_q, problem.seq_kv)
    plan = target.plan(found, problem, machine, planned_mask(mask), conditions)
    return replace(plan, choices=(why, *plan.choices))
