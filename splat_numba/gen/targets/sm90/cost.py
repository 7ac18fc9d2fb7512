"""Predicted time of a box pass on a Hopper GPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.boxes.cost import Work
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.sm90.shape import PRODUCT_DEPTH, score_steps, value_columns

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


def product_dims(traits: Traits) -> int:
    """Of the forward pass: multiply-adds of the tensor cores for a pair of a tile."""
    return PRODUCT_DEPTH * score_steps(traits) + value_columns(traits)


def predict_work(work: Work, traits: Traits, problem: Problem, gpu: Gpu, dims: int) -> float:
    """Seconds for all heads and batch entries: items spread over the resident blocks, longest first.

    dims: multiply-adds of the tensor cores for a pair.
    """
    heads = problem.batch * problem.heads_q
    if not work.tiles.size or not heads:
        return LAUNCH_SECONDS
    resident = min(traits.blocks_per_multiprocessor, -(-work.tiles.size * heads // gpu.multiprocessors))
    alone = np.sort(_block_seconds(work, traits, gpu, resident, dims))[::-1]
    slots = gpu.multiprocessors * resident
    item = alone * resident  # resident blocks share the multiprocessor
    # Of the first k * slots + 1 items some slot gets k + 1, each as long as the last of them or longer.
    rounds = np.arange(0, item.size * heads, slots)
    least = ((np.arange(rounds.size) + 1) * item[rounds // heads]).max()
    busy = max(float(item.sum()) * heads / slots, float(least))
    return LAUNCH_SECONDS + max(busy, _moved(work, traits, problem) / MEMORY_BYTES_PER_SECOND)


def _block_seconds(work: Work, traits: Traits, gpu: Gpu, resident: int, dims: int) -> NDArray[np.float64]:
    """What every row block takes of a multiprocessor's time."""
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
    """Bytes of q, k, v and out, and of what rounding took off; a pass that resumes reads what it writes."""
    rows = min(work.tiles.size * traits.tile_q, problem.seq_q) * problem.batch * problem.heads_q
    keys = problem.seq_kv * problem.batch * problem.heads_kv
    results = problem.value_dim * (1 + 2 * traits.resumes + traits.hands_on)
    return 2 * (rows * (problem.head_dim + results) + keys * (problem.head_dim + problem.value_dim))
