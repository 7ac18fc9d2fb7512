"""Orders of rows and lattices of keys as views: where every row block and every run of keys lies as a box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.geometry import BandTable
from splat_numba.formats.sweep import distinct, exclusive_sum, expand
from splat_numba.gen.boxes.passes import GROUP_ROWS
from splat_numba.gen.schedules.views import Box, View

Ints = NDArray[np.int64]

GRID_GROUP = Box(8, 8)  # a group's queries on a grid: the square has the fewest neighbours


@dataclass(frozen=True, slots=True)
class RowOrder:
    """How rows are cut into boxes: as they come, in residue classes modulo ``step``, or on a grid ``width`` wide."""

    step: int = 1
    width: int = 0

    def __str__(self) -> str:
        if self.width:
            return f"on a grid {self.width} wide"
        return f"by residue modulo {self.step}" if self.step > 1 else "in order"

    def box(self, groups: int) -> Box:
        """The box of a row block; a group of it is 64 consecutive places of the box."""
        return Box(GRID_GROUP.inner, GRID_GROUP.outer * groups) if self.width else Box(GROUP_ROWS * groups)


@dataclass(frozen=True, slots=True, eq=False)
class Lanes:
    """Which rows each block has. rows: (blocks, tile_q), -1 for padding; corner: (blocks, 3), view, c1 and c2 of its
    box; block, lane: (seq_q,), where each row is. All int64.
    """

    views: tuple[View, ...]
    rows: Ints
    corner: Ints
    block: Ints
    lane: Ints


def class_views(length: int, step: int) -> tuple[View, ...]:
    """Views whose lines are the residue classes modulo ``step``, exactly: longer classes first, then the others."""
    if step == 1:
        return (View(0, 1, length, 1, 1),)
    longest, longer = -(-length // step), length % step
    if longer == 0:
        return (View(0, step, longest, 1, step),)
    first = View(0, step, longest, 1, longer)
    return (first, View(longer, step, longest - 1, 1, step - longer)) if longest > 1 else (first,)


def grid_view(length: int, width: int) -> View:
    """The sequence as lines of ``width`` tokens."""
    return View(0, 1, width, width, length // width)


def arrange(order: RowOrder, seq_q: int, groups: int) -> Lanes:
    """Row blocks of all rows; a residue class begins a row block of its own."""
    box = order.box(groups)
    views = (grid_view(seq_q, order.width),) if order.width else class_views(seq_q, order.step)
    parts = [_boxes_of(number, view, box) for number, view in enumerate(views)]
    rows = np.concatenate([rows for rows, _ in parts])
    corner = np.concatenate([corner for _, corner in parts])
    taken = np.flatnonzero(rows >= 0)
    place = np.zeros(seq_q, np.int64)
    place[rows.ravel()[taken]] = taken
    return Lanes(views, rows, corner, place // box.size, place % box.size)


def _boxes_of(number: int, view: View, box: Box) -> tuple[Ints, Ints]:
    """(rows, corner) of the boxes that cover a view, along c1 first."""
    c2, c1 = (grid.ravel() for grid in np.mgrid[0 : view.outer : box.outer, 0 : view.inner : box.inner])
    y = c2[:, None] + np.repeat(np.arange(box.outer), box.inner)
    x = c1[:, None] + np.tile(np.arange(box.inner), box.outer)
    inside = (y < view.outer) & (x < view.inner)
    rows = np.where(inside, view.offset + view.inner_step * x + view.outer_step * y, -1)
    return rows, np.stack((np.full(c1.size, number), c1, c2), axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class FlatRuns:
    """The runs of a mask, with their lattices: columns residue + step * c, lo <= c < hi; arrays (runs,) int64."""

    row: Ints
    step: Ints
    residue: Ints
    lo: Ints
    hi: Ints

    @classmethod
    def of(cls, table: BandTable) -> FlatRuns:
        """All runs of a table."""
        per_band = np.diff(table.band_ptr)
        return cls(
            table.row, np.repeat(table.step, per_band), np.repeat(table.residue, per_band), table.lo, table.hi
        )  # fmt: skip

    def take(self, chosen: NDArray[np.bool_] | Ints) -> FlatRuns:
        """Some of the runs."""
        parts = (self.row, self.step, self.residue, self.lo, self.hi)
        return FlatRuns(*(part[chosen] for part in parts))

    @property
    def kept(self) -> Ints:
        """Keys of each run."""
        return self.hi - self.lo


@dataclass(frozen=True, slots=True, eq=False)
class PlacedRuns:
    """Runs as intervals lo <= c1 < hi of line c2 of a view; arrays (runs,) int64."""

    views: tuple[View, ...]
    row: Ints
    view: Ints
    c2: Ints
    lo: Ints
    hi: Ints


def place_runs(runs: FlatRuns, seq_kv: int, lattices: frozenset[int]) -> PlacedRuns:
    """Runs of the steps in ``lattices`` on views of their own, all others key by key on the sequence as it is."""
    views = [*class_views(seq_kv, 1)]
    plain = ~np.isin(runs.step, np.array(sorted(lattices), np.int64))
    parts = [_in_sequence(runs.take(plain))]
    for step in sorted(lattices):
        chosen = runs.take(runs.step == step)
        if not chosen.row.size:
            continue
        longer = seq_kv % step or step
        second = chosen.residue >= longer
        view, c2 = len(views) + second, np.where(second, chosen.residue - longer, chosen.residue)
        parts.append((chosen.row, view.astype(np.int64), c2, chosen.lo, chosen.hi))
        views += class_views(seq_kv, step)
    row, view, c2, lo, hi = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    used = distinct(view) if view.size else np.zeros(1, np.int64)
    return PlacedRuns(tuple(views[k] for k in used), row, np.searchsorted(used, view), c2, lo, hi)


def _in_sequence(runs: FlatRuns) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    dense, strided = runs.take(runs.step == 1), runs.take(runs.step > 1)
    single = expand(strided.residue + strided.step * strided.lo, strided.step, strided.kept)
    row = np.concatenate([dense.row, np.repeat(strided.row, strided.kept)])
    lo, hi = np.concatenate([dense.lo, single]), np.concatenate([dense.hi, single + 1])
    zero = np.zeros(row.size, np.int64)
    return row, zero, zero, lo, hi


def place_on_grid(runs: FlatRuns, seq_kv: int, width: int) -> PlacedRuns:
    """Runs cut at the ends of lines of ``width`` tokens."""
    row, _, _, lo, hi = _in_sequence(runs)
    first = lo // width
    lines = (hi - 1) // width - first + 1
    source = np.repeat(np.arange(row.size), lines)
    c2 = first[source] + np.arange(source.size) - np.repeat(exclusive_sum(lines)[:-1], lines)
    begin = np.maximum(lo[source] - c2 * width, 0)
    end = np.minimum(hi[source] - c2 * width, width)
    return PlacedRuns((grid_view(seq_kv, width),), row[source], np.zeros_like(c2), c2, begin, end)
