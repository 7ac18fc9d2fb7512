"""Hopper's kernels that keep slopes (dS) or read those that are kept: their tiles, and what keeping costs there."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import GROUP_ROWS, MAX_GROUPS, Traits
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kept import Keeping, KeptRates, of_image_tiles
from splat_numba.gen.targets.gpu.gradient_kernels import READ, ROUNDED, WHOLE
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates, feasible, gradient_tiles
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits
from splat_numba.gen.targets.sm90.cost import LAUNCH_SECONDS, MEMORY_BYTES_PER_SECOND

# Measured on an H200 with window512: slopes and keys come to the multiprocessors at this rate together.
READ_BYTES_PER_SECOND = 5.0e12
LEAST_DIM = 96  # at head_dim 64 slopes were kept at no gain (8 masks of 8192 tokens: 5 % slower in the mean), 128 gains
STAGES = (5, 4, 3, 2)  # of keys and images: memory is further away than the cache


def _tiles(turned: Problem, gpu: Gpu) -> Tiles | str:
    if candidates(turned, KEYS, gpu)[1] != WHOLE[KEYS]:
        return "a kernel each makes dk and dv, of dims so large"
    return of_image_tiles(gradient_tiles(turned, gpu, KEYS))


def reading_traits(problem: Problem, gpu: Gpu) -> tuple[Traits, ...]:
    """Of kernels that read slopes, by their groups, which share keys; each with as many stages as fit."""
    found: list[Traits] = []
    for groups in range(1, MAX_GROUPS + 1):
        shapes = (
            Traits(problem.head_dim, problem.value_dim, problem.dtype, groups, GROUP_ROWS, stages, 1, partial=False)
            for stages in STAGES
        )
        found += [one for one in shapes if feasible(reads(one), gpu)][:1]
    return tuple(found)


def reads(boxes: Traits) -> BackwardTraits:
    """Of a kernel that makes dq of kept slopes."""
    return BackwardTraits(boxes, QUERIES, ("dq",), ROUNDED, ragged=False, kept=READ)


RATES = {(9, 0): KeptRates(MEMORY_BYTES_PER_SECOND, READ_BYTES_PER_SECOND, LAUNCH_SECONDS)}
KEEPING = Keeping(LEAST_DIM, RATES, _tiles, reading_traits)
