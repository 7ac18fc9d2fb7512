"""From geometry to plan: passes with their tile sizes, counted work, and the reason for each choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from splat_numba.formats.bounds import END, Const
from splat_numba.formats.closed_form import Edge, Lattice
from splat_numba.formats.geometry import Geometry
from splat_numba.gen.closed_passes import closed_passes, covers_all_rows
from splat_numba.gen.cost import Count, count_pass, predict
from splat_numba.gen.machine import Machine
from splat_numba.gen.plan import Choice, ClosedPass, Cost, Pass, Plan, Segment
from splat_numba.gen.problem import Problem
from splat_numba.gen.table_passes import table_passes


def make_plan(geometry: Geometry, problem: Problem, machine: Machine, mask: str, target: str = "cpu") -> Plan:
    """The plan of ``problem`` for a mask of this geometry. mask: its description, in words for people.

    Raises PlanError where no tile size suits the machine.
    """
    passes: Sequence[Pass]
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


def _label(mask: str) -> str:
    """Names of the constructors in a pattern's text, for file names."""
    return "_".join(re.findall(r"[a-z_]+(?=\()", mask.replace(".align_end()", "")))[:40] or "mask"


def _cost(passes: Sequence[Pass], problem: Problem, machine: Machine) -> Cost:
    total, seconds = Count(), 0.0 if passes else predict(Count(), problem, machine, 1)
    for one in passes:
        count = count_pass(one, problem.seq_q, problem.seq_kv)
        seconds += predict(count, problem, machine, one.tile_q, resumes=one.resumes)
        total += count
    dense = ClosedPass(Edge(0), None, 1, (Segment(Lattice(), Const(0), END),), 64, 64, resumes=False)
    dense_count = count_pass(dense, problem.seq_q, problem.seq_kv, sampled=True)
    dense_seconds = predict(dense_count, problem, machine, 64)
    return Cost(total.kept, total.area, total.blocks, total.tiles, total.full, seconds, dense_seconds)


def _dense_choice(cost: Cost) -> Choice:
    ratio = cost.dense_seconds / cost.seconds
    verdict = f"predicted {ratio:.2f}x as fast as dense attention of the same shapes"
    if ratio < 1.1:
        verdict += ": dense attention would be as fast"
    return Choice("sparse or dense", "sparse", verdict)
