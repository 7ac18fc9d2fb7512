"""Whether attention on a CPU is one kernel, or the packed operators one after the other."""

from __future__ import annotations

from dataclasses import replace

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.packed.groups import GroupTable
from splat_numba.gen.packed.problem import PackedProblem, RunTable
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import FUSED, FUSED_OR_NOT, UNFUSED, Choice, Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.rows.cost import predict_packed
from splat_numba.gen.targets.cpu.packed_plan import SHARED_WORTH, keys_to_share, rows_to_share
from splat_numba.plain import duration, memory_size

WORTH = 0.7  # of the fused kernel's predicted time, at most, since values take memory and predictions err


def decide_fused(plan: Plan, geometry: Geometry) -> Plan:
    """The plan with the decision and the reason for it. A mask in closed form is fused: its memory does not grow with
    the pairs, and one text serves every length.
    """
    problem, cost = plan.problem, plan.cost
    share = 0.0 if plan.closed else _shared_part(geometry, problem, plan.cpu)
    seconds = predict_packed(cost.kept, share, problem, plan.cpu)
    values = cost.kept * problem.batch * problem.heads_q * ITEMSIZE[problem.compute_dtype]
    one = f"predicted {duration(cost.seconds)}, fill {cost.fill:.0%}"
    several = f"predicted {duration(seconds)}, with {memory_size(values)} of values in between"
    if plan.closed:
        one += "; closed forms stay so, and keep nothing of the mask's size"
    if plan.closed or seconds > WORTH * cost.seconds:
        choice = Choice(FUSED_OR_NOT, FUSED, one, ((UNFUSED, several),))
    else:
        choice = Choice(FUSED_OR_NOT, UNFUSED, several, ((FUSED, one),))
    return replace(plan, choices=(*plan.choices, choice), fused=choice.chosen == FUSED)


def _shared_part(geometry: Geometry, problem: Problem, machine: Machine) -> float:
    """Of the pairs, those whose keys groups of rows load once, if the packed operators' plan would group rows."""
    packed = PackedProblem("sddmm", problem.compute_dtype, problem.batch, problem.heads_q, problem.head_dim)
    table = RunTable.from_runs(geometry.runs)
    share = GroupTable.of(table, rows_to_share(packed, machine), keys_to_share(packed, machine)).share
    return share if share >= SHARED_WORTH else 0.0
