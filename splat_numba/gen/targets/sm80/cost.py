"""Predicted time of a box pass on a warp's matrix products.

Only the units' number and their peaks are facts; the shares of the forward pass are estimates that order tile shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.boxes.cost import Work
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.language.dtypes import IEEE, TF32
from splat_numba.gen.language.lane_layout import ATOM, WARP
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.fma import fma_rate
from splat_numba.gen.targets.sm80.shape import steps, threads_of

HERTZ = 1.7e9
# Operations a cycle of a multiprocessor: 16-bit products with float32 sums (whitepapers; on 9.0 mma.sync's share).
FLOP_PER_CYCLE = {(8, 0): 2048, (8, 7): 2048, (9, 0): 2540, (10, 0): 2048, (10, 3): 2048, (11, 0): 2048}
OTHER_FLOP_PER_CYCLE = 512  # of the chips for graphics
# Of these the share that products of TF32 have, and how many of them make one of float32's.
TF32_SHARE = 0.5
TF32_PRODUCTS = {IEEE: 3, TF32: 1}
EXPONENTIALS_PER_CYCLE = 16
FULL_WARPS = 8  # of a multiprocessor: with fewer, nobody fills the gaps of those that wait
MASKED = 1.2  # a tile with a mask, times one without
ITEM_SECONDS = 2e-6
LAUNCH_SECONDS = 6e-6


@dataclass(frozen=True, slots=True)
class Rates:
    """efficiency: of the products, by the atoms of a warp: with one, what is right is read twice as often; tile_cycles:
    barrier, peaks, and the first loads of a tile; shared by the resident blocks.
    """

    efficiency: tuple[float, float]
    tile_cycles: int


FORWARD = Rates((0.6, 0.8), 500)
# Of float32 within 4 % of 6 tile shapes on an H200 (benchmarks/results/gpu_tf32.md), without queries' rests and with.
FORWARD_OF_REALS = Rates((0.665, 0.665), 500)
FORWARD_WITH_RESTS = Rates((0.7, 0.7), 500)
# Within 8 % of 16 tile shapes of gradients on an H200 (benchmarks/results/gpu_sm80.md).
GRADIENTS = Rates((0.68, 0.9), 900)
IN_PAIRS = Rates((0.73, 0.9), 900)  # of those whose warps share rows


def flop_rate(problem: Problem, gpu: Gpu) -> float:
    """Operations a cycle of a multiprocessor on the arrays' numbers."""
    rate = float(FLOP_PER_CYCLE.get(gpu.capability, OTHER_FLOP_PER_CYCLE))
    return rate * TF32_SHARE / TF32_PRODUCTS[problem.precision] if problem.dtype == "float32" else rate


def slower_than_fma(problem: Problem, gpu: Gpu) -> str | None:
    """Whether FMA units make products of float32 faster here, in words; None if they do not."""
    ours = flop_rate(problem, gpu) * max(FORWARD_WITH_RESTS.efficiency)
    theirs = 2 * fma_rate(problem.dtype, gpu)
    if problem.precision == TF32 or ours >= theirs:
        return None
    return f"three products of TF32 make {ours:.0f} operations a cycle, FMA units {theirs:.0f}"


def product_dims(traits: Traits) -> int:
    """Of the forward pass: multiply-adds for a pair of a tile, those beside a row's end included."""
    return ATOM * (steps(traits.head_dim) + steps(traits.value_dim))


def predict_work(work: Work, traits: Traits, problem: Problem, gpu: Gpu, dims: int) -> float:
    """Seconds of the forward pass. dims: multiply-adds for a pair."""
    rates = FORWARD
    if problem.dtype == "float32":
        rates = FORWARD_WITH_RESTS if traits.rests else FORWARD_OF_REALS
    return predict(work, traits, problem, gpu, dims, threads_of(traits), rates)


def predict(
    work: Work, traits: Traits, problem: Problem, gpu: Gpu, dims: int, threads: int, rates: Rates
) -> float:  # fmt: skip
    """Seconds for all heads and batch entries: items spread over the multiprocessors. threads: of a block."""
    heads = problem.batch * problem.heads_q
    if not work.tiles.size or not heads:
        return LAUNCH_SECONDS
    resident, atoms = traits.blocks_per_multiprocessor, WARP * traits.tile_q // (ATOM * threads)
    rate = flop_rate(problem, gpu) * rates.efficiency[atoms - 1]
    rate *= min(resident * threads / WARP / FULL_WARPS, 1.0)
    pairs = GROUP_ROWS * traits.tile_kv
    group_tile = 2 * pairs * dims / rate + pairs / EXPONENTIALS_PER_CYCLE / 2
    cycles = group_tile * (work.group_tiles + (MASKED - 1) * work.masked) + rates.tile_cycles / resident * work.tiles
    alone = cycles / HERTZ + ITEM_SECONDS / resident
    busy = max(float(alone.sum()) * heads / gpu.multiprocessors, float(alone.max()))
    return LAUNCH_SECONDS + busy
