"""Counted work of a box pass; what it costs, a target says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.boxes.cover import Cover
from splat_numba.gen.boxes.passes import ALL, GROUP_ROWS, NONE, SOME, BoxPass, Traits
from splat_numba.gen.plans.count import Count
from splat_numba.gen.schedules.views import View

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What every row block does: tiles fetched, tiles of a group computed, and those of them with a mask; (blocks,).
    strided: rows are taken by residue.
    """

    tiles: Ints
    group_tiles: Ints
    masked: Ints
    strided: bool

    def without_idle_blocks(self) -> Work:
        """Of the row blocks that have tiles."""
        some = self.tiles > 0
        return replace(self, tiles=self.tiles[some], group_tiles=self.group_tiles[some], masked=self.masked[some])


def work_of_dense(traits: Traits, seq_q: int, seq_kv: int) -> Work:
    """The work without a mask."""
    tiles = np.full(-(-seq_q // traits.tile_q), -(-seq_kv // traits.tile_kv))
    return Work(tiles, tiles * traits.groups, np.zeros_like(tiles), strided=False)


def _pieces(one: BoxPass) -> tuple[Ints, Ints, Ints]:
    """Of every piece its row block and its tiles, (pieces,), and its status for every group, (pieces, groups)."""
    piece, block = one.table.piece, one.table.block
    owner = np.repeat(np.arange(len(block)), block[:, 4] - block[:, 3])
    status = (piece[:, 4, None].astype(np.int64) >> (2 * np.arange(one.traits.groups))) & 3
    return owner, piece[:, 3].astype(np.int64), status


def work_of_cover(one: Cover) -> Work:
    """The work that a cover stands for."""
    blocks = len(one.lanes.rows)
    return Work(
        np.bincount(one.block, minlength=blocks),
        np.bincount(one.block, (one.status != NONE).sum(axis=1), blocks).astype(np.int64),
        np.bincount(one.block, (one.status == SOME).sum(axis=1), blocks).astype(np.int64),
        _strided(one.lanes.views),
    )


def work_of_pass(one: BoxPass) -> Work:
    """The work that a finished pass lists."""
    owner, tiles, status = _pieces(one)
    columns = (tiles, tiles * (status != NONE).sum(axis=1), tiles * (status == SOME).sum(axis=1))
    fetched, computed, masked = (np.bincount(owner, x, len(one.table.block)).astype(np.int64) for x in columns)
    return Work(fetched, computed, masked, _strided(one.table.q_views))


def _strided(views: Sequence[View]) -> bool:
    return any(view.inner_step > 1 for view in views)


def count_box_pass(one: BoxPass) -> Count:
    """Work of one (batch, head), exactly; area: of the groups that do not skip the tile."""
    table, groups = one.table, one.traits.groups
    owner, tiles, status = _pieces(one)
    rows = (table.rows.reshape(-1, groups, GROUP_ROWS) >= 0).sum(axis=2)
    set_bits = np.bitwise_count(table.bits).sum(axis=(1, 2), dtype=np.int64)
    whole = int((rows[owner] * (status == ALL) * tiles[:, None]).sum()) * one.tile_kv
    return Count(
        kept=whole + int(set_bits[table.piece[:, 5 : 5 + groups][status == SOME]].sum()),
        area=int(((status != NONE) * tiles[:, None]).sum()) * GROUP_ROWS * one.tile_kv,
        blocks=len(table.block),
        tiles=int(tiles.sum()),
        full=int(tiles[(status != SOME).all(axis=1)].sum()),
    )
