"""Plans of a CPU: passes with their tile sizes, counted work, and the reason for each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from splat_numba.formats.bounds import END, Const
from splat_numba.formats.closed_form import Edge, Lattice
from splat_numba.formats.geometry import Geometry
from splat_numba.gen.plans.backward import BackwardPlan
from splat_numba.gen.plans.count import Count
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import FUSED_OR_NOT, Choice, Cost, Plan, dense_choice
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.rows.closed import USUAL_TILE, closed_candidates, closed_passes, covers_all_rows
from splat_numba.gen.rows.cost import count_pass, predict
from splat_numba.gen.rows.passes import ClosedPass, CpuCandidate, Segment, TablePass
from splat_numba.gen.rows.tables import table_candidates, table_passes
from splat_numba.gen.targets.cpu.fused import decide_fused
from splat_numba.gen.targets.cpu.target import NUMBA_CPU


def plan(geometry: Geometry, problem: Problem, machine: Machine, mask: str) -> Plan:
    """The plan of ``problem`` for a mask of this geometry. mask: its description, in words for people.

    Raises PlanError where no tile size suits the machine.
    """
    passes: Sequence[ClosedPass | TablePass]
    if geometry.terms is not None:
        closed, choices, bands = closed_passes(geometry.terms, problem, machine)
        passes, covered = closed, covers_all_rows(closed)
    else:
        geometry.check_listed()  # a cover takes such places one by one, after a minute of making the table
        passes, choices, bands = table_passes(geometry.table, problem, machine)
        covered = True
    draft = Plan(
        problem, NUMBA_CPU.name, machine, geometry.label, mask, bands, (), covered, Cost(0, 0, 0, 0, 0, 0.0, 0.0), (),
        problem.dtype, Conditions(),
    )  # fmt: skip
    return decide_fused(_with_passes(draft, passes, choices, machine), geometry)


def candidates(geometry: Geometry, problem: Problem, machine: Machine, most: int) -> tuple[CpuCandidate, ...]:
    """The ways to run a problem that are predicted to be fastest, fastest first, at most so many.

    Raises PlanError as plan().
    """
    if geometry.terms is not None:
        found = closed_candidates(geometry.terms, problem, machine)  # in their order
    else:
        geometry.check_listed()
        found = sorted(table_candidates(geometry.table, problem, machine), key=lambda one: one.seconds)
    return tuple(found[:most])


def plan_of(candidate: CpuCandidate, predicted: Plan, reasons: Sequence[Choice]) -> Plan:
    """The plan that a candidate stands for. predicted: the one of the same problem; reasons: why it was chosen."""
    made = _with_passes(predicted, candidate.passes, reasons, predicted.cpu)
    return replace(made, choices=(*made.choices, *(one for one in predicted.choices if one.what == FUSED_OR_NOT)))


def _with_passes(
    draft: Plan, passes: Sequence[ClosedPass | TablePass], choices: Sequence[Choice], machine: Machine
) -> Plan:
    """The plan with these passes. Where none is known to visit every row, all resume what is written first."""
    problem = draft.problem
    taken = passes if draft.covered else [replace(one, resumes=True) for one in passes]
    cost = _cost(taken, problem, machine)
    # 16-bit results are kept in float32 between two passes, so rounded once.
    resumed = not draft.covered or any(one.resumes for one in taken)
    out_dtype = problem.compute_dtype if resumed else problem.dtype
    return replace(
        draft, passes=tuple(taken), cost=cost, choices=(*choices, dense_choice(cost)), out_dtype=out_dtype
    )  # fmt: skip


def backward_plan(forward: Plan, *, measured: bool = False) -> BackwardPlan:
    """Gradients of a plan's problem: its own passes make all three. measured: they were chosen for gradients, and the
    plan's first choice says how.
    """
    design = Choice(
        "gradients", "one kernel, five products a tile",
        "dq stays with its row block, dk and dv are added up for each work item, which owns a key head: bits repeat, "
        "and nothing of the mask's size is stored",
        (("passes over the transposed mask for dk and dv", "seven products a tile"),),
    )  # fmt: skip
    return BackwardPlan(
        forward.problem, NUMBA_CPU.name, forward.machine, forward.passes, (),
        (design, *forward.choices[:1]) if measured else (design,), forward.conditions,
    )  # fmt: skip


def _cost(passes: Sequence[ClosedPass | TablePass], problem: Problem, machine: Machine) -> Cost:
    total, seconds = Count(), 0.0 if passes else predict(Count(), problem, machine, 1)
    for one in passes:
        count = count_pass(one, problem.seq_q, problem.seq_kv)
        seconds += predict(count, problem, machine, one.tile_q, resumes=one.resumes)
        total += count
    dense = ClosedPass(Edge(0), None, 1, (Segment(Lattice(), Const(0), END),), USUAL_TILE, USUAL_TILE, resumes=False)
    dense_count = count_pass(dense, problem.seq_q, problem.seq_kv)
    dense_seconds = predict(dense_count, problem, machine, USUAL_TILE)
    return Cost(total.kept, total.area, total.blocks, total.tiles, total.full, seconds, dense_seconds, total.exact)
