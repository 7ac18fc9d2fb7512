"""Hopper's gradient kernels compile and link without a GPU, spill nothing among their products, and warn of nothing.

A covering set, as in test_sm90_build: every tile, type, result, number of groups and of resident blocks, and the shapes
with the fewest registers to spare.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.targets.gpu.gradient_kernels import ADDED, FINISHED, READ, ROUNDED, STAGED, WRITTEN
from splat_numba.gen.targets.gpu.levels import LevelTraits, levels_text
from splat_numba.gen.targets.gpu.rounding import RoundTraits, round_text
from splat_numba.gen.targets.sm90.backward.text import backward_text
from splat_numba.gen.targets.sm90.backward.tile_shapes import TILES, feasible
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits, shared_bytes
from splat_numba.gen.targets.sm90.shape import REGISTERS
from splat_numba.runtime.cuda.code import cubin_for
from splat_numba.settings import current
from tests.gen.sm90_traits import DTYPES, GOLDEN_GRADIENTS

# of, (head_dim, value_dim), dtype, groups, tile, resident blocks, wanted, result, ragged
COVER = (
    (QUERIES, (64, 64), "float16", 1, 48, 3, ("dq",), ROUNDED, False),
    (QUERIES, (64, 64), "bfloat16", 1, 112, 2, ("dq",), STAGED, True),
    (QUERIES, (128, 128), "bfloat16", 2, 128, 1, ("dq",), ROUNDED, False),
    (QUERIES, (64, 64), "float16", 3, 96, 1, ("dq",), ADDED, True),
    (QUERIES, (128, 128), "bfloat16", 2, 64, 1, ("dq",), FINISHED, False),
    (QUERIES, (256, 256), "bfloat16", 1, 32, 1, ("dq",), ROUNDED, False),
    (KEYS, (128, 128), "bfloat16", 2, 64, 1, ("dk", "dv"), ROUNDED, False),
    (KEYS, (128, 128), "float16", 1, 80, 1, ("dk", "dv"), ADDED, True),
    (KEYS, (64, 64), "bfloat16", 2, 128, 1, ("dk", "dv"), ROUNDED, True),
    (KEYS, (64, 64), "float16", 3, 64, 1, ("dk", "dv"), STAGED, False),
    (KEYS, (128, 128), "float16", 2, 64, 1, ("dk", "dv"), FINISHED, True),
    (KEYS, (64, 64), "float16", 1, 96, 2, ("dk", "dv"), ROUNDED, False),
    (KEYS, (33, 17), "bfloat16", 1, 80, 2, ("dk",), ROUNDED, True),
    (KEYS, (192, 256), "float16", 1, 32, 1, ("dv",), ROUNDED, False),
    (KEYS, (256, 256), "bfloat16", 1, 32, 1, ("dk",), STAGED, True),
)
# of, (head_dim, value_dim), dtype, groups, stages, wanted, what it does with slopes, padding
KEPT = (
    (KEYS, (128, 128), "bfloat16", 2, 2, ("dk", "dv"), WRITTEN, False),
    (KEYS, (64, 64), "float16", 3, 2, ("dk", "dv"), WRITTEN, True),
    (KEYS, (128, 128), "float16", 2, 2, (), WRITTEN, False),
    (QUERIES, (128, 128), "bfloat16", 3, 5, ("dq",), READ, False),
    (QUERIES, (64, 64), "float16", 1, 5, ("dq",), READ, False),
)
SPILLS_OF_PRODUCER = 320  # bytes, of a producer with key lengths: it waits for copies anyway


def traits_of(case):
    of, dims, dtype, groups, tile, resident, wanted, result, ragged = case
    boxes = Traits(*dims, dtype, groups, tile, 2, resident, partial=True, skips=groups > 1)
    return BackwardTraits(boxes, of, wanted, result, ragged)


def kept_traits_of(case):
    of, dims, dtype, groups, stages, wanted, kept, padded = case
    boxes = Traits(*dims, dtype, groups, 64, stages, 1, partial=kept == WRITTEN)
    return BackwardTraits(boxes, of, wanted, ROUNDED, ragged=False, kept=kept, padded=padded)


pytestmark = pytest.mark.usefixtures("cuda_compiler")


def check(text, spills=0):
    report = cubin_for(text, current()).report
    assert report.warnings == ()
    assert report.spill_bytes <= spills, report.log
    return report


@pytest.mark.parametrize("one", [*map(traits_of, COVER), *GOLDEN_GRADIENTS.values()], ids=lambda one: (
    f"{'-'.join(one.wanted)}-{one.boxes.head_dim}x{one.boxes.value_dim}-{one.boxes.groups}x{one.boxes.tile_kv}"
))  # fmt: skip
def test_a_kernel_compiles_without_spills_and_warnings(one):
    report = check(backward_text(one), SPILLS_OF_PRODUCER if one.clears else 0)
    assert report.shared_bytes == shared_bytes(one) <= Gpu().shared_bytes


@pytest.mark.parametrize(
    "one", [*map(kept_traits_of, KEPT)], ids=lambda one: f"{one.kept}-{one.boxes.head_dim}-{one.boxes.groups}"
)
def test_kernels_that_keep_slopes_compile_without_spills(one):
    assert check(backward_text(one)).shared_bytes == shared_bytes(one) <= Gpu().shared_bytes


@pytest.mark.parametrize("one", [LevelTraits(128, "bfloat16", clears=False), LevelTraits(20, "float16", clears=True)])
def test_levels_compile(one):
    check(levels_text(one, "sm_90a"))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_rounding_compiles(arch):
    check(round_text(RoundTraits(64, "bfloat16"), arch))


def test_the_cover_has_every_tile_type_result_and_number_of_groups_and_blocks():
    kinds = [traits_of(case) for case in COVER]
    assert all(feasible(one, Gpu()) for one in kinds)
    assert {one.boxes.tile_kv for one in kinds} == set(TILES)
    assert {one.boxes.dtype for one in kinds} == set(DTYPES)
    assert {one.result for one in kinds} == {ROUNDED, STAGED, ADDED, FINISHED}
    assert {(one.boxes.groups, one.boxes.blocks_per_multiprocessor) for one in kinds} == set(REGISTERS)


def test_shapes_that_need_more_registers_are_not_tried():
    (largest,) = (traits_of(case) for case in COVER if case[:5] == (KEYS, (128, 128), "bfloat16", 2, 64))
    assert not feasible(replace(largest, boxes=replace(largest.boxes, tile_kv=80)), Gpu())
