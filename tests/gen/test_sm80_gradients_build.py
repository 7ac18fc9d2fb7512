"""Gradient kernels for a warp's matrix products compile and link without a GPU for chips of every generation: no
spills, no local memory, shared memory within the chip's limit.

A part runs in every commit; SPLAT_TEST_EVERY_CHIP=1 compiles all tile shapes for all chips (most of an hour).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest

from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import SHARED_BYTES, gpu_of
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kernels import ADDED, FINISHED, READ, ROUNDED, WRITTEN
from splat_numba.gen.targets.sm80.backward.kept import keeping_traits, keeps, reading_traits, reads
from splat_numba.gen.targets.sm80.backward.reading import reading_text
from splat_numba.gen.targets.sm80.backward.shape import atoms_of
from splat_numba.gen.targets.sm80.backward.text import gradients_text
from splat_numba.gen.targets.sm80.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.target import SM80
from splat_numba.runtime.cuda.code import cubin_for
from splat_numba.settings import current

# capability, of, (head_dim, value_dim), dtype, stored, ragged, (groups, columns, atoms)
USUAL = (
    ((8, 6), KEYS, (128, 128), "float16", FINISHED, True, (1, 32, 1)),
    ((8, 0), QUERIES, (128, 128), "bfloat16", ROUNDED, False, (1, 64, 1)),
    ((12, 0), KEYS, (64, 64), "bfloat16", ROUNDED, False, (2, 32, 2)),
)
DIMS = ((20, 12), (64, 64), (80, 72), (128, 128), (192, 128), (256, 256), (64, 256))


def kernels(capability, of, dims, dtype):
    """Of every tile shape, all that it makes."""
    problem = Problem(64, 64, *dims, dtype)
    shapes, makes = candidates(problem if of == QUERIES else problem.transposed(), of, gpu_of(capability))
    return [(boxes, wanted) for boxes in shapes for wanted in makes]


def check(traits, capability):
    text = (reading_text if traits.kept == READ else gradients_text)(traits, "sm_{}{}".format(*capability))
    report = cubin_for(text, current()).report
    assert report.warnings == ()
    assert report.spill_bytes == 0, report.log
    assert re.findall(r"(\d+) bytes stack frame", report.log) == ["0"], "an array is no registers"
    assert report.shared_bytes <= SHARED_BYTES[capability]


# capability, head_dim, what a kernel does with slopes that are kept.
KEPT = (((9, 0), 128, WRITTEN), ((8, 0), 128, READ))


def of_kept_slopes(capability, dim, kept):
    """All kernels of this kind, with every option."""
    problem, gpu = Problem(64, 64, dim, dim, "bfloat16"), gpu_of(capability)
    if kept == READ:
        return [reads(replace(one, skips=one.groups > 1)) for one in reading_traits(problem, gpu)]
    return [keeps(replace(one, skips=one.groups > 1)) for one in keeping_traits(problem.transposed(), gpu)]


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.parametrize(("capability", "of", "dims", "dtype", "stored", "ragged", "shape"), USUAL, ids=str)
def test_a_kernel_compiles_into_registers(capability, of, dims, dtype, stored, ragged, shape):
    found = kernels(capability, of, dims, dtype)
    made = [GradientTraits(boxes, of, wanted, stored, ragged) for boxes, wanted in found]
    (one,) = [one for one in made if (one.boxes.groups, one.boxes.tile_kv, atoms_of(one)) == shape]
    check(one, capability)


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.parametrize(("capability", "dim", "kept"), KEPT, ids=str)
def test_a_kernel_of_kept_slopes_compiles_into_registers(capability, dim, kept):
    check(of_kept_slopes(capability, dim, kept)[-1], capability)


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("dim", [24, 64, 128, 192])
@pytest.mark.parametrize("kept", [WRITTEN, READ])
@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
def test_every_kernel_of_kept_slopes_on_every_chip(capability, kept, dim):
    for one in of_kept_slopes(capability, dim, kept):
        check(one, capability)
        if kept == WRITTEN:
            plain = replace(one, boxes=replace(one.boxes, partial=False, skips=False), stored=ROUNDED, padded=False)
            check(plain, capability)


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize("of", [QUERIES, KEYS])
@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
def test_every_tile_shape_on_every_chip(capability, of, dims):
    for boxes, wanted in kernels(capability, of, dims, "bfloat16"):
        for stored, ragged, partial in ((FINISHED, True, True), (ADDED, True, True), (ROUNDED, False, False)):
            check(
                GradientTraits(replace(boxes, partial=partial, skips=partial), of, wanted, stored, ragged), capability
            )


@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
def test_every_chip_has_tiles_for_the_largest_heads(capability):
    for dims in ((256, 256), (8, 256), (256, 8)):
        for of in (QUERIES, KEYS):
            assert kernels(capability, of, dims, "float16")
