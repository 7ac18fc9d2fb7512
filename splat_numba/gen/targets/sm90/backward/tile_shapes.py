"""Tile shapes of gradient kernels that a Hopper multiprocessor can hold."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from splat_numba.errors import PlanError
from splat_numba.gen.boxes.passes import MAX_GROUPS, Traits
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.language.lane_layout import MATRIX, sums_of, words_of
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kernels import ROUNDED, Kernels, first_with_tiles
from splat_numba.gen.targets.gpu.gradient_plans import gradient_dims
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits, shared_bytes
from splat_numba.gen.targets.sm90.cost import predict_work
from splat_numba.gen.targets.sm90.shape import PRODUCT_DEPTH, threads_per_block
from splat_numba.gen.targets.sm90.tile_shapes import MOST_RESIDENT, STAGES, fits

TILES = (32, 48, 64, 80, 96, 112, 128)
USUAL = {64, 96}  # tried beside the least and the largest that fit
# Of a consumer thread beside accumulators, scores and slopes: all shapes that need at most the limit then compile
# without spills; beyond, the compiler spills and serialises products.
OTHER_REGISTERS = 28
OF_A_PRODUCT = 8  # registers beside its accumulators


def registers(traits: BackwardTraits) -> int:
    """That a consumer thread wants."""
    totals = sum(sums_of(-(-dim // MATRIX) * MATRIX) for dim in traits.dims.values())
    tile = traits.boxes.tile_kv  # rounded weights and slopes take the place of scores and dP
    slopes = sums_of(tile) if traits.slopes else words_of(tile)
    return totals + sums_of(tile) + slopes + OTHER_REGISTERS


def feasible(traits: BackwardTraits, gpu: Gpu) -> bool:
    """Whether so many blocks fit a multiprocessor without spilling registers, and ptxas takes every product: one's
    accumulators and left operand must fit the registers that a thread has at launch.
    """
    boxes = traits.boxes
    at_launch = gpu.registers // (threads_per_block(boxes) * boxes.blocks_per_multiprocessor)
    product = max(*traits.dims.values(), boxes.tile_kv) // 2 + OF_A_PRODUCT
    return product <= at_launch and fits(boxes, shared_bytes(traits), registers(traits), gpu)


@lru_cache(maxsize=64)
def candidates(problem: Problem, of: str, gpu: Gpu) -> tuple[tuple[Traits, ...], Kernels]:
    """Boxes to try for the gradients of queries or keys, and which gradients each kernel makes.

    Raises PlanError for head dimensions so large that not even the smallest tile fits.
    """

    def fitting(kernels: Kernels) -> list[Traits]:
        found: list[Traits] = []
        for groups in range(1, MAX_GROUPS + 1):
            some = [one for tile in TILES if (one := _most_resident(problem, gpu, of, kernels, groups, tile))]
            found += [one for one in some if one in (some[0], some[-1]) or one.tile_kv in USUAL]
        return found

    if (found := first_with_tiles(of, fitting)) is not None:
        return found
    raise PlanError(
        f"head_dim and value_dim wanted small enough for gradients in tiles of 64 x {TILES[0]} tokens in "
        f"{gpu.shared_bytes:,} bytes of shared memory and the registers of Hopper, got {problem.head_dim} and "
        f"{problem.value_dim}. Split the heads, or use backend='cpu'."
    )


def gradient_tiles(problem: Problem, gpu: Gpu, of: str) -> Tiles:
    """Those of candidates(), for the gradients of queries or keys. Raises PlanError as it does."""
    return Tiles(problem, gpu, candidates(problem, of, gpu)[0], predict_work, gradient_dims(of, PRODUCT_DEPTH))


def _most_resident(problem: Problem, gpu: Gpu, of: str, kernels: Kernels, groups: int, tile: int) -> Traits | None:
    one = Traits(problem.head_dim, problem.value_dim, problem.dtype, groups, tile, STAGES, 1)
    for resident in range(MOST_RESIDENT[groups], 0, -1):
        boxes = replace(one, blocks_per_multiprocessor=resident)
        if all(feasible(BackwardTraits(boxes, of, wanted, ROUNDED, ragged=True), gpu) for wanted in kernels):
            return boxes
    return None
