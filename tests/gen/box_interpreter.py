"""A box pass carried out in plain NumPy: what the copy engine fetches, what every group keeps of it, pair by pair."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from splat_numba.gen.boxes.passes import ALL, GROUP_ROWS, NONE, SOME, BoxPass
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.schedules.views import Box, View


def tokens(view: View, box: Box, c1: int, c2: int) -> np.ndarray:
    """The token at every place of a box, -1 outside the view."""
    x, y = c1 + np.tile(np.arange(box.inner), box.outer), c2 + np.repeat(np.arange(box.outer), box.inner)
    inside = (x < view.inner) & (y < view.outer)
    return np.where(inside, view.offset + view.inner_step * x + view.outer_step * y, -1)


def kept(one: BoxPass, seq_q: int, seq_kv: int) -> np.ndarray:
    """How often every pair is kept, (seq_q, seq_kv). Pairs of a token outside the sequence must not be."""
    table, traits = one.table, one.traits
    assert one.q_box.size == traits.tile_q
    assert one.kv_box.size == traits.tile_kv
    check_views(table.q_views, seq_q)
    check_views(table.kv_views, seq_kv)
    counts = np.zeros((seq_q, seq_kv), int)
    used = np.zeros(len(table.bits), bool)
    for rank, (view, c1, c2, first, end, tiles, *rest) in enumerate(table.block.tolist()):
        rows = table.rows[rank]
        assert rest == [table.block[:rank, 5].sum(), 0]
        assert np.array_equal(rows, tokens(table.q_views[view], one.q_box, c1, c2)), f"block {rank} is not its box"
        assert table.piece[first:end, 3].sum() == tiles
        for kv_view, k1, k2, many, status, *bits in table.piece[first:end].tolist():
            assert many >= 1
            assert 0 < status < 4**traits.groups
            for tile in range(many):
                cols = tokens(table.kv_views[kv_view], one.kv_box, k1 + tile * one.kv_box.inner, k2)
                assert 0 <= k1 + tile * one.kv_box.inner < table.kv_views[kv_view].inner
                for group in range(traits.groups):
                    lanes = rows[GROUP_ROWS * group : GROUP_ROWS * (group + 1)]
                    keeps = _group(one, status >> 2 * group & 3, bits[group], lanes, cols, many)
                    if status >> 2 * group & 3 == SOME:
                        used[bits[group]] = True
                    lane, place = np.nonzero(keeps)
                    np.add.at(counts, (lanes[lane], cols[place]), 1)
    assert used.all(), "masks that nobody uses"
    return counts


def _group(one: BoxPass, status: int, entry: int, lanes: np.ndarray, cols: np.ndarray, many: int) -> np.ndarray:
    """(64, tile_kv) bool: what a group keeps of a tile."""
    real = lanes >= 0
    if status != SOME:
        assert entry == 0
        if status == NONE:
            assert one.traits.skips
            return np.zeros((GROUP_ROWS, cols.size), bool)
        assert status == ALL
        assert real.any()
        assert (cols >= 0).all(), "all pairs of a tile that reaches past the sequence"
        return np.repeat(real[:, None], cols.size, axis=1)
    assert one.traits.partial
    assert many == 1
    words = one.table.bits[entry]
    place = np.arange(cols.size)
    keeps = (words[:, place // 32] >> (place % 32).astype(np.uint32) & 1).astype(bool)
    assert 0 < keeps.sum() < real.sum() * cols.size, "some pairs are none or all"
    assert not keeps[~real].any()
    assert not keeps[:, cols < 0].any()
    assert np.bitwise_count(words).sum() == keeps.sum(), "bits beyond the tile"
    return keeps


def check_views(views: tuple[View, ...], length: int) -> None:
    """No place of a view lies outside the sequence, so that no box reads there."""
    assert views
    for view in views:
        last = view.offset + view.inner_step * (view.inner - 1) + view.outer_step * (view.outer - 1)
        assert length == 0 or 0 <= view.offset <= last < length, f"{view} of {length} tokens"


def check(plan: Plan, mask: np.ndarray) -> None:
    """Assert that the passes keep the pairs of ``mask`` once and no other, and that the tables are in order."""
    seq_q, seq_kv = mask.shape
    total = np.zeros(mask.shape, int)
    for number, one in enumerate(plan.passes):
        assert isinstance(one, BoxPass)
        total += kept(one, seq_q, seq_kv)
        rows = np.sort(one.table.rows[one.table.rows >= 0])
        assert (np.diff(rows) > 0).all(), "a row in two blocks"
        assert one.resumes == (number > 0)
        if number == 0:
            assert np.array_equal(rows, np.arange(seq_q)), "rows that nobody writes"
        else:
            assert (one.table.block[:, 5] > 0).all(), "blocks without tiles that resume"
        check_order(one)
        check_merged(one)
    assert np.array_equal(total, mask.astype(int))


def check_order(one: BoxPass) -> None:
    """Row blocks longest first, their pieces one after the other."""
    table, groups = one.table, one.traits.groups
    status = table.piece[:, 4, None] >> 2 * np.arange(groups) & 3
    work = table.piece[:, 3] * (status != NONE).sum(axis=1)
    each = [int(work[first:end].sum()) for first, end in table.block[:, 3:5]]
    assert each == sorted(each, reverse=True)
    assert table.block[:, 3].tolist() == [0, *table.block[:-1, 4].tolist()][: len(table.block)]
    if len(table.block):
        assert table.block[-1, 4] == len(table.piece)
    assert one.traits.partial == bool((status == SOME).any())
    assert one.traits.skips == bool((status == NONE).any())
    masks = table.bits.reshape(len(table.bits), GROUP_ROWS * table.bits.shape[2])
    assert len(np.unique(masks, axis=0)) == len(masks), "equal masks stored twice"


def check_merged(one: BoxPass) -> None:
    """No piece continues the one before with the same status."""
    if one.kv_box.outer > 1:
        return
    for first, end in one.table.block[:, 3:5]:
        for before, after in pairwise(one.table.piece[first:end].tolist()):
            status = [after[4] >> 2 * group & 3 for group in range(one.traits.groups)]
            adjacent = after[:3] == [before[0], before[1] + before[3] * one.kv_box.inner, before[2]]
            assert SOME in status or after[4] != before[4] or not adjacent, "pieces that could be one"
