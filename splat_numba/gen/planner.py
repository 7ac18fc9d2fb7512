"""From geometry to plan: passes with their tile sizes, counted work, and the reason for each choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from splat_numba.formats.bounds import END, Const
from splat_numba.formats.closed_form import Edge, Lattice
from splat_numba.formats.geometry import Geometry
from splat_numba.gen.box_cost import count_box_pass, predict_box, predict_dense
from splat_numba.gen.box_passes import Candidate, search
from splat_numba.gen.box_shapes import candidates
from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.closed_passes import closed_passes, covers_all_rows
from splat_numba.gen.cost import Count, count_pass, predict
from splat_numba.gen.machine import Gpu, Machine
from splat_numba.gen.plan import Choice, ClosedPass, Cost, Plan, Segment, TablePass
from splat_numba.gen.problem import Problem
from splat_numba.gen.table_passes import table_passes


def make_plan(
    geometry: Geometry,
    problem: Problem,
    machine: Machine | Gpu,
    mask: str,
    target: str = "cpu",
    *,
    ragged: bool = False,
    negate: bool = False,
) -> Plan:
    """The plan of ``problem`` for a mask of this geometry. mask: its description, in words for people.

    target: of a CPU; a Gpu names its own. ragged: key lengths differ between batch entries; negate: the scale is
    negative; both matter on a Gpu only. Raises PlanError where no tile size suits the machine, or a Gpu the dtype.
    """
    if isinstance(machine, Gpu):
        found = search(geometry.table, problem, machine, ragged=ragged, negate=negate)
        (best,) = found.best(1)
        return plan_candidate(best, geometry, problem, machine, mask, found.reasons(best))
    passes: Sequence[ClosedPass | TablePass]
    if geometry.terms is not None:
        closed, choices, bands = closed_passes(geometry.terms, problem, machine)
        covered = covers_all_rows(closed)
        passes = closed if covered else [replace(one, resumes=True) for one in closed]
    else:
        passes, choices, bands = table_passes(geometry.table, problem, machine)
        covered = True
    cost = _cost(passes, problem, machine)
    label = _label(mask) if geometry.terms is not None else "table"
    choices = [*choices, _dense_choice(cost)]
    return Plan(problem, target, machine, label, mask, bands, tuple(passes), covered, cost, tuple(choices))


def gpu_candidates(
    geometry: Geometry, problem: Problem, gpu: Gpu, *, ragged: bool = False, negate: bool = False, most: int
) -> tuple[Candidate, ...]:
    """The ways to run a problem that are predicted to be fastest, fastest first, at most so many. As make_plan()."""
    return search(geometry.table, problem, gpu, ragged=ragged, negate=negate, most=most).best(most)


def plan_candidate(
    candidate: Candidate, geometry: Geometry, problem: Problem, gpu: Gpu, mask: str, reasons: Sequence[Choice]
) -> Plan:
    """The plan that a candidate stands for. reasons: why it was chosen."""
    passes = candidate.passes()
    cost = _gpu_cost(passes, problem, gpu)
    label = _label(mask) if geometry.terms is not None else "table"
    bands, choices = len(geometry.table.step), (*reasons, _dense_choice(cost))
    return Plan(problem, gpu.name, gpu, label, mask, bands, passes, True, cost, choices)


def _gpu_cost(passes: Sequence[BoxPass], problem: Problem, gpu: Gpu) -> Cost:
    total, seconds = Count(), 0.0
    for one in passes:
        total += count_box_pass(one)
        seconds += predict_box(one, problem, gpu)
    dense_seconds = min(predict_dense(traits, problem, gpu) for traits in candidates(problem, gpu))
    return Cost(total.kept, total.area, total.blocks, total.tiles, total.full, seconds, dense_seconds, total.exact)


def _label(mask: str) -> str:
    """Names of the constructors in a pattern's text, for file names."""
    return "_".join(re.findall(r"[a-z_]+(?=\()", mask.replace(".align_end()", "")))[:40] or "mask"


def _cost(passes: Sequence[ClosedPass | TablePass], problem: Problem, machine: Machine) -> Cost:
    total, seconds = Count(), 0.0 if passes else predict(Count(), problem, machine, 1)
    for one in passes:
        count = count_pass(one, problem.seq_q, problem.seq_kv)
        seconds += predict(count, problem, machine, one.tile_q, resumes=one.resumes)
        total += count
    dense = ClosedPass(Edge(0), None, 1, (Segment(Lattice(), Const(0), END),), 64, 64, resumes=False)
    dense_count = count_pass(dense, problem.seq_q, problem.seq_kv)
    dense_seconds = predict(dense_count, problem, machine, 64)
    return Cost(total.kept, total.area, total.blocks, total.tiles, total.full, seconds, dense_seconds, total.exact)


def _dense_choice(cost: Cost) -> Choice:
    ratio = cost.dense_seconds / cost.seconds
    verdict = f"predicted {ratio:.2f}x as fast as dense attention of the same shapes"
    if ratio < 1.1:
        verdict += ": dense attention would be as fast"
    return Choice("sparse or dense", "sparse", verdict)
