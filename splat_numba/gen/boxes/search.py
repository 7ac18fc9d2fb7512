"""Passes over boxes of strided views: tile shapes tried for orders of rows, and a box table for each pass chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.geometry import BandTable
from splat_numba.formats.sweep import exclusive_sum
from splat_numba.gen.boxes.bits import tile_bits
from splat_numba.gen.boxes.cost import work_of_cover
from splat_numba.gen.boxes.cover import Cover, cover
from splat_numba.gen.boxes.order import FlatRuns, arrange
from splat_numba.gen.boxes.passes import NONE, SOME, USUAL_KEYS, BoxPass, BoxTable, Traits
from splat_numba.gen.boxes.schemes import PassRuns, schemes
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.views import Box
from splat_numba.plain import duration

Ints = NDArray[np.int64]

GRID_LINES = 4  # of a tile of keys on a grid
LONG_ROW = 64  # tiles of a row block, on average: above, small tiles have nothing to gain and most to list
MANY_RUNS = 1 << 21  # sorting them takes 0.2 s a shape
WORTH_TRYING = 1.5  # orders within this factor of the best, at the first tile shape, are tried with all


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A part with a tile shape: its cover, and seconds predicted."""

    part: PassRuns
    traits: Traits
    cover: Cover
    seconds: float

    @property
    def shape(self) -> str:
        """The tile shape in words."""
        return f"{self.traits.tile_q} queries x {self.traits.tile_kv} keys"


@dataclass(frozen=True, slots=True, eq=False)
class BoxCandidate:
    """A way to take all runs: an order of rows with a tile shape for each of its passes."""

    order: str
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """Order and tile shapes in words, which no other candidate of the problem has."""
        return f"{self.order}: {', then '.join(trial.shape for trial in self.trials)}"

    @property
    def seconds(self) -> float:
        """Predicted, for the whole problem."""
        return sum(trial.seconds for trial in self.trials)

    def passes(self) -> tuple[BoxPass, ...]:
        """The passes with their tables."""
        return tuple(_finish(trial) for trial in self.trials)


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What was tried. kept: of each order of rows worth trying, for each of its passes, the trials of the least
    predicted time; tried: of the same, what was predicted for every tile shape; orders: what was predicted for every
    order at its best.
    """

    kept: dict[str, list[list[Trial]]]
    tried: dict[str, list[dict[str, float]]]
    orders: dict[str, float]

    def best(self, most: int) -> tuple[BoxCandidate, ...]:
        """The candidates of the least predicted time, ascending, at most so many."""
        found = [BoxCandidate(order, trials) for order, parts in self.kept.items() for trials in product(*parts)]
        return tuple(sorted(found, key=lambda one: one.seconds)[:most])

    def reasons(self, best: BoxCandidate) -> tuple[Choice, ...]:
        """Why the candidate of the least predicted time was chosen, and what was refused."""
        tiles = [
            Choice(
                f"tiles of a pass {trial.part.order}",
                trial.shape,
                f"{_words(trial.seconds)}, the least of {len(tried)}",
                _refused(tried, trial.shape),
            )
            for trial, tried in zip(best.trials, self.tried[best.order], strict=True)
        ]
        return *tiles, Choice("order of rows", best.order, _words(best.seconds), _refused(self.orders, best.order))


def search(
    table: BandTable, problem: Problem, tiles: Tiles, *, ragged: bool, negate: bool, most: int = 1,
    aligned: bool = False,
) -> Search:  # fmt: skip
    """Try tile shapes and orders of rows, and keep as many trials a pass as ``most`` candidates can need.

    ragged: key lengths differ between batch entries, so that only orders are taken in which a tile's keys ascend;
    aligned: as in cover().
    """
    shapes = [replace(one, ragged=ragged, negate=negate) for one in tiles.shapes]
    ways = schemes(FlatRuns.of(table), problem, ragged=ragged)
    first = max(shapes, key=lambda one: (one.groups == 2, one.tile_kv == USUAL_KEYS))
    probes = {name: [_try(part, first, problem, tiles, aligned) for part in parts] for name, parts in ways.items()}
    orders = {name: sum(trial.seconds for trial in trials) for name, trials in probes.items()}
    least = min(orders.values())
    kept: dict[str, list[list[Trial]]] = {}
    tried: dict[str, list[dict[str, float]]] = {}
    for name in [name for name in ways if orders[name] <= WORTH_TRYING * least]:
        kept[name], tried[name] = [], []
        for probe in probes[name]:
            others = _shapes_for(probe, shapes)
            trials = [probe, *(_try(probe.part, shape, problem, tiles, aligned) for shape in others)]
            # Where memory is what takes the time, shapes are as fast: small tiles then overlap better (measured: 30 %).
            trials.sort(key=lambda trial: (trial.seconds, trial.traits.tile_q * trial.traits.tile_kv))
            kept[name].append(trials[:most])
            tried[name].append({trial.shape: trial.seconds for trial in trials})
        orders[name] = sum(trials[0].seconds for trials in kept[name])
    return Search(kept, tried, orders)


def _refused(seconds: dict[str, float], chosen: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, _words(seconds[name])) for name in sorted(seconds, key=seconds.__getitem__) if name != chosen)


def _shapes_for(probe: Trial, shapes: list[Traits]) -> list[Traits]:
    """The shapes that are left to try: fewer where rows are so long that small tiles cannot win, or runs so many."""
    probed = replace(probe.traits, resumes=False, hands_on=False)
    if probe.part.placed.row.size > MANY_RUNS:
        return [one for one in shapes if one.tile_kv == shapes[0].tile_kv and one != probed]
    if probe.cover.at.size <= LONG_ROW * len(probe.cover.lanes.rows):
        return [one for one in shapes if one != probed]
    most = {one.groups: one.tile_kv for one in shapes}  # sizes ascend
    large = [one for one in shapes if one.groups > 1 and one.tile_kv in (USUAL_KEYS, most[one.groups])]
    return [one for one in large if one != probed]


def _words(seconds: float) -> str:
    return f"predicted {duration(seconds)}"


def _try(part: PassRuns, traits: Traits, problem: Problem, tiles: Tiles, aligned: bool) -> Trial:
    """The cover with tiles of this shape. A pass that resumes takes only the row blocks that have tiles."""
    hands_on = part.handed_on and problem.itemsize == 2  # wider numbers lose nothing on the way
    traits = replace(traits, resumes=part.resumes, hands_on=hands_on)
    box = Box(traits.tile_kv // GRID_LINES, GRID_LINES) if part.order.width else Box(traits.tile_kv)
    made = cover(arrange(part.order, problem.seq_q, traits.groups), part.placed, box, aligned=aligned)
    work = work_of_cover(made)
    if part.resumes:
        work = work.without_idle_blocks()
    return Trial(part, traits, made, tiles.seconds(work, traits))


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
    block[:, 6] = exclusive_sum(work.tiles[ranking])[:-1]
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
