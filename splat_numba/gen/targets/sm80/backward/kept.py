"""Kernels that keep slopes (dS) or read those that are kept: their tiles, and what keeping costs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from splat_numba.gen.boxes.cost import Work
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.language.lane_layout import ATOM, WARP
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kept import Keeping, KeptRates
from splat_numba.gen.targets.gpu.gradient_kernels import FINISHED, READ, ROUNDED, WHOLE, WRITTEN
from splat_numba.gen.targets.gpu.gradient_plans import gradient_dims
from splat_numba.gen.targets.sm80.backward.reading_shape import fits_registers, reading_bytes, registers, threads_of
from splat_numba.gen.targets.sm80.backward.shape import columns_at_once
from splat_numba.gen.targets.sm80.backward.shape import threads_of as writing_threads
from splat_numba.gen.targets.sm80.backward.tile_shapes import most_resident, narrow
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.cost import GRADIENTS, IN_PAIRS, LAUNCH_SECONDS, predict
from splat_numba.gen.targets.sm80.shape import MOST_REGISTERS, STAGES
from splat_numba.gen.targets.sm80.tile_shapes import resident_of, worth_trying

# Of an H200 (benchmarks/results/gpu_sm80.md). Chips whose memory is slower beside their products have no entry until
# both designs were timed there.
RATES = {(9, 0): KeptRates(4.2e12, 5.2e12, LAUNCH_SECONDS)}
WARPS, SHARES = (4, 8, 16), (0.42, 0.82, 1.0)  # of a multiprocessor, that read slopes; and their share of that rate
LEAST_DIM = 64  # below it nothing was timed
GROUPS = (1, 2)  # row blocks of 64 and 128 rows
READ_STAGES = (4, 3, 2)  # of keys and images: memory is further away than the cache
FIRST_WITH_HALVES = (9, 0)  # of a tile's columns: compilers for older chips spill 20 bytes of 128 keys of head_dim 64


def keeps(boxes: Traits) -> GradientTraits:
    """Of a kernel that keeps slopes, with every option, of which it wants the most registers."""
    return GradientTraits(boxes, KEYS, WHOLE[KEYS][0], FINISHED, ragged=False, kept=WRITTEN, padded=True)


def reads(boxes: Traits) -> GradientTraits:
    """Of a kernel that makes dq of kept slopes."""
    return GradientTraits(boxes, QUERIES, ("dq",), ROUNDED, ragged=False, kept=READ)


def keeping_traits(turned: Problem, gpu: Gpu) -> tuple[Traits, ...]:
    """Of kernels that keep slopes: tiles of an image a group."""
    found: list[Traits] = []
    for groups in GROUPS:
        boxes = Traits(turned.head_dim, turned.value_dim, turned.dtype, groups, GROUP_ROWS, STAGES, 1)
        if columns_at_once(keeps(boxes)) < GROUP_ROWS and gpu.capability < FIRST_WITH_HALVES:
            continue
        if resident := most_resident(keeps(boxes), gpu):
            found.append(replace(boxes, blocks_per_multiprocessor=resident))
    return worth_trying(tuple(found), partial(narrow, kernel=keeps))


def _tiles(turned: Problem, gpu: Gpu) -> Tiles | str:
    if not (shapes := keeping_traits(turned, gpu)):
        return f"no tile of {GROUP_ROWS} keys x {GROUP_ROWS} queries fits with both dk and dv"
    return Tiles(turned, gpu, shapes, _seconds, gradient_dims(KEYS, ATOM))


def _seconds(work: Work, boxes: Traits, problem: Problem, gpu: Gpu, dims: int) -> float:
    one = keeps(boxes)
    return predict(work, boxes, problem, gpu, dims, writing_threads(one), IN_PAIRS if one.paired else GRADIENTS)


def reading_traits(problem: Problem, gpu: Gpu) -> tuple[Traits, ...]:
    """Of kernels that read slopes, by their groups, which share keys; each with the stages that leave room for the most
    blocks, and the most of these: of head_dim 64 1.4 ms with four blocks of two stages were 1.75 with two of four.
    """
    found: list[Traits] = []
    for groups in GROUPS:
        shapes = [_resident(problem, gpu, groups, stages) for stages in READ_STAGES]
        fitting = [one for one in shapes if one is not None]
        found += sorted(fitting, key=lambda one: -one.blocks_per_multiprocessor)[:1]
    return tuple(found)


def _resident(problem: Problem, gpu: Gpu, groups: int, stages: int) -> Traits | None:
    boxes = Traits(problem.head_dim, problem.value_dim, problem.dtype, groups, GROUP_ROWS, stages, 1, partial=False)
    one = reads(boxes)
    shared = reading_bytes(one)
    if shared > gpu.shared_bytes or not fits_registers(one):
        return None
    by_registers = gpu.registers // (threads_of(one) * min(registers(one), MOST_REGISTERS))
    resident = resident_of(shared, by_registers, gpu)
    return replace(boxes, blocks_per_multiprocessor=resident) if resident else None


def _share(boxes: Traits) -> float:
    """Warps that wait for a tile, or fetch one, leave the products to others."""
    warps = boxes.blocks_per_multiprocessor * threads_of(reads(boxes)) // WARP
    return float(np.interp(warps, WARPS, SHARES))


KEEPING = Keeping(LEAST_DIM, RATES, _tiles, reading_traits, dealt=True, share=_share)
