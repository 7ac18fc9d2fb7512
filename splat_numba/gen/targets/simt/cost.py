"""Predicted time of a box pass on FMA units.

Only the units' number and the clock are facts; the shares below are estimates that order tile shapes, not fitted yet.
"""

from __future__ import annotations

import numpy as np

from splat_numba.gen.boxes.cost import Work
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.fma import fma_rate
from splat_numba.gen.targets.simt.shape import LANES_OF_ROW, Numbers, pieces

HERTZ = 1.7e9
TILE_CYCLES = 1500  # two loads that are waited for, and barriers; shared by the resident blocks
SMALL_TILE = {64: 1.0, 32: 1.15, 16: 1.6}  # fewer products for what is read of shared memory
ITEM_SECONDS = 2e-6
LAUNCH_SECONDS = 6e-6


def product_dims(traits: Traits) -> int:
    """Of the forward pass: multiply-adds of a pair of a tile, those beside a row's end included."""
    numbers = Numbers(traits.dtype)
    return traits.head_dim + pieces(numbers, traits.value_dim) * LANES_OF_ROW * numbers.of_chunk


def predict_work(work: Work, traits: Traits, problem: Problem, gpu: Gpu, dims: int) -> float:
    """Seconds for all heads and batch entries. dims: multiply-adds for a pair."""
    heads = problem.batch * problem.heads_q
    if not work.tiles.size or not heads:
        return LAUNCH_SECONDS
    rate = fma_rate(Numbers(traits.dtype).computed, gpu)
    products = GROUP_ROWS * traits.tile_kv * dims / rate * SMALL_TILE[traits.tile_kv]
    tile = (products + TILE_CYCLES / traits.blocks_per_multiprocessor) / HERTZ
    alone = work.tiles.astype(np.float64) * tile + ITEM_SECONDS / traits.blocks_per_multiprocessor
    busy = max(float(alone.sum()) * heads / gpu.multiprocessors, float(alone.max()))
    return LAUNCH_SECONDS + busy
