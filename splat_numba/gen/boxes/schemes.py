"""Orders of rows that a mask suggests, and the passes that each takes: as they come, by residue, by step, on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sweep import distinct
from splat_numba.gen.boxes.order import FlatRuns, PlacedRuns, RowOrder, place_on_grid, place_runs
from splat_numba.gen.boxes.passes import GROUP_ROWS
from splat_numba.gen.plans.problem import Problem

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

GRID_WIDTHS = (8, 4096)
MOST_STEPS = 4  # steps that get a pass of their own
LEAST_MASS, LEAST_KEYS = 0.02, 4  # of all pairs, and on average a row: below, a step is not worth a pass
EXPLODED_BUDGET = 1 << 20  # keys taken one by one, where another order needs fewer: 100 ms


@dataclass(frozen=True, slots=True, eq=False)
class PassRuns:
    """Runs that one pass takes, in an order of rows; resumes, handed_on: a pass comes before it, or after."""

    order: RowOrder
    placed: PlacedRuns
    resumes: bool
    handed_on: bool


def schemes(runs: FlatRuns, problem: Problem, *, ragged: bool) -> dict[str, list[PassRuns]]:
    """Ways to take all runs, by name; each a list of passes of which the first visits every row."""
    shared = frozenset(int(step) for step in distinct(runs.step[runs.step > 1]) if _shared(runs, int(step)))
    own = _own_steps(runs, shared)
    keys: dict[str, int] = {}
    ways: dict[str, list[tuple[RowOrder, Bools, frozenset[int]]]] = {}

    def add(name: str, *parts: tuple[RowOrder, Bools, frozenset[int]]) -> None:
        ways[name] = [*parts]
        keys[name] = sum(_exploded(runs.take(chosen), lattices) for _, chosen, lattices in parts)

    everything = np.ones(runs.row.size, np.bool_)
    add("rows in order", (RowOrder(), everything, shared))
    for step in own:
        divisors = {one for one in own if step % one == 0}  # rows of one residue modulo 6 have one modulo 2
        add(f"rows by residue modulo {step}", (RowOrder(step), everything, shared | divisors))
    split = [(RowOrder(step), runs.step == step, frozenset({step})) for step in own]
    left = ~np.isin(runs.step, own)
    if left.any():
        split.insert(0, (RowOrder(), left, shared))
    if len(split) > 1:
        start = "rows in order, then " if left.any() else "rows "
        add(f"{start}by residue modulo {', then '.join(map(str, own))}", *split)
    least = min(keys.values())
    found = {
        name: [
            PassRuns(
                order,
                place_runs(runs.take(chosen), problem.seq_kv, lattices),
                resumes=number > 0,
                handed_on=number + 1 < len(parts),
            )
            for number, (order, chosen, lattices) in enumerate(parts)
        ]
        for name, parts in ways.items()
        if keys[name] <= max(EXPLODED_BUDGET, least)
    }
    width = 0 if ragged else grid_width(runs, problem.seq_q, problem.seq_kv)
    if width and _exploded(runs, frozenset()) <= EXPLODED_BUDGET:
        grid = place_on_grid(runs, problem.seq_kv, width)
        found[f"rows on a grid {width} wide"] = [PassRuns(RowOrder(width=width), grid, resumes=False, handed_on=False)]
    return found


def _shared(runs: FlatRuns, step: int) -> bool:
    """Whether 64 neighbouring rows need fewer keys on the lattices of this step than from their first to their last."""
    chosen = runs.take(runs.step == step)
    group = chosen.row // GROUP_ROWS
    places = _extent(group * step + chosen.residue, chosen.lo, chosen.hi)
    first, last = chosen.residue + step * chosen.lo, chosen.residue + step * (chosen.hi - 1)
    return 2 * places <= _extent(group, first, last + 1)


def _extent(owner: Ints, lo: Ints, hi: Ints) -> int:
    """Places from the least lo to the largest hi of every owner, added up."""
    order = np.argsort(owner, kind="stable")
    heads = np.flatnonzero(np.append(True, np.diff(owner[order])))
    return int((np.maximum.reduceat(hi[order], heads) - np.minimum.reduceat(lo[order], heads)).sum())


def _own_steps(runs: FlatRuns, shared: frozenset[int]) -> list[int]:
    """Steps worth an order of rows of their own, those of most pairs first."""
    steps, where = np.unique(runs.step, return_inverse=True)
    mass, entries = np.bincount(where, runs.kept), np.bincount(where)
    enough = (mass >= LEAST_MASS * mass.sum()) & (mass >= LEAST_KEYS * entries)
    found = [int(steps[k]) for k in np.argsort(-mass, kind="stable") if enough[k]]
    return [step for step in found if step > 1 and step not in shared][:MOST_STEPS]


def _exploded(runs: FlatRuns, lattices: frozenset[int]) -> int:
    """Keys that have to be taken one by one."""
    single = (runs.step > 1) & ~np.isin(runs.step, np.array(sorted(lattices), np.int64))
    return int(runs.kept[single].sum())


def grid_width(runs: FlatRuns, seq_q: int, seq_kv: int) -> int:
    """Distance between the starts of most neighbouring runs of a row, where both lengths are multiples; else 0."""
    dense = runs.take(runs.step == 1)
    order = np.lexsort((dense.lo, dense.row))
    row, lo = dense.row[order], dense.lo[order]
    distance = np.diff(lo)[row[1:] == row[:-1]]
    if not distance.size:
        return 0
    widths, count = np.unique(distance, return_counts=True)
    width = int(widths[count.argmax()])
    common = 2 * int(count.max()) >= distance.size and GRID_WIDTHS[0] <= width <= GRID_WIDTHS[1]
    return width if common and seq_q % width == 0 and seq_kv % width == 0 else 0
