"""The cost model: counts the work of a pass (at great lengths that of blocks spread over it), and predicts its time.

The time is counted work over measured rates, per core:
pairs computed * (head_dim + value_dim) fused multiply-adds, pairs * one softmax weight, and a fixed part per tile and
per row block (queries are transposed in, results out).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sweep import exclusive_sum
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.count import Count
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.rows.passes import ClosedPass, Segment, TablePass

Ints = NDArray[np.int64]

# Measured on one Zen 3 core at 3.0-3.5 GHz (8 float32 lanes); benchmarks/results has the machine.
FMA_NS = 0.185  # one lane's multiply-add, times 1 / lanes: 43 billion a second with 8 lanes
WEIGHT_NS = 3.1  # one vector of softmax weights, maximum included
MASKED_WEIGHT_NS = 4.2  # the same with a row predicate
TILE_NS = 120.0  # calls, bounds, rescaling
ELEMENT_NS = 0.25  # one number of a row block, transposed in or out
BLOCK_NS = 400.0
# A value's number, copied into a tile where keys lie apart: strided(4) takes 9 % longer with 32 rows than 128.
STAGED_NS = 0.1
LAUNCH_NS = 60_000.0  # a launch: threads woken, arguments unpacked

# Of attention by the packed operators, of a graph's rows and of regular ones; benchmarks/results/cpu_fused.md.
PACKED_PAIR_NS = 1.5  # a pair: its softmax, and what it has of its row
SHARED_ELEMENT_NS = 0.015  # a number of a key or value that a group of rows loads once
NEAR_ELEMENT_NS = 0.08  # one that its row loads, from the second-level cache
FAR_ELEMENT_NS = 0.2  # or from beyond it
NEAR_BYTES = 2 << 20  # of a head's keys, or values: twice a usual second-level cache, of which rows revisit a part

BLOCKS_AT_ONCE = 128  # at 64 rows of 8 bytes 64 KiB an array: a plan must stay below 1 MiB at any length
COUNTED_ROWS = 1 << 21  # 0.2 s; 10**8 rows would take 8 s, so of more rows blocks are sampled
SAMPLED_BLOCKS = 1 << 12
_GOLDEN = 0.6180339887498949  # multiples of it modulo 1 keep their distance: no period of a mask is met by them alone


def count_pass(one: ClosedPass | TablePass, seq_q: int, seq_kv: int) -> Count:
    """Work of one pass: of all its blocks up to COUNTED_ROWS, beyond that scaled up from SAMPLED_BLOCKS."""
    if isinstance(one, TablePass):
        return _count_table(one)
    classes, per_class = one.grid(seq_q, seq_kv)
    total = classes * per_class
    looked_at = total if total <= max(COUNTED_ROWS // one.tile_q, SAMPLED_BLOCKS) else SAMPLED_BLOCKS
    count = Count()
    for first in range(0, looked_at, BLOCKS_AT_ONCE):
        places = np.arange(first, min(first + BLOCKS_AT_ONCE, looked_at))
        numbers = places if looked_at == total else _spread(places, total)
        count += _count_blocks(one, numbers, per_class, seq_q, seq_kv)
    return count if looked_at == total else _scaled(count, total)


def _spread(places: Ints, total: int) -> Ints:
    """A block of each of SAMPLED_BLOCKS equal stretches of range(total), for the stretches with these places."""
    return ((places + places * _GOLDEN % 1.0) * (total / SAMPLED_BLOCKS)).astype(np.int64)


def _scaled(count: Count, blocks: int) -> Count:
    kept, area, tiles, full, staged = (
        size * blocks // SAMPLED_BLOCKS for size in (count.kept, count.area, count.tiles, count.full, count.staged)
    )
    return Count(kept, area, blocks, tiles, full, exact=False, staged=staged)


def _count_blocks(one: ClosedPass, numbers: Ints, per_class: int, seq_q: int, seq_kv: int) -> Count:
    """The blocks with the given numbers (class by class)."""
    row_lo, row_hi = one.row_range(seq_q, seq_kv)
    place = (numbers % per_class)[:, None] * one.tile_q + np.arange(one.tile_q)
    row = row_lo + (numbers // per_class)[:, None] + place * one.row_step
    present = row < row_hi
    count = Count(blocks=int(present.any(axis=1).sum()))
    for segment in one.segments:
        count += _count_segment(segment, row, present, one.tile_q, one.tile_kv, seq_q, seq_kv)
    return count


def _count_segment(
    segment: Segment, row: Ints, present: NDArray[np.bool_], tile_q: int, tile_kv: int, seq_q: int, seq_kv: int
) -> Count:
    _, low, high = segment.places(row, seq_q, seq_kv)
    filled = present & (low < high)
    start = np.where(filled, low, np.iinfo(np.int64).max).min(axis=1)
    stop = np.where(filled, high, 0).max(axis=1)
    width = np.where(filled.any(axis=1), stop - start, 0)
    full_start = np.where(present, low, 0).max(axis=1)
    full_stop = np.where(present, high, np.iinfo(np.int64).max).min(axis=1)
    some = width > 0
    skipped = -(-np.maximum(full_start - start, 0)[some] // tile_kv)
    ended = np.where(full_stop[some] >= stop[some], -(-width[some] // tile_kv), (full_stop - start)[some] // tile_kv)
    return Count(
        kept=int((high - low)[filled].sum()),
        area=int(width.sum()) * tile_q,
        tiles=int((-(-width // tile_kv)).sum()),
        full=int(np.maximum(ended - skipped, 0).sum()),
        staged=int(width.sum()) if segment.lattice.step > 1 else 0,
    )


def _count_table(one: TablePass) -> Count:
    table = one.table
    blocks = len(table.block_ptr) - 1
    present = np.add.reduceat(table.rows >= 0, np.arange(0, table.rows.size, one.tile_q)) if blocks else table.rows
    owner = np.repeat(np.arange(blocks), np.diff(table.block_ptr))
    keys, mask = table.piece[:, 2], table.piece[:, 3]
    tiles = -(-keys // one.tile_kv)
    kept_full = int((keys * present[owner])[mask < 0].sum())
    bits = exclusive_sum(np.bitwise_count(table.lane_bits).astype(np.int64))  # of gathered pieces without a mask too
    masked = mask >= 0
    return Count(
        kept=kept_full + int((bits[(mask + keys)[masked]] - bits[mask[masked]]).sum()),
        area=int(keys.sum()) * one.tile_q,
        blocks=blocks,
        tiles=int(tiles.sum()),
        full=int(tiles[mask < 0].sum()),
    )


def predict(count: Count, problem: Problem, machine: Machine, tile_q: int, *, resumes: bool = False) -> float:
    """Seconds that one pass takes for the whole problem (all batches and heads, all cores)."""
    lanes = machine.lanes(ITEMSIZE[problem.compute_dtype])
    dims = problem.head_dim + problem.value_dim
    masked = 1.0 - count.full / count.tiles if count.tiles else 0.0
    weight = WEIGHT_NS + masked * (MASKED_WEIGHT_NS - WEIGHT_NS)
    pairs = count.area * (dims * FMA_NS + weight) / lanes
    moved = problem.head_dim + problem.value_dim * (2 if resumes else 1)
    blocks = count.blocks * (BLOCK_NS + tile_q * moved * ELEMENT_NS)
    each = pairs + count.tiles * TILE_NS + blocks + count.staged * problem.value_dim * STAGED_NS
    heads = problem.batch * problem.heads_q
    return (each * heads / machine.cores + LAUNCH_NS) * 1e-9


def predict_packed(kept: int, share: float, problem: Problem, machine: Machine) -> float:
    """Seconds of attention by the packed operators for the whole problem. kept: pairs of one head; share: of them,
    those whose columns a whole group of rows keeps.
    """
    dims = problem.head_dim + problem.value_dim
    near = problem.seq_kv * max(problem.head_dim, problem.value_dim) * ITEMSIZE[problem.compute_dtype] <= NEAR_BYTES
    alone = NEAR_ELEMENT_NS if near else FAR_ELEMENT_NS
    each = kept * (PACKED_PAIR_NS + dims * (share * SHARED_ELEMENT_NS + (1 - share) * alone))
    return (each * problem.batch * problem.heads_q / machine.cores + 3 * LAUNCH_NS) * 1e-9
