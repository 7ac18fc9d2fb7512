"""Bit masks of boxes of which a group of queries keeps some pairs; equal ones are stored once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.random_blocks import GOLDEN, mixed
from splat_numba.formats.sweep import chunks, exclusive_sum
from splat_numba.gen.boxes.cover import Cover, LaneRuns
from splat_numba.gen.boxes.passes import GROUP_ROWS, SOME, WORD_BITS

Ints = NDArray[np.int64]
Words = NDArray[np.uint32]

MASKS_AT_ONCE = 4096  # compared with each other
WORD_BUDGET = 1 << 23  # words made at a time: 64 MiB while they are summed


def tile_bits(cover: Cover) -> tuple[Ints, Words]:
    """(tiles, groups) entry of the masks, 0 where not all or none are kept, and the masks (entries, 64, words)."""
    tile, group = np.nonzero(cover.status == SOME)
    words = -(-cover.box.size // WORD_BITS)
    entry = np.zeros(cover.status.shape, np.int64)
    if not tile.size:
        return entry, np.zeros((0, GROUP_ROWS, words), np.uint32)
    runs = cover.runs
    groups = cover.status.shape[1]
    runs_of, tiles_of = _meetings(runs, groups, group, cover.at[tile], cover.box.inner)
    found = np.zeros(tile.size, np.int64)
    distinct: list[Words] = []
    before = 0
    per_tile = np.full(tile.size, GROUP_ROWS * words)
    bounds = exclusive_sum(np.bincount(tiles_of, minlength=tile.size))
    for first, end in chunks(per_tile, WORD_BUDGET):
        part = slice(int(bounds[first]), int(bounds[end]))
        masks = _draw(runs, runs_of[part], tiles_of[part] - first, cover.at[tile[first:end]], cover.box.inner, words)
        which, unique = _deduplicate(masks)
        found[first:end] = before + which
        distinct.append(unique)
        before += len(unique)
    which, unique = _deduplicate(np.concatenate(distinct))
    entry[tile, group] = which[found]
    return entry, np.ascontiguousarray(unique.reshape(-1, GROUP_ROWS, words))


def _meetings(runs: LaneRuns, groups: int, group: Ints, at: Ints, size: int) -> tuple[Ints, Ints]:
    """Every (run, number of a tile) that meet, by tile; the runs of a group meet tiles of that group only."""
    on_group = runs.pitch * ((groups - 1) * (runs.lo // runs.pitch) + runs.lane // GROUP_ROWS)
    begin = at + runs.pitch * ((groups - 1) * (at // runs.pitch) + group)
    order = np.argsort(begin, kind="stable")
    begin = begin[order]
    first = np.searchsorted(begin + size, runs.lo + on_group, side="right")
    many = np.maximum(np.searchsorted(begin, runs.hi + on_group, side="left") - first, 0)
    run = np.repeat(np.arange(runs.lo.size), many)
    number = order[np.arange(run.size) + np.repeat(first - exclusive_sum(many)[:-1], many)]
    by_tile = np.argsort(number, kind="stable")
    return run[by_tile], number[by_tile]


def _draw(runs: LaneRuns, run: Ints, number: Ints, at: Ints, size: int, words: int) -> Words:
    """Masks (tiles, 64 * words) of the runs that meet the tiles which start at ``at``."""
    low = np.maximum(runs.lo[run] - at[number], 0) + runs.line[run] * size
    high = np.minimum(runs.hi[run] - at[number], size) + runs.line[run] * size
    row = (number * GROUP_ROWS + runs.lane[run] % GROUP_ROWS) * words
    total = np.zeros(at.size * GROUP_ROWS * words)
    for offset in range(int(((high - 1) // WORD_BITS - low // WORD_BITS).max(initial=0)) + 1):
        word = low // WORD_BITS + offset
        here = np.flatnonzero(WORD_BITS * word < high)
        begin = np.maximum(low[here] - WORD_BITS * word[here], 0)
        end = np.minimum(high[here] - WORD_BITS * word[here], WORD_BITS)
        bits = (np.int64(1) << end) - (np.int64(1) << begin)
        # A row's runs are disjoint, so their bits add up; sums stay below 2**32, exact in float64.
        total += np.bincount(row[here] + word[here], bits, total.size)
    return total.astype(np.uint32).reshape(at.size, -1)


def _deduplicate(masks: Words) -> tuple[Ints, Words]:
    """(place of each mask among the distinct ones, the distinct ones), found by a hash that is then checked."""
    _, first, which = np.unique(_hashes(masks), return_index=True, return_inverse=True)
    if not np.array_equal(masks[first[which]], masks):  # two masks of one hash: keep them all
        return np.arange(len(masks)), masks
    return which.astype(np.int64), masks[first]


def _hashes(masks: Words) -> NDArray[np.uint64]:
    counter = np.arange(1, masks.shape[1] + 1, dtype=np.uint64)
    factors = mixed(counter * GOLDEN) | np.uint64(1)  # numpy.random takes 7 ms to import
    parts = np.array_split(masks, len(masks) // MASKS_AT_ONCE + 1)
    return np.concatenate([part.astype(np.uint64) @ factors for part in parts])
