"""Cover of the runs of row blocks by boxes of keys, and which groups of queries keep none, all or some of each box.

A row block needs the union of its rows' intervals, line by line. From the least uncovered place on, boxes follow each
other; a box may reach past the union or the sequence. How many pairs a group keeps of a box is a difference of sums
over sorted ends of runs, F(x) = sum max(x - lo, 0) - max(x - hi, 0), so no pair is ever looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sweep import distinct, exclusive_sum
from splat_numba.gen.boxes.order import Lanes, PlacedRuns
from splat_numba.gen.boxes.passes import ALL, GROUP_ROWS, NONE, SOME
from splat_numba.gen.schedules.views import Box

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LaneRuns:
    """Runs on strips of lines. A run keeps places lo <= at < hi, counted through all strips of all blocks, `pitch` a
    strip; line: in its strip; lane: in its block. Arrays (runs,) int64.
    """

    pitch: int
    lo: Ints
    hi: Ints
    line: Ints
    lane: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """Boxes of keys in the order of blocks, lines and places. block, view, c1, c2: (tiles,) int64; at: (tiles,) int64
    as in LaneRuns; status: (tiles, groups) int64; kept: pairs.
    """

    lanes: Lanes
    runs: LaneRuns
    box: Box
    block: Ints
    view: Ints
    c1: Ints
    c2: Ints
    at: Ints
    status: Ints
    kept: int


def cover(lanes: Lanes, placed: PlacedRuns, box: Box, *, aligned: bool = False) -> Cover:
    """The boxes that the rows of every block need; ``aligned``: their places are multiples of their size, so that two
    blocks' boxes are the same or apart.
    """
    block = lanes.block[placed.row]
    strip, line, owner, view, c2 = _strips(placed, block, box)
    pitch = max((v.inner for v in placed.views), default=0) + box.inner + 1
    if aligned:
        pitch = -(-pitch // box.inner) * box.inner
    base = strip * pitch
    runs = LaneRuns(pitch, base + placed.lo, base + placed.hi, line, lanes.lane[placed.row])
    start, stop = _union(runs.lo, runs.hi)
    if aligned:
        start, stop = _union(start // box.inner * box.inner, -(-stop // box.inner) * box.inner)
    at = _cut(start, stop, pitch, box.inner)
    number = at // pitch
    groups = lanes.rows.shape[1] // GROUP_ROWS
    kept = _kept(runs, at, groups, box.inner)
    rows = (lanes.rows.reshape(-1, groups, GROUP_ROWS) >= 0).sum(axis=2)
    tile_block = owner[number]
    whole = (kept == rows[tile_block] * box.size) & (kept > 0)
    status = np.where(whole, ALL, np.where(kept > 0, SOME, NONE))
    total = int((placed.hi - placed.lo).sum())
    return Cover(lanes, runs, box, tile_block, view[number], at - number * pitch, c2[number], at, status, total)


def _strips(placed: PlacedRuns, block: Ints, box: Box) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Lines in strips of box.outer: (strip and line in it of every run; block, view and first line of every strip)."""
    before = exclusive_sum(np.array([v.outer + box.outer for v in placed.views]))  # no strip reaches into another view
    lines = int(before[-1])
    place = block * lines + before[placed.view] + placed.c2
    begin = _cut(*_union(place, place + 1), lines, box.outer) if box.outer > 1 else distinct(place)
    strip = np.searchsorted(begin, place, side="right") - 1
    line_of_strip = begin % lines
    view = np.searchsorted(before, line_of_strip, side="right") - 1
    return strip, place - begin[strip], begin // lines, view, line_of_strip - before[view]


def _union(lo: Ints, hi: Ints) -> tuple[Ints, Ints]:
    """Intervals as disjoint ones that do not touch, ascending."""
    order = np.argsort(lo, kind="stable")
    lo, reach = lo[order], np.maximum.accumulate(hi[order])
    fresh = np.ones(lo.size, np.bool_)
    fresh[1:] = lo[1:] > reach[:-1]
    heads = np.flatnonzero(fresh)
    return lo[heads], reach[np.append(heads[1:], lo.size) - 1] if lo.size else reach


def _cut(start: Ints, stop: Ints, pitch: int, size: int) -> Ints:
    """Starts of intervals of ``size`` places that cover [start, stop), each at the least place not covered before.

    Places belong to owners of ``pitch`` places each, and all owners advance together.
    """
    owner = start // pitch
    heads = np.flatnonzero(np.append(True, owner[1:] != owner[:-1])) if owner.size else owner
    ends = np.append(heads[1:], owner.size)
    cursor, reach = heads, start[heads]
    first, many = [start[:0]], [start[:0]]
    while cursor.size:
        at = np.maximum(start[cursor], reach)
        count = -(-(stop[cursor] - at) // size)
        first.append(at)
        many.append(count)
        reach = at + count * size
        cursor = np.searchsorted(stop, reach, side="right")
        left = cursor < ends
        cursor, reach, ends = cursor[left], reach[left], ends[left]
    at, count = np.concatenate(first), np.concatenate(many)
    order = np.argsort(at, kind="stable")
    at, count = at[order], count[order]
    within = np.arange(int(count.sum())) - np.repeat(exclusive_sum(count)[:-1], count)
    return np.repeat(at, count) + size * within


def _kept(runs: LaneRuns, at: Ints, groups: int, size: int) -> Ints:
    """Pairs that every group keeps of the boxes that start at ``at``: (tiles, groups)."""
    shift = (groups - 1) * (runs.lo // runs.pitch) + runs.lane // GROUP_ROWS  # each group has a strip of its own
    ends = [np.sort(edge + shift * runs.pitch, kind="stable") for edge in (runs.lo, runs.hi)]
    sums = [exclusive_sum(edge) for edge in ends]  # may wrap around; differences are right nevertheless
    group_at = (at + (groups - 1) * (at // runs.pitch) * runs.pitch)[:, None] + np.arange(groups) * runs.pitch

    def below(place: Ints) -> Ints:
        lows, highs = (np.searchsorted(edge, place, side="right") for edge in ends)
        return (lows - highs) * place - sums[0][lows] + sums[1][highs]

    kept: Ints = below(group_at + size) - below(group_at)
    return kept
