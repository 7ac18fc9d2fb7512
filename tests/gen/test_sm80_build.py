"""The texts for a warp's matrix products compile and link without a GPU for chips of every generation: no spills, no
local memory, shared memory within the chip's limit.

A part runs in every commit; SPLAT_TEST_EVERY_CHIP=1 compiles all tile shapes for all chips (minutes).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest

from splat_numba.gen.plans.machine import SHARED_BYTES, gpu_of
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.launches import arch_of
from splat_numba.gen.targets.gpu.tiled_operator import FAMILIES
from splat_numba.gen.targets.sm80.packed.texts import tiled_text
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits
from splat_numba.gen.targets.sm80.schedule import attention_text
from splat_numba.gen.targets.sm80.shape import atoms_of
from splat_numba.gen.targets.sm80.target import SM80
from splat_numba.gen.targets.sm80.tile_shapes import candidates
from splat_numba.runtime.cuda.code import cubin_for
from splat_numba.settings import current

ALL = {"partial": True, "resumes": True, "hands_on": True, "ragged": True, "negate": True}
OF_REALS = {**ALL, "hands_on": False}  # which lose nothing on the way
PLAIN = {"partial": False, "skips": False}
# capability, (head_dim, value_dim), dtype, options, atoms
USUAL = (
    ((8, 6), (128, 128), "float16", ALL, 1),
    ((9, 0), (128, 128), "bfloat16", {}, 2),
    ((9, 0), (128, 128), "bfloat16", PLAIN, 2),
    ((12, 0), (64, 64), "bfloat16", {}, 2),
    ((12, 0), (20, 12), "float32", OF_REALS, 1),
)
TILED = (
    ((8, 0), TiledTraits("sddmm", "bfloat16", 64, 128)),
    ((9, 0), TiledTraits("sddmm", "float32", 64)),
    ((12, 0), TiledTraits("spmm", "float16", 64, 128)),
    ((8, 6), TiledTraits("columns", "float16", 64)),
)
TILED_DIMS = (1, 20, 64, 80, 128, 192, 256)
DIMS = ((20, 12), (64, 64), (80, 72), (128, 128), (192, 128), (256, 256), (64, 256))


REAL_DIMS = ((20, 12), (64, 64), (80, 72), (128, 128), (64, 160))


def traits_of(capability, dims, dtype, options, precision="ieee"):
    found = candidates(Problem(64, 64, *dims, dtype, precision=precision), gpu_of(capability))
    return [replace(one, **options) for one in found]


def check(traits, capability):
    check_text(attention_text(traits, gpu_of(capability)), capability)


def check_text(text, capability):
    assert text.entry.arch == f"sm_{capability[0]}{capability[1]}"
    report = cubin_for(text, current()).report
    assert report.warnings == ()
    assert report.spill_bytes == 0, report.log
    assert re.findall(r"(\d+) bytes stack frame", report.log) == ["0"], "an array is no registers"
    assert report.shared_bytes <= SHARED_BYTES[capability]


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.parametrize(("capability", "dims", "dtype", "options", "atoms"), USUAL, ids=str)
def test_a_kernel_compiles_into_registers(capability, dims, dtype, options, atoms):
    """The widest tile of one or two sixteens of rows a warp."""
    check([one for one in traits_of(capability, dims, dtype, options) if atoms_of(one) == atoms][-1], capability)


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.parametrize(("capability", "traits"), TILED, ids=str)
def test_packed_operators_compile_into_registers(capability, traits):
    check_text(tiled_text(traits, arch_of(gpu_of(capability))), capability)


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
def test_every_packed_operator_on_every_chip(capability):
    gpu = gpu_of(capability)
    for family in (*FAMILIES, "columns"):
        for dim in TILED_DIMS:
            for size in TiledTraits(family, "float16", dim).sizes[: 1 if family == "columns" else None]:
                traits = TiledTraits(family, "float16", dim, size)
                if traits.shared_bytes <= gpu.shared_bytes:
                    check_text(tiled_text(traits, arch_of(gpu)), capability)
    for dim in (16, 20, 64):
        check_text(tiled_text(TiledTraits("sddmm", "float32", dim), arch_of(gpu)), capability)


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
def test_every_tile_shape_on_every_chip(capability, dims):
    for one in traits_of(capability, dims, "bfloat16", {}):
        for options in (ALL, PLAIN, {}):
            check(replace(one, **options), capability)


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.parametrize("dims", REAL_DIMS, ids=str)
@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
def test_every_tile_shape_of_float32_on_every_chip(capability, dims, precision):
    for one in traits_of(capability, dims, "float32", {}, precision):
        for options in (OF_REALS, PLAIN, {}):
            check(replace(one, **options), capability)


@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
def test_every_chip_has_a_tile_for_the_largest_heads(capability):
    for dims in ((256, 256), (8, 256), (256, 8)):
        assert traits_of(capability, dims, "float16", {})
