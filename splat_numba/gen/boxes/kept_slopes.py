"""Who reads slopes that a pass over keys kept: for every block of queries, the images that it needs and their keys.

The pass's row blocks are keys, and its tiles queries. Where these are aligned, every query is in one tile at most, so
that rows of tiles are row blocks of queries, whose gradients are sums over images: dq = dS k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sweep import distinct, exclusive_sum
from splat_numba.gen.boxes.passes import ALL, GROUP_ROWS, NONE, BoxPass, BoxTable, Traits
from splat_numba.gen.schedules.views import Box

Ints = NDArray[np.int64]

ORDER = "of kept slopes"
IMAGE_BYTES = 2 * GROUP_ROWS * GROUP_ROWS  # of 64 queries x 64 keys in 16 bits


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """What a pass over keys keeps, image by image: its number; the tile of queries, counted along rows; where its 64
    keys begin, and their rank along the keys. rows: (tiles, 64), the query of every lane, -1 for padding.
    """

    number: Ints
    tile: Ints
    corner: Ints
    rank: Ints
    rows: Ints
    total: int


def images_of(written: BoxPass) -> Images | None:
    """The images of a pass over keys; None where its tiles are no rows of queries, or share some."""
    if written.q_box.outer > 1 or written.kv_box != Box(GROUP_ROWS):
        return None
    table, groups = written.table, written.traits.groups
    block = np.repeat(np.arange(len(table.block)), table.block[:, 4] - table.block[:, 3])
    piece = np.repeat(np.arange(len(table.piece)), table.piece[:, 3])
    along = np.arange(piece.size) - np.repeat(exclusive_sum(table.piece[:, 3].astype(np.int64))[:-1], table.piece[:, 3])
    view, c1, c2, _, status = table.piece[piece, :5].astype(np.int64).T
    rows, tile = _tiles(written, view, c1 + GROUP_ROWS * along, c2)
    taken = rows[rows >= 0]
    if taken.size and np.bincount(taken).max() > 1:
        return None
    number, group = np.nonzero((status[:, None] >> 2 * np.arange(groups)) & 3 != NONE)
    owner = block[piece[number]]
    corner = table.block[owner, :3].astype(np.int64)
    corner[:, 1] += GROUP_ROWS * group
    along_keys = np.lexsort(table.block[:, (1, 2, 0)].T)
    rank = np.empty_like(along_keys)
    rank[along_keys] = np.arange(rank.size)
    return Images(
        number * groups + group, tile[number], corner, rank[owner] * groups + group, rows, piece.size * groups
    )  # fmt: skip


def _tiles(written: BoxPass, view: Ints, c1: Ints, c2: Ints) -> tuple[Ints, Ints]:
    """(tiles, 64) the rows of the distinct tiles, line by line, and which of them every tile is."""
    views = written.table.kv_views
    lines = exclusive_sum(np.array([one.outer for one in views], np.int64))
    length = max((one.inner for one in views), default=0) // GROUP_ROWS + 1
    place = (lines[view] + c2) * length + c1 // GROUP_ROWS
    places = distinct(place)
    line = places // length
    of_view = np.searchsorted(lines, line, side="right") - 1
    offset, inner_step, inner, outer_step = (
        np.array([getattr(one, name) for one in views], np.int64)[of_view]
        for name in ("offset", "inner_step", "inner", "outer_step")
    )
    at = (places % length * GROUP_ROWS)[:, None] + np.arange(GROUP_ROWS)
    rows = (offset + outer_step * (line - lines[of_view]))[:, None] + inner_step[:, None] * at
    return np.where(at < inner[:, None], rows, -1), np.searchsorted(places, place)


def reading_pass(written: BoxPass, images: Images, seq: int, traits: Traits) -> BoxPass:
    """The pass over queries that reads what ``written`` keeps; it visits rows without images too."""
    groups = traits.groups
    rows = images.rows
    left = np.ones(seq, np.bool_)
    left[rows[rows >= 0]] = False
    rows = np.concatenate([rows, _padded(np.flatnonzero(left), GROUP_ROWS)])
    rows = _padded(rows.ravel(), GROUP_ROWS * groups)
    ranks = int(images.rank.max(initial=0)) + 1
    wanted = images.tile // groups * ranks + images.rank
    places = distinct(wanted)
    piece_of = np.searchsorted(places, wanted)
    piece = np.zeros((places.size, 8), np.int32)
    piece[piece_of, :3], piece[:, 3] = images.corner, 1
    group = images.tile % groups
    np.add.at(piece[:, 4], piece_of, (ALL << 2 * group).astype(np.int32))
    piece[piece_of, 5 + group] = images.number
    count = np.bincount(places // ranks, minlength=len(rows))
    ranking = np.argsort(-np.bincount(images.tile // groups, minlength=len(rows)), kind="stable")
    begin, end = exclusive_sum(count)[:-1][ranking], np.cumsum(count[ranking])
    source = np.arange(places.size) + np.repeat(begin - (end - count[ranking]), count[ranking])
    block = np.zeros((len(rows), BoxTable.ROW_FIELDS), np.int32)
    block[:, 4], block[:, 5] = end, count[ranking]
    block[:, 3] = block[:, 6] = end - count[ranking]  # a piece has one tile
    table = BoxTable(
        (), written.table.q_views, rows[ranking].astype(np.int32), block, piece[source],
        np.zeros((0, GROUP_ROWS, GROUP_ROWS // 32), np.uint32),
    )  # fmt: skip
    traits = replace(traits, partial=False, skips=True)
    return BoxPass(table, Box(GROUP_ROWS * groups), Box(GROUP_ROWS), traits, ORDER, images.total)


def _padded(rows: Ints, size: int) -> Ints:
    """(blocks, size), the last one filled up with -1."""
    short = -rows.size % size
    return np.concatenate([rows, np.full(short, -1)]).reshape(-1, size)
