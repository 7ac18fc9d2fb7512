"""Counted work and predicted time of a box pass on a Hopper GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.box_cover import Cover
from splat_numba.gen.boxes import ALL, GROUP_ROWS, NONE, SOME, BoxPass, Traits, View
from splat_numba.gen.cost import Count
from splat_numba.gen.machine import Gpu
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.sm90.shape import score_steps, value_columns

Ints = NDArray[np.int64]

# Fitted to 196 timings on one H200 (the 14 masks of benchmarks/gpu_cases.py, head_dim 64 and 128, every tile shape), to
# 8 % in the mean and 27 % at worst. The chosen shape is 1 % off the best in the mean, 11 % at worst (dilated128x16).
HERTZ = 1.9e9
FLOP_PER_CYCLE = 4096  # of one multiprocessor: 16-bit products, float32 sums
EXPONENTIALS_PER_CYCLE = 16
EFFICIENCY_GROUPS = 1.0  # of the matrix products where groups take turns
EFFICIENCY_RESIDENT = {2: 0.76, 3: 1.03}  # where blocks do, by how many there are
EFFICIENCY_ALONE = 0.57  # where a single group waits for its own softmax
# Of the shorter of matrix products and exponentials, by groups; with one, other blocks fill the gaps.
NOT_OVERLAPPED = {1: 0.185, 2: 0.455, 3: 0.265}
TILE_SECONDS = 147e-9  # waiting for a tile and rescaling, a group's tile
SKIP_SECONDS = 75e-9  # waiting for a tile of which a group keeps nothing
MASKED = 1.3  # a tile with a mask, times one without
L2_BYTES_PER_SECOND = 9.0e12  # over the whole chip
L2_BYTES_PER_SECOND_STRIDED = 6.4e12  # where rows are taken by residue
MEMORY_BYTES_PER_SECOND = 4.2e12
ITEM_SECONDS = 0.79e-6  # a group: queries in, results out, pipeline filled; shared by the resident blocks
LAUNCH_SECONDS = 13e-6  # a launch, its first loads and its last item


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What every row block does: tiles fetched, tiles of a group computed, and those of them with a mask; (blocks,).
    strided: rows are taken by residue.
    """

    tiles: Ints
    group_tiles: Ints
    masked: Ints
    strided: bool


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


def predict_box(one: BoxPass, problem: Problem, gpu: Gpu) -> float:
    """Seconds that one pass takes for the whole problem."""
    return predict_work(work_of_pass(one), one.traits, problem, gpu)


def predict_dense(traits: Traits, problem: Problem, gpu: Gpu) -> float:
    """Seconds without a mask."""
    blocks = -(-problem.seq_q // traits.tile_q)
    tiles = np.full(blocks, -(-problem.seq_kv // traits.tile_kv))
    return predict_work(Work(tiles, tiles * traits.groups, np.zeros_like(tiles), strided=False), traits, problem, gpu)


def predict_work(work: Work, traits: Traits, problem: Problem, gpu: Gpu) -> float:
    """Seconds for all heads and batch entries: items spread over the resident blocks, longest first."""
    heads = problem.batch * problem.heads_q
    if not work.tiles.size or not heads:
        return LAUNCH_SECONDS
    resident = min(traits.blocks_per_multiprocessor, -(-work.tiles.size * heads // gpu.multiprocessors))
    alone = np.sort(_block_seconds(work, traits, gpu, resident))[::-1]
    slots = gpu.multiprocessors * resident
    item = alone * resident  # resident blocks share the multiprocessor
    # Of the first k * slots + 1 items some slot gets k + 1, each as long as the last of them or longer.
    rounds = np.arange(0, item.size * heads, slots)
    least = ((np.arange(rounds.size) + 1) * item[rounds // heads]).max()
    busy = max(float(item.sum()) * heads / slots, float(least))
    return LAUNCH_SECONDS + max(busy, _moved(work, traits, problem) / MEMORY_BYTES_PER_SECOND)


def _block_seconds(work: Work, traits: Traits, gpu: Gpu, resident: int) -> NDArray[np.float64]:
    """What every row block takes of a multiprocessor's time."""
    dims = 16 * score_steps(traits) + value_columns(traits)
    pairs = GROUP_ROWS * traits.tile_kv
    efficiency = (
        EFFICIENCY_GROUPS if traits.groups > 1 else EFFICIENCY_RESIDENT[resident] if resident > 1 else EFFICIENCY_ALONE
    )
    matrix = 2 * pairs * dims / (FLOP_PER_CYCLE * HERTZ * efficiency)
    exponentials = pairs / (EXPONENTIALS_PER_CYCLE * HERTZ)
    tile = max(matrix, exponentials) + NOT_OVERLAPPED[traits.groups] * min(matrix, exponentials) + TILE_SECONDS
    skipped = work.tiles * traits.groups - work.group_tiles
    computed = tile * (work.group_tiles + (MASKED - 1) * work.masked) + SKIP_SECONDS * skipped
    rate = L2_BYTES_PER_SECOND_STRIDED if work.strided else L2_BYTES_PER_SECOND
    fetch = traits.tile_kv * (traits.head_dim + traits.value_dim) * 2 / (rate / gpu.multiprocessors)
    seconds: NDArray[np.float64] = np.maximum(computed, work.tiles * fetch) + ITEM_SECONDS * traits.groups / resident
    return seconds


def _moved(work: Work, traits: Traits, problem: Problem) -> int:
    """Bytes of q, k, v and out; a pass that resumes reads what it writes."""
    rows = min(work.tiles.size * traits.tile_q, problem.seq_q) * problem.batch * problem.heads_q
    keys = problem.seq_kv * problem.batch * problem.heads_kv
    results = problem.value_dim * (2 if traits.resumes else 1)
    return 2 * (rows * (problem.head_dim + results) + keys * (problem.head_dim + problem.value_dim))
