"""Passes over boxes of strided views: the order of rows, the passes it takes, and a box table for each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.geometry import BandTable
from splat_numba.formats.sweep import distinct, exclusive_sum
from splat_numba.gen.box_bits import tile_bits
from splat_numba.gen.box_cost import Work, predict_work, work_of_cover
from splat_numba.gen.box_cover import Cover, cover
from splat_numba.gen.box_order import FlatRuns, PlacedRuns, RowOrder, arrange, place_on_grid, place_runs
from splat_numba.gen.box_shapes import candidates
from splat_numba.gen.boxes import GROUP_ROWS, NONE, SOME, Box, BoxPass, BoxTable, Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice
from splat_numba.gen.problem import Problem

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

GRID_BOXES = {64: Box(16, 4), 80: Box(20, 4), 96: Box(24, 4), 112: Box(28, 4), 128: Box(32, 4)}
GRID_WIDTHS = (8, 4096)
MOST_STEPS = 4  # steps that get a pass of their own
LEAST_MASS, LEAST_KEYS = 0.02, 4  # of all pairs, and on average a row: below, a step is not worth a pass
EXPLODED_BUDGET = 1 << 20  # keys taken one by one, where another order needs fewer: 100 ms
LONG_ROW = 64  # tiles of a row block, on average: above, small tiles have nothing to gain and most to list
MANY_RUNS = 1 << 21  # sorting them takes 0.2 s a shape
WORTH_TRYING = 1.5  # orders within this factor of the best, at the first tile shape, are tried with all


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Runs that one pass takes, in an order of rows."""

    order: RowOrder
    placed: PlacedRuns
    resumes: bool


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A part with a tile shape: its cover, and seconds predicted."""

    part: Part
    traits: Traits
    cover: Cover
    seconds: float


def box_passes(
    geometry_table: BandTable, problem: Problem, gpu: Gpu, *, ragged: bool, negate: bool
) -> tuple[list[BoxPass], list[Choice], int]:
    """The passes with the least predicted time, why, and the number of bands.

    ragged: key lengths differ between batch entries, so that only orders are taken in which a tile's keys ascend.
    Raises PlanError where the dtype is not one of 16 bits, or no tile shape fits the head dimensions.
    """
    shapes = [replace(one, ragged=ragged, negate=negate) for one in candidates(problem, gpu)]
    schemes = _schemes(FlatRuns.of(geometry_table), problem, ragged=ragged)
    first = max(shapes, key=lambda one: (one.groups == 2, one.tile_kv == 128))
    probes = {name: [_try(part, first, problem, gpu) for part in parts] for name, parts in schemes.items()}
    seconds = {name: _total(trials) for name, trials in probes.items()}
    close = [name for name in schemes if seconds[name] <= WORTH_TRYING * min(seconds.values())]
    found: dict[str, list[Trial]] = {}
    choices: dict[str, list[Choice]] = {}
    for name in close:
        tried = [_shapes_for(probe, shapes) for probe in probes[name]]
        picked = [_best([probe, *(_try(part, shape, problem, gpu) for shape in others)])
                  for part, probe, others in zip(schemes[name], probes[name], tried, strict=True)]  # fmt: skip
        found[name], choices[name] = [trial for trial, _ in picked], [choice for _, choice in picked]
        seconds[name] = _total(found[name])
    best = min(close, key=lambda name: seconds[name])
    refused = tuple((name, _words(seconds[name])) for name in sorted(schemes, key=seconds.__getitem__) if name != best)
    order = Choice("order of rows", best, _words(seconds[best]), refused)
    return [_finish(trial) for trial in found[best]], [*choices[best], order], len(geometry_table.step)


def _shapes_for(probe: Trial, shapes: list[Traits]) -> list[Traits]:
    """The shapes that are left to try: fewer where rows are so long that small tiles cannot win, or runs so many."""
    probed = replace(probe.traits, resumes=False)
    if probe.part.placed.row.size > MANY_RUNS:
        return [one for one in shapes if one.tile_kv == shapes[0].tile_kv and one != probed]
    if probe.cover.at.size <= LONG_ROW * len(probe.cover.lanes.rows):
        return [one for one in shapes if one != probed]
    most = {one.groups: one.tile_kv for one in shapes}  # sizes ascend
    large = [one for one in shapes if one.groups > 1 and one.tile_kv in (128, most[one.groups])]
    return [one for one in large if one != probed]


def _total(trials: list[Trial]) -> float:
    return sum(trial.seconds for trial in trials)


def _words(seconds: float) -> str:
    return f"predicted {seconds * 1e3:.3g} ms"


def _schemes(runs: FlatRuns, problem: Problem, *, ragged: bool) -> dict[str, list[Part]]:
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
    schemes = {
        name: [
            Part(order, place_runs(runs.take(chosen), problem.seq_kv, lattices), resumes=number > 0)
            for number, (order, chosen, lattices) in enumerate(parts)
        ]
        for name, parts in ways.items()
        if keys[name] <= max(EXPLODED_BUDGET, least)
    }
    width = 0 if ragged else grid_width(runs, problem.seq_q, problem.seq_kv)
    if width and _exploded(runs, frozenset()) <= EXPLODED_BUDGET:
        grid = place_on_grid(runs, problem.seq_kv, width)
        schemes[f"rows on a grid {width} wide"] = [Part(RowOrder(width=width), grid, resumes=False)]
    return schemes


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


def _try(part: Part, traits: Traits, problem: Problem, gpu: Gpu) -> Trial:
    """The cover with tiles of this shape. A pass that resumes takes only the row blocks that have tiles."""
    traits = replace(traits, resumes=part.resumes)
    box = GRID_BOXES[traits.tile_kv] if part.order.width else Box(traits.tile_kv)
    made = cover(arrange(part.order, problem.seq_q, traits.groups), part.placed, box)
    work = work_of_cover(made)
    if part.resumes:
        some = work.tiles > 0
        work = Work(work.tiles[some], work.group_tiles[some], work.masked[some])
    return Trial(part, traits, made, predict_work(work, traits, problem, gpu))


def _best(trials: list[Trial]) -> tuple[Trial, Choice]:
    best = min(trials, key=lambda trial: trial.seconds)
    names = {id(trial): f"{trial.traits.tile_q} queries x {trial.traits.tile_kv} keys" for trial in trials}
    refused = tuple(
        (names[id(trial)], _words(trial.seconds))
        for trial in sorted(trials, key=lambda trial: trial.seconds)
        if trial is not best
    )
    reason = f"{_words(best.seconds)}, the least of {len(trials)}"
    return best, Choice(f"tiles of a pass {best.part.order}", names[id(best)], reason, refused)


def _finish(trial: Trial) -> BoxPass:
    """Tables of the chosen cover: row blocks longest first, neighbouring tiles of equal status joined into pieces."""
    made, order = trial.cover, trial.part.order
    lanes, work = made.lanes, work_of_cover(made)
    ranking = np.argsort(-work.group_tiles, kind="stable")
    if trial.part.resumes:
        ranking = ranking[work.tiles[ranking] > 0]
    entry, bits = tile_bits(made)
    heads = _piece_heads(made)
    pieces = np.diff(np.append(heads, made.at.size))
    per_block = np.bincount(made.block[heads], minlength=len(lanes.rows))
    begin, count = exclusive_sum(per_block)[:-1][ranking], per_block[ranking]
    end = np.cumsum(count)
    source = heads[np.arange(int(count.sum())) + np.repeat(begin - (end - count), count)]
    tiles = np.zeros(made.at.size, np.int64)
    tiles[heads] = pieces
    groups = trial.traits.groups
    piece = np.zeros((source.size, 8), np.int32)
    piece[:, 0], piece[:, 1], piece[:, 2] = made.view[source], made.c1[source], made.c2[source]
    piece[:, 3], piece[:, 4] = tiles[source], made.status[source] @ (1 << 2 * np.arange(groups))
    piece[:, 5 : 5 + groups] = entry[source]
    block = np.zeros((ranking.size, BoxTable.ROW_FIELDS), np.int32)
    block[:, :3] = lanes.corner[ranking]
    block[:, 3], block[:, 4], block[:, 5] = end - count, end, work.tiles[ranking]
    rows = lanes.rows[ranking].astype(np.int32)
    table = BoxTable(lanes.views, trial.part.placed.views, rows, block, piece, bits)
    traits = replace(
        trial.traits, partial=bool((made.status == SOME).any()), skips=bool((made.status == NONE).any())
    )  # fmt: skip
    return BoxPass(table, order.box(groups), made.box, traits, str(order))


def _piece_heads(made: Cover) -> Ints:
    """Tiles that do not continue the one before: of another line or status, further on, or with a mask."""
    if not made.at.size:
        return made.at
    fresh = np.ones(made.at.size, np.bool_)
    same = (made.at[1:] - made.at[:-1] == made.box.inner) & (made.status[1:] == made.status[:-1]).all(axis=1)
    same &= (made.c1[1:] > made.c1[:-1]) & (made.status[1:] != SOME).all(axis=1)
    same &= made.box.outer == 1  # a piece goes on along c1 only, and on a grid there is nothing to gain
    fresh[1:] = ~same
    return np.flatnonzero(fresh)
