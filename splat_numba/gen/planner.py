"""From geometry to plan: passes, tile sizes, and the reason for each choice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import PlanError
from splat_numba.formats.bounds import END, Const
from splat_numba.formats.closed_form import Edge, Lattice, Term
from splat_numba.formats.geometry import BandTable, Geometry
from splat_numba.gen.cost import Count, count_pass, predict
from splat_numba.gen.cover import lattice_cover, natural_cover
from splat_numba.gen.machine import Machine
from splat_numba.gen.plan import Choice, ClosedPass, Cost, Pass, Plan, Segment, TablePass, TileTable
from splat_numba.gen.problem import Problem

TILES_Q = (16, 32, 64, 128)
TILES_KV = (32, 64, 128)
TABLE_TILES_Q = (16, 32, 64)  # a lane's place in a table is a bit of 64
WORD_BITS = 64


def make_plan(geometry: Geometry, problem: Problem, machine: Machine, mask: str, target: str = "cpu") -> Plan:
    """The plan of ``problem`` for a mask of this geometry. mask: its description, in words for people.

    Raises PlanError where no tile size suits the machine.
    """
    if geometry.terms is not None:
        passes, choices, bands = _closed_passes(geometry.terms, problem, machine)
        covered = _covered(passes)
        if not covered:
            passes = [replace(one, resumes=True) for one in passes]
    else:
        passes, choices, bands = _table_passes(geometry.table, problem, machine)
        covered = True
    cost = _cost(passes, problem, machine)
    label = _label(mask) if geometry.terms is not None else "table"
    choices = [*choices, _dense_choice(cost)]
    return Plan(problem, target, machine, label, mask, bands, tuple(passes), covered, cost, tuple(choices))


def _label(mask: str) -> str:
    """Names of the constructors in a pattern's text, for file names."""
    return "_".join(re.findall(r"[a-z_]+(?=\()", mask.replace(".align_end()", "")))[:40] or "mask"


def _cost(passes: Iterable[Pass], problem: Problem, machine: Machine) -> Cost:
    total, seconds = Count(), 0.0
    for one in passes:
        count = count_pass(one, problem.seq_q, problem.seq_kv)
        seconds += predict(count, problem, machine, one.tile_q, resumes=one.resumes)
        total += count
    dense = ClosedPass(Edge(0), None, 1, (Segment(Lattice(), Const(0), END),), 64, 64, resumes=False)
    dense_count = count_pass(dense, problem.seq_q, problem.seq_kv, sampled=True)
    dense_seconds = predict(dense_count, problem, machine, 64)
    return Cost(total.kept, total.area, total.blocks, total.tiles, total.full, seconds, dense_seconds)


def _dense_choice(cost: Cost) -> Choice:
    ratio = cost.dense_seconds / cost.seconds if cost.seconds else 1.0
    verdict = f"predicted {ratio:.2f}x as fast as dense attention of the same shapes"
    if ratio < 1.1:
        verdict += ": dense attention would be as fast"
    return Choice("sparse or dense", "sparse", verdict)


# --- closed form ------------------------------------------------------------------------------------------------


def _closed_passes(
    terms: tuple[Term, ...], problem: Problem, machine: Machine
) -> tuple[list[ClosedPass], list[Choice], int]:
    """One pass for every row range and row step: bands over the same row blocks share the pass."""
    groups: dict[tuple[Edge, Edge | None, int], list[Segment]] = {}
    for term in terms:
        row_step = term.lattice.step if term.lattice.diagonal else 1
        groups.setdefault((term.row_lo, term.row_hi, row_step), []).append(Segment(term.lattice, term.lo, term.hi))
    passes: list[ClosedPass] = []
    choices: list[Choice] = []
    for (row_lo, row_hi, row_step), segments in sorted(groups.items(), key=lambda item: _breadth(item[0][:2])):
        resumes = any(_overlaps(row_lo, row_hi, earlier) for earlier in passes)
        draft = ClosedPass(row_lo, row_hi, row_step, tuple(segments), 64, 64, resumes)
        chosen, choice = _choose_tiles(draft, len(passes), problem, machine)
        passes.append(chosen)
        choices.append(choice)
    bands = sum(term.lattice.step if term.lattice.diagonal else 1 for term in terms)
    return passes, choices, bands


def _breadth(rows: tuple[Edge, Edge | None]) -> tuple[int, int]:
    """Sort key: passes over all rows first, because later ones can resume what they leave."""
    row_lo, row_hi = rows
    return (row_hi is not None) + (row_lo != Edge(0)), row_lo.value


def _interval(row_lo: Edge, row_hi: Edge | None) -> tuple[float, float, bool | None]:
    """(lo, hi, aligned) of a row range; aligned None where only 0 and the end bound it."""
    low = -np.inf if row_lo == Edge(0) else float(row_lo.value)
    high = np.inf if row_hi is None else float(row_hi.value)
    bounded = [edge.aligned for edge in (row_lo, row_hi) if edge is not None and edge != Edge(0)]
    return low, high, bounded[0] if bounded else None


def _overlaps(row_lo: Edge, row_hi: Edge | None, earlier: ClosedPass) -> bool:
    """Whether two row ranges may share a row (True where the lengths decide)."""
    low, high, aligned = _interval(row_lo, row_hi)
    other_low, other_high, other_aligned = _interval(earlier.row_lo, earlier.row_hi)
    if None not in (aligned, other_aligned) and aligned != other_aligned:
        return True
    return max(low, other_low) < min(high, other_high)


def _covered(passes: list[ClosedPass]) -> bool:
    """Whether the passes that do not resume provably visit every row; then resuming ones find a written state."""
    spans = [_interval(one.row_lo, one.row_hi) for one in passes if not one.resumes]
    if len({aligned for *_, aligned in spans if aligned is not None}) > 1:
        return False
    reached = -np.inf
    for low, high, _ in sorted(spans, key=lambda span: span[0]):
        if low > reached:
            return False
        reached = max(reached, high)
    return reached == np.inf


def _choose_tiles(draft: ClosedPass, number: int, problem: Problem, machine: Machine) -> tuple[ClosedPass, Choice]:
    """The tile sizes with the least predicted time, from counted work."""
    tried: dict[tuple[int, int], float] = {}
    for tile_q in _tiles_q(TILES_Q, problem, machine):
        for tile_kv in TILES_KV:
            one = replace(draft, tile_q=tile_q, tile_kv=tile_kv)
            count = count_pass(one, problem.seq_q, problem.seq_kv, sampled=True)
            tried[tile_q, tile_kv] = predict(count, problem, machine, tile_q, resumes=draft.resumes)
    best = min(tried, key=lambda sizes: (tried[sizes], sizes))
    chosen = replace(draft, tile_q=best[0], tile_kv=best[1])
    return chosen, _tile_choice(f"tiles of pass {number}", tried, best)


def _tiles_q(sizes: tuple[int, ...], problem: Problem, machine: Machine) -> list[int]:
    """The tile heights that hold whole register tiles."""
    lanes = 2 * machine.lanes(8 if problem.compute_dtype == "float64" else 4)
    fitting = [size for size in sizes if size % lanes == 0]
    if not fitting:
        raise PlanError(f"machine wanted with at most {max(sizes)} lanes a register tile, got {lanes}.")
    return fitting


def _tile_choice(what: str, tried: dict[tuple[int, int], float], best: tuple[int, int]) -> Choice:
    refused = tuple(
        (f"{tile_q} x {tile_kv}", f"predicted {seconds * 1e3:.3g} ms")
        for (tile_q, tile_kv), seconds in sorted(tried.items(), key=lambda item: item[1])
        if (tile_q, tile_kv) != best
    )
    chosen = f"{best[0]} queries x {best[1]} keys"
    return Choice(what, chosen, f"predicted {tried[best] * 1e3:.3g} ms, the least of {len(tried)}", refused)


# --- tables -----------------------------------------------------------------------------------------------------


def _table_passes(table: BandTable, problem: Problem, machine: Machine) -> tuple[list[TablePass], list[Choice], int]:
    """Rows in order for runs without a step; runs of one step in residue classes where that computes less."""
    steps = np.repeat(table.step, np.diff(table.band_ptr))
    everything = np.ones(steps.size, np.bool_)
    natural, choice = _choose_cover(
        lambda tile_q, tile_kv: natural_cover(table, everything, tile_q, tile_kv), problem, machine, resumes=False
    )
    passes, choices, least = [natural], [choice], _seconds([natural], problem, machine)
    regrouped = _regrouped(table, steps)
    if regrouped:
        left = everything.copy()
        for chosen in regrouped.values():
            left &= ~chosen
        split = _split_passes(table, left, regrouped, problem, machine)
        seconds = _seconds([one for one, _ in split], problem, machine)
        if seconds < least:
            passes, choices = [one for one, _ in split], [choice for _, choice in split]
        names = ", ".join(str(step) for step in regrouped)
        words = (f"rows regrouped by residue for steps {names}", f"predicted {seconds * 1e3:.3g} ms")
        order = ("rows in order", f"predicted {least * 1e3:.3g} ms")
        taken, refused = (words, order) if seconds < least else (order, words)
        choices.append(Choice("order of rows", taken[0], taken[1], (refused,)))
    return passes, choices, len(table.step)


def _seconds(passes: list[TablePass], problem: Problem, machine: Machine) -> float:
    return sum(
        predict(count_pass(one, problem.seq_q, problem.seq_kv), problem, machine, one.tile_q, resumes=one.resumes)
        for one in passes
    )


def _regrouped(table: BandTable, steps: NDArray[np.int64]) -> dict[int, NDArray[np.bool_]]:
    """Runs by step, for the few steps that hold most of the mass and of which no row has two residues."""
    found: dict[int, NDArray[np.bool_]] = {}
    kept = table.hi - table.lo
    strided = np.unique(table.step[table.step > 1])
    mass = np.bincount(np.searchsorted(strided, steps[steps > 1]), kept[steps > 1], strided.size)
    for step in strided[np.argsort(-mass)][:4]:
        chosen = steps == step
        rows = table.row[chosen]
        if np.unique(rows).size == rows.size and kept[chosen].sum() >= max(0.02 * kept.sum(), 4 * rows.size):
            found[int(step)] = chosen
    return found


def _split_passes(
    table: BandTable,
    left: NDArray[np.bool_],
    regrouped: dict[int, NDArray[np.bool_]],
    problem: Problem,
    machine: Machine,
) -> list[tuple[TablePass, Choice]]:
    """A pass in the rows' order for the runs that are ``left``, which also visits empty rows; one for every step."""

    def natural(tile_q: int, tile_kv: int) -> TileTable:
        return natural_cover(table, left, tile_q, tile_kv)

    passes = [_choose_cover(natural, problem, machine, resumes=False)]
    for step, chosen in regrouped.items():

        def by_residue(tile_q: int, tile_kv: int, step: int = step, chosen: NDArray[np.bool_] = chosen) -> TileTable:
            return lattice_cover(table, chosen, step, tile_q, tile_kv)

        passes.append(_choose_cover(by_residue, problem, machine, resumes=True))
    return passes


def _choose_cover(
    build: Callable[[int, int], TileTable], problem: Problem, machine: Machine, *, resumes: bool
) -> tuple[TablePass, Choice]:
    """The table with the least predicted time over the tile heights; 64 keys a tile."""
    tried: dict[tuple[int, int], tuple[float, TablePass]] = {}
    for tile_q in _tiles_q(TABLE_TILES_Q, problem, machine):
        table = build(tile_q, 64)
        gathers, masks = bool((table.piece[:, 1] == 0).any()), bool((table.piece[:, 3] >= 0).any())
        one = TablePass(table, tile_q, 64, resumes, gathers, masks)
        tried[tile_q, 64] = _seconds([one], problem, machine), one
    best = min(tried, key=lambda sizes: (tried[sizes][0], sizes))
    choice = _tile_choice("tiles of a table pass", {sizes: seconds for sizes, (seconds, _) in tried.items()}, best)
    return tried[best][1], choice
