"""Tile shapes that a multiprocessor can hold, and those worth trying for a problem."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from splat_numba.errors import PlanError
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.simt.cost import predict_work, product_dims
from splat_numba.gen.targets.simt.shape import MOST_REGISTERS, registers, share_of, shared_bytes

TILES_KV = (64, 32, 16)  # the usual first: a search tries it where rows are long
MOST_RESIDENT = 4  # blocks: with more, a thread has no registers for eight rows
BLOCK_SHARED_BYTES = 1024  # that the hardware keeps of every block, from sm_80 on


@lru_cache(maxsize=64)
def candidates(problem: Problem, gpu: Gpu) -> tuple[Traits, ...]:
    """Traits to try. Raises PlanError for head dimensions so large that not even the smallest tile fits."""
    found = [one for tile in TILES_KV if (one := _most_resident(problem, gpu, tile)) is not None]
    if not found:
        raise PlanError(
            f"head_dim and value_dim wanted small enough for tiles of {GROUP_ROWS} queries x {TILES_KV[-1]} keys of "
            f"{problem.compute_dtype} in {gpu.shared_bytes:,} bytes of shared memory and {MOST_REGISTERS} registers "
            f"a thread, got {problem.head_dim} and {problem.value_dim}. Split the heads, or use backend='cpu'."
        )
    return tuple(found)


def tiles_of(problem: Problem, gpu: Gpu) -> Tiles:
    """Those of candidates(), for the forward pass. Raises PlanError as it does."""
    return Tiles(problem, gpu, candidates(problem, gpu), predict_work, product_dims)


def _most_resident(problem: Problem, gpu: Gpu, tile_kv: int) -> Traits | None:
    one = Traits(problem.head_dim, problem.value_dim, problem.dtype, 1, tile_kv, 1, 1)
    resident = most_resident(shared_bytes(one), share_of(one).threads, registers(one), gpu)
    return replace(one, blocks_per_multiprocessor=resident) if resident else None


def most_resident(shared: int, threads: int, wanted: int, gpu: Gpu) -> int:
    """Blocks of so much shared memory and so many threads that want so many registers each; 0 where none fits."""
    if shared > gpu.shared_bytes or wanted > MOST_REGISTERS:
        return 0
    kept = BLOCK_SHARED_BYTES if gpu.capability >= (8, 0) else 0
    by_memory = (gpu.shared_bytes + kept) // (shared + kept)
    return max(min(by_memory, gpu.registers // (threads * wanted), MOST_RESIDENT), 1)
