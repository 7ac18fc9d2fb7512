"""The tiles of a pass over a part of the mask, one after the other, whatever kind of pass it is: what pictures show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.boxes.passes import ALL, GROUP_ROWS, NONE, WORD_BITS, BoxPass
from splat_numba.gen.plans.plan import Pass
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.rows.passes import ClosedPass, Segment, TablePass
from splat_numba.gen.schedules.views import Box, View

Ints = NDArray[np.int64]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """rows: (rows,), -1 for padding; cols: (keys,), -1 where there is none; keeps: (rows, keys) bool, None where the
    tile is full, so that no kernel asks. odd: whether it is an odd one of its row block, or that is.
    """

    rows: Ints
    cols: Ints
    keeps: NDArray[np.bool_] | None
    odd: bool


def tiles_of(one: Pass, problem: Problem, rows: Span, cols: Span) -> Iterator[Tile]:
    """The tiles of a pass that have one of these rows and one of these columns, in half-open ranges."""
    if isinstance(one, ClosedPass):
        found = _closed_tiles(one, problem, rows, cols)
    elif isinstance(one, TablePass):
        found = _table_tiles(one, rows)
    elif isinstance(one, BoxPass):
        found = _box_tiles(one, rows, cols)
    else:
        raise TypeError(f"pass wanted as one of this package, got {type(one).__name__}.")
    for tile in found:
        if ((tile.cols >= cols[0]) & (tile.cols < cols[1])).any():
            yield tile


def _closed_tiles(one: ClosedPass, problem: Problem, rows: Span, cols: Span) -> Iterator[Tile]:
    seq_q, seq_kv = problem.seq_q, problem.seq_kv
    low, high = one.row_range(seq_q, seq_kv)
    classes, per_class = one.grid(seq_q, seq_kv)
    span = one.tile_q * one.row_step  # rows from the first of a block to the first of the next
    residues = low + np.arange(classes)
    first = residues + -(-np.maximum(rows[0] - residues, 0) // one.row_step) * one.row_step
    for residue in residues[first < min(rows[1], high)].tolist():
        for block in range(max(rows[0] - residue, 0) // span, min(per_class, -(-(rows[1] - residue) // span))):
            row = residue + block * span + np.arange(one.tile_q) * one.row_step
            for segment in one.segments:
                yield from _segment_tiles(segment, row[row < high], one.tile_kv, (seq_q, seq_kv), cols, block)


def _segment_tiles(
    segment: Segment, row: Ints, tile_kv: int, shape: tuple[int, int], cols: Span, block: int
) -> Iterator[Tile]:
    if not row.size:
        return
    base, low, high = (part[0] for part in segment.places(row[None, :], *shape))
    filled = low < high
    if not filled.any():
        return
    step, start, stop = segment.lattice.step, int(low[filled].min()), int(high[filled].max())
    seen = max((cols[0] - int(base[0])) // step - start, 0) // tile_kv  # tiles left of the part are passed over
    for number in range(seen, -(-(stop - start) // tile_kv)):
        place = np.arange(start + number * tile_kv, min(start + (number + 1) * tile_kv, stop))
        if base[0] + step * place[0] >= cols[1]:
            return
        keeps = (low[:, None] <= place) & (place < high[:, None])
        yield Tile(row, base[0] + step * place, None if keeps.all() else keeps, odd=bool((block + number) % 2))


def _table_tiles(one: TablePass, rows: Span) -> Iterator[Tile]:
    table = one.table
    lanes = table.rows.reshape(-1, one.tile_q)
    bit = np.arange(one.tile_q, dtype=np.uint64)[:, None]
    for block in np.flatnonzero(((lanes >= rows[0]) & (lanes < rows[1])).any(axis=1)).tolist():
        pieces = table.piece[table.block_ptr[block] : table.block_ptr[block + 1]].tolist()
        for number, (start, step, count, mask) in enumerate(pieces):
            cols = table.cols[start : start + count] if step == 0 else start + step * np.arange(count)
            for at in range(0, count, one.tile_kv):
                end = min(at + one.tile_kv, count)
                words = None if mask < 0 else table.lane_bits[mask + at : mask + end]
                keeps = None if words is None else (words >> bit & np.uint64(1)).astype(np.bool_)
                yield Tile(lanes[block], cols[at:end], keeps, odd=bool((block + number + at // one.tile_kv) % 2))


def _box_tiles(one: BoxPass, rows: Span, cols: Span) -> Iterator[Tile]:
    table = one.table
    seen = ((table.rows >= rows[0]) & (table.rows < rows[1])).any(axis=1)
    for block in np.flatnonzero(seen).tolist():
        lanes = table.rows[block].astype(np.int64)
        for number in range(int(table.block[block, 3]), int(table.block[block, 4])):
            view, c1, c2, many, status, *entries = table.piece[number].tolist()
            for at in range(many):
                keys = _tokens(table.kv_views[view], one.kv_box, c1 + at * one.kv_box.inner, c2)
                if ((keys >= cols[0]) & (keys < cols[1])).any():
                    yield from _group_tiles(one, lanes, keys, status, entries, odd=bool((block + number + at) % 2))


def _group_tiles(
    one: BoxPass, lanes: Ints, keys: Ints, status: int, entries: list[int], *, odd: bool
) -> Iterator[Tile]:  # fmt: skip
    """What each group of rows that keeps some of a box's keys has of it."""
    for group in range(one.traits.groups):
        kind = status >> 2 * group & 3
        if kind != NONE:
            keeps = None if kind == ALL else _unpacked(one.table.bits[entries[group]], keys.size)
            yield Tile(lanes[GROUP_ROWS * group : GROUP_ROWS * (group + 1)], keys, keeps, odd=odd)


def _tokens(view: View, box: Box, c1: int, c2: int) -> Ints:
    """The tokens of a box of keys, -1 outside the view."""
    x, y = c1 + np.tile(np.arange(box.inner), box.outer), c2 + np.repeat(np.arange(box.outer), box.inner)
    inside = (x < view.inner) & (y < view.outer)
    return np.where(inside, view.offset + view.inner_step * x + view.outer_step * y, -1)


def _unpacked(words: NDArray[np.uint32], keys: int) -> NDArray[np.bool_]:
    """(64, keys) bool of a tile's bits."""
    place = np.arange(keys)
    return (words[:, place // WORD_BITS] >> (place % WORD_BITS).astype(np.uint32) & np.uint32(1)).astype(np.bool_)
