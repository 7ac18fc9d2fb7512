"""Tile shapes that a multiprocessor can hold, and those worth trying for a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from splat_numba.errors import PlanError
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.sm80.cost import predict_work, product_dims
from splat_numba.gen.targets.sm80.products import in_three
from splat_numba.gen.targets.sm80.shape import (
    MOST_REGISTERS,
    STAGES,
    atoms_of,
    crowded,
    in_registers,
    resident_blocks,
    shared_bytes,
)

GROUPS = (1, 2)  # row blocks of 64 and 128 queries
TILES_KV = (32, 64, 128)
LEAST_KEYS = 16  # of a tile where no other fits: head_dim = value_dim = 256 in 99 KiB, of float32 in one stage
# 24 bytes of 128 queries x 64 keys, head_dim 128, with masks; of float32 8 of 64 x 64, head_dim 80.
SPILLS = frozenset({(10, 0), (10, 3), (11, 0)})
MOST_RESIDENT = 4  # blocks of a multiprocessor
BLOCK_SHARED_BYTES = 1024  # that the hardware keeps of every block


@lru_cache(maxsize=64)
def candidates(problem: Problem, gpu: Gpu) -> tuple[Traits, ...]:
    """Traits to try. Raises PlanError for head dimensions so large that not even the smallest tile fits."""
    shapes = [(groups, tile, STAGES) for groups in GROUPS for tile in TILES_KV]
    found = [one for shape in shapes if (one := _most_resident(problem, gpu, *shape)) is not None]
    smaller = ((GROUPS[0], LEAST_KEYS, STAGES), (GROUPS[0], LEAST_KEYS, 1))
    if not found and (least := [one for shape in smaller if (one := _most_resident(problem, gpu, *shape)) is not None]):
        found = least[:1]
    if not found:
        raise PlanError(
            f"head_dim and value_dim wanted small enough for tiles of {GROUP_ROWS} queries x {LEAST_KEYS} keys in "
            f"{gpu.shared_bytes:,} bytes of shared memory and {MOST_REGISTERS} registers a thread, got "
            f"{problem.head_dim} and {problem.value_dim}. Split the heads, or use target='simt'."
        )
    return worth_trying(tuple(found), _narrow) if problem.dtype == "float32" else tuple(found)


def no_tile(problem: Problem, gpu: Gpu) -> str | None:
    """Why not even the smallest tile fits, forward or for gradients; None if one does."""
    from splat_numba.gen.targets.sm80.backward.tile_shapes import candidates as gradient_candidates

    try:
        candidates(problem, gpu)
        for of, one in ((QUERIES, problem), (KEYS, problem.transposed())):
            gradient_candidates(one, of, gpu)
    except PlanError:
        return "has no tile for these dims that registers and shared memory hold, forward and for gradients"
    return None


def tiles_of(problem: Problem, gpu: Gpu) -> Tiles:
    """Those of candidates(), for the forward pass. Raises PlanError as it does."""
    return Tiles(problem, gpu, candidates(problem, gpu), predict_work, product_dims)


def _most_resident(problem: Problem, gpu: Gpu, groups: int, tile_kv: int, stages: int) -> Traits | None:
    one = Traits(
        problem.head_dim, problem.value_dim, problem.dtype, groups, tile_kv, stages, 1, precision=problem.precision
    )
    resident = most_resident(one, gpu)
    if in_three(one):
        with_rests = replace(one, rests=True)
        fitting = most_resident(with_rests, gpu)
        if fitting >= max(resident, 1):
            one, resident = with_rests, fitting
    return replace(one, blocks_per_multiprocessor=resident) if resident else None


def _narrow(traits: Traits) -> bool:
    return atoms_of(traits) < traits.groups


def worth_trying(shapes: tuple[Traits, ...], narrow: Callable[[Traits], bool]) -> tuple[Traits, ...]:
    """All but 128 rows by eight warps where two blocks of 64 rows have as many keys, each at its own tile, and queries'
    rests if those do: those were 1 to 18 % faster (benchmarks/results/gpu_sm80.md). Where none has 128 rows, the shape
    that long rows get comes first: the largest of which two blocks are resident. narrow: whether a warp of a shape has
    sixteen of 128 rows.
    """
    rests = any(one.rests for one in shapes)
    twofold = [one for one in shapes if one.groups == 1 and one.blocks_per_multiprocessor > 1 and one.rests == rests]
    twice = max((one.tile_kv for one in twofold), default=0)
    kept = [one for one in shapes if not narrow(one) or one.tile_kv > twice]
    if all(one.groups == 1 for one in kept):
        kept.sort(key=lambda one: (one.blocks_per_multiprocessor == 1, -one.tile_kv))
    return tuple(kept)


def most_resident(traits: Traits, gpu: Gpu) -> int:
    """Blocks of these traits that a multiprocessor holds; 0 where none fits."""
    shared = shared_bytes(traits)
    if shared > gpu.shared_bytes or not in_registers(traits, atoms_of(traits)):
        return 0
    if traits.dtype == "float32" and _narrow(traits) and not traits.rests:
        return 0  # eight warps of 128 rows are 1 to 4 % slower than two blocks of 64 rows, all else being alike
    if crowded(traits) and gpu.capability in SPILLS:
        return 0
    return resident_of(shared, resident_blocks(traits, gpu.registers), gpu)


def resident_of(shared: int, by_registers: int, gpu: Gpu) -> int:
    """Blocks of so much shared memory each, of as many as there are registers for."""
    by_memory = (gpu.shared_bytes + BLOCK_SHARED_BYTES) // (shared + BLOCK_SHARED_BYTES)
    return min(by_memory, by_registers, MOST_RESIDENT)
