"""Tile shapes that a Hopper multiprocessor can hold, and those worth trying for a problem."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from splat_numba.errors import PlanError
from splat_numba.gen.boxes.passes import MAX_GROUPS, USUAL_KEYS, Traits
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.language.instructions import MATRIX_TYPE
from splat_numba.gen.language.lane_layout import sums_of, words_of
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.sm90.cost import predict_work, product_dims
from splat_numba.gen.targets.sm90.shape import BLOCK_SHARED_BYTES, REGISTERS, WARPGROUP, shared_bytes, value_columns

TILES_KV = (64, 80, 96, 112, 128)  # 144 and more: 631-646 TFLOP/s where 128 reaches 714 (dense, head_dim 128)
STAGES = 2  # a third gains nothing where two fit, and takes the room of another block
MOST_RESIDENT = {1: 3, 2: 1, 3: 1}  # blocks of so many groups
SMALL_KEYS = 80  # of a tile: the most that one group has with three blocks resident at head_dim 64
# Registers of a consumer thread beside the accumulator, the scores and their packed weights, for 1, 2 and 3 groups.
# Above that the compiler spills; these are known to fit: head_dim 64 x 80 keys with one group and three blocks
# resident, and with three groups 128 x 80 and 64 x 128.
OTHER_REGISTERS = {1: 28, 2: 40, 3: 32}


def feasible(traits: Traits, gpu: Gpu) -> bool:
    """Whether so many blocks of these traits fit a multiprocessor without spilling registers."""
    needed = sums_of(value_columns(traits) + traits.tile_kv) + words_of(traits.tile_kv) + OTHER_REGISTERS[traits.groups]
    return fits(traits, shared_bytes(traits), needed, gpu)


def fits(traits: Traits, shared: int, needed: int, gpu: Gpu) -> bool:
    """Whether so many blocks fit that take so much shared memory each, and so many registers a consumer thread."""
    resident = traits.blocks_per_multiprocessor
    if (traits.groups, resident) not in REGISTERS or resident > MOST_RESIDENT[traits.groups]:
        return False
    room = gpu.shared_bytes + BLOCK_SHARED_BYTES
    if shared > gpu.shared_bytes or resident * (shared + BLOCK_SHARED_BYTES) > room:
        return False
    producer, consumer = REGISTERS[traits.groups, resident]
    if WARPGROUP * (producer + traits.groups * consumer) * resident > gpu.registers:
        return False
    return needed <= consumer


@lru_cache(maxsize=64)  # a plan asks twice, which takes 2 ms each
def candidates(problem: Problem, gpu: Gpu) -> tuple[Traits, ...]:
    """Traits to try, at most ten: for each number of groups the least, the largest and the usual tile.

    Raises PlanError for other than 16-bit types, or head dimensions so large that not even the smallest tile fits.
    """
    if problem.dtype not in MATRIX_TYPE:
        raise PlanError(
            f"dtype wanted as float16 or bfloat16 on sm_90a, whose tensor cores take 16-bit inputs, got "
            f"{problem.dtype}. Convert q, k and v, or use backend='cpu'."
        )
    found: list[Traits] = []
    for groups in range(1, MAX_GROUPS + 1):
        fitting = [one for tile in TILES_KV if (one := _most_resident(problem, gpu, groups, tile)) is not None]
        wanted = {SMALL_KEYS, USUAL_KEYS} if groups == 1 else {USUAL_KEYS}
        found += [one for one in fitting if one in (fitting[0], fitting[-1]) or one.tile_kv in wanted]
    if not found:
        raise PlanError(
            f"head_dim and value_dim wanted small enough for tiles of 64 queries x {TILES_KV[0]} keys in "
            f"{gpu.shared_bytes:,} bytes of shared memory and the registers of Hopper, got {problem.head_dim} and "
            f"{problem.value_dim}. Split the heads, or use backend='cpu'."
        )
    return tuple(found)


def tiles_of(problem: Problem, gpu: Gpu) -> Tiles:
    """Those of candidates(), for the forward pass. Raises PlanError as it does."""
    return Tiles(problem, gpu, candidates(problem, gpu), predict_work, product_dims)


def _most_resident(problem: Problem, gpu: Gpu, groups: int, tile_kv: int) -> Traits | None:
    one = Traits(problem.head_dim, problem.value_dim, problem.dtype, groups, tile_kv, STAGES, 1)
    for resident in range(MOST_RESIDENT[groups], 0, -1):
        if feasible(replace(one, blocks_per_multiprocessor=resident), gpu):
            return replace(one, blocks_per_multiprocessor=resident)
    return None
