"""Predicted time of a box pass on FMA units.

The units' number and the clock are facts. The other constants are fitted to one half of 106 cases on an H200, forward
and gradients, each at every tile shape; of the other half all best shapes are found, and times are 7 % off on average
(benchmarks/results/gpu_simt.md).
"""

from __future__ import annotations

import numpy as np

from splat_numba.gen.boxes.cost import Work
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.fma import fma_rate
from splat_numba.gen.targets.simt.shape import LANES_OF_ROW, Numbers, pieces, share_of

HERTZ = 1.7e9
TILE_CYCLES = 750  # loads that are waited for, and barriers; shared by the blocks that are there
PAIR_PRODUCTS = 20  # multiply-adds that a pair's weight takes the time of: scale, peak, exponential, sum
SMALL_TILE = {64: 1.0, 32: 1.13, 16: 1.4}  # fewer products for what is read of shared memory
MOST_ROWS = 8  # of a thread
FEWER_ROWS = 0.8  # rate of threads of four rows: what they read serves half as many products
FULL_WARPS = 8  # of a multiprocessor: two a scheduler
ONE_WARP = 0.72  # rate where each scheduler has one, which waits alone
ITEM_SECONDS = 7e-6
LAUNCH_SECONDS = 6e-6


def product_dims(traits: Traits) -> int:
    """Of the forward pass: multiply-adds of a pair of a tile, those beside a row's end included."""
    numbers = Numbers(traits.dtype)
    return traits.head_dim + pieces(numbers, traits.value_dim) * LANES_OF_ROW * numbers.of_chunk


def predict_work(work: Work, traits: Traits, problem: Problem, gpu: Gpu, dims: int) -> float:
    """Seconds of the forward pass. dims: multiply-adds for a pair."""
    share = share_of(traits)
    return predict(work, traits, problem, gpu, dims, share.rows, share.threads)


def predict(
    work: Work, traits: Traits, problem: Problem, gpu: Gpu, dims: int, rows: int, threads: int
) -> float:  # fmt: skip
    """Seconds for all heads and batch entries. rows: of a thread; threads: of a block."""
    heads = problem.batch * problem.heads_q
    if not work.tiles.size or not heads:
        return LAUNCH_SECONDS
    there = min(traits.blocks_per_multiprocessor, -(-work.tiles.size * heads // gpu.multiprocessors))
    rate = fma_rate(Numbers(traits.dtype).computed, gpu)
    rate *= FEWER_ROWS if rows < MOST_ROWS else 1.0
    rate *= ONE_WARP if there * threads // WARP < FULL_WARPS else 1.0
    products = GROUP_ROWS * traits.tile_kv * (dims + PAIR_PRODUCTS) / rate * SMALL_TILE[traits.tile_kv]
    alone = work.tiles.astype(np.float64) * (products + TILE_CYCLES / there) / HERTZ + ITEM_SECONDS / there
    busy = max(float(alone.sum()) * heads / gpu.multiprocessors, float(alone.max()))
    return LAUNCH_SECONDS + busy
