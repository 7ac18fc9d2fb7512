"""The texts for FMA units compile and link without a GPU for chips of every generation: no spills, no local memory.

A part runs in every commit; SPLAT_TEST_EVERY_CHIP=1 compiles all families for all chips (minutes).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest

from splat_numba.errors import PlanError
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import FIRST_WITH_HALVES, SHARED_BYTES, gpu_of
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.copying import CONVERSIONS, CopyTraits, copy_text
from splat_numba.gen.targets.gpu.launches import arch_of
from splat_numba.gen.targets.simt.backward.text import gradients_text
from splat_numba.gen.targets.simt.backward.tile_shapes import candidates as gradient_candidates
from splat_numba.gen.targets.simt.backward.traits import GradientTraits
from splat_numba.gen.targets.simt.packed.texts import fma_tiles_text, packed_text
from splat_numba.gen.targets.simt.packed.tile_traits import FmaTraits
from splat_numba.gen.targets.simt.packed.traits import HELD, PackedTraits
from splat_numba.gen.targets.simt.schedule import attention_text
from splat_numba.gen.targets.simt.target import SIMT
from splat_numba.gen.targets.simt.tile_shapes import candidates
from splat_numba.runtime.cuda.code import cubin_for
from splat_numba.settings import current
from tests.documentation import ROOT, table_below

ALL = {"partial": True, "resumes": True, "ragged": True}
PLAIN = {"partial": False}
MASKED = {"partial": True}
# capability, (head_dim, value_dim), dtype, options
USUAL = (
    ((7, 5), (64, 64), "float32", MASKED),
    ((9, 0), (64, 64), "float64", ALL),
    ((12, 0), (80, 72), "bfloat16", ALL),
)
# Of packed operators: family, dtype, dim, columns are listed, values are placed.
USUAL_PACKED = (
    ((8, 0), PackedTraits("sddmm", "float32", 64)),
    ((9, 0), PackedTraits("sddmm", "float32", 250, listed=True)),  # with eight keys under way it spilled
    ((8, 0), PackedTraits("spmm", "bfloat16", 72, listed=True, placed=True)),
    ((9, 0), PackedTraits("spmm", "float64", 250)),
    ((9, 0), PackedTraits("softmax", "float64")),
    ((8, 6), PackedTraits("adding", "float16", 64)),
    ((9, 0), PackedTraits("gathering", "float16")),
    ((9, 0), PackedTraits("softmax", "bfloat16", held=5, sharing=8)),
    ((8, 0), PackedTraits("softmax_backward", "float16")),
    ((9, 0), FmaTraits("sddmm", "float32", 64)),
    ((7, 5), FmaTraits("spmm", "float32", 64)),
)
PACKED_DIMS = (1, 20, 64, 80, 128, 250, 256)
DIMS = ((20, 12), (64, 64), (80, 72), (128, 128), (256, 256), (64, 256))
DTYPES = ("float32", "float64", "float16", "bfloat16")


def traits_of(capability, dims, dtype, options):
    found = candidates(Problem(64, 64, *dims, dtype), gpu_of(capability))
    hands_on = options.get("resumes", False) and "16" in dtype
    return [replace(one, hands_on=hands_on, **options) for one in found]


def check(text, capability):
    report = cubin_for(text, current()).report
    assert report.warnings == ()
    assert report.spill_bytes == 0, report.log
    assert re.findall(r"(\d+) bytes stack frame", report.log) == ["0"], "an array is no registers"
    assert report.registers <= 255
    assert report.shared_bytes <= SHARED_BYTES[capability]


def check_attention(traits, capability):
    text = attention_text(traits, gpu_of(capability))
    assert text.entry.arch == f"sm_{capability[0]}{capability[1]}"
    check(text, capability)


def gradient_texts(capability, dims, dtype):
    """Of all tiles and kernels, with all options."""
    gpu = gpu_of(capability)
    for of in (QUERIES, KEYS):
        shapes, kernels = gradient_candidates(Problem(64, 64, *dims, dtype), of, gpu)
        for boxes in shapes:
            for wanted in kernels:
                traits = GradientTraits(boxes, of, wanted, dtype, added=True, ragged=True, clears=True)
                yield gradients_text(traits, arch_of(gpu))


pytestmark = pytest.mark.usefixtures("cuda_compiler")


@pytest.mark.parametrize(("capability", "dims", "dtype", "options"), USUAL, ids=str)
def test_a_kernel_compiles_into_registers(capability, dims, dtype, options):
    check_attention(traits_of(capability, dims, dtype, options)[0], capability)


def test_gradients_compile_into_registers():
    """Of queries and of keys, with the tile that is tried first."""
    texts = {text.name.split("_simt")[0]: text for text in reversed(list(gradient_texts((8, 6), (64, 64), "float32")))}
    assert len(texts) == 2
    for text in texts.values():
        check(text, (8, 6))


@pytest.mark.parametrize(("capability", "traits"), USUAL_PACKED, ids=str)
def test_packed_operators_compile_into_registers(capability, traits):
    make = fma_tiles_text if isinstance(traits, FmaTraits) else packed_text
    check(make(traits, arch_of(gpu_of(capability))), capability)


def copy_texts(arch):
    """Of all numbers, and conversions."""
    for pair in (*((one, one) for one in ("float16", "float32", "float64")), *CONVERSIONS):
        yield copy_text(CopyTraits.of(*pair), arch)


def test_copies_compile_into_registers():
    for text in copy_texts("sm_75"):
        check(text, (7, 5))


@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("capability", sorted(SHARED_BYTES), ids=str)
def test_copies_on_every_chip(capability):
    for text in copy_texts(arch_of(gpu_of(capability))):
        check(text, capability)


def packed_texts(arch, dtype, shared_bytes):
    """Of all families."""
    tiled = [FmaTraits(family, dtype, dim) for family in ("sddmm", "spmm") for dim in PACKED_DIMS]
    yield from (fma_tiles_text(one, arch) for one in tiled if one.shared_bytes <= shared_bytes)
    for family in ("softmax", "softmax_backward", "gathering"):
        yield packed_text(PackedTraits(family, dtype), arch)
    if dtype != "float64":
        for sharing, held in HELD:
            yield packed_text(PackedTraits("softmax", dtype, held=held, sharing=sharing), arch)
    for dim in PACKED_DIMS:
        for listed in (False, True):
            yield packed_text(PackedTraits("sddmm", dtype, dim, listed), arch)
            yield packed_text(PackedTraits("spmm", dtype, dim, listed), arch)
            yield packed_text(PackedTraits("spmm", dtype, dim, listed, placed=True), arch)
            yield packed_text(PackedTraits("spmm", dtype, dim, listed, partial=True), arch)
        yield packed_text(PackedTraits("adding", dtype, dim), arch)


@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("capability", sorted(SHARED_BYTES), ids=str)
def test_every_packed_operator_on_every_chip(capability, dtype):
    if "16" in dtype and capability < FIRST_WITH_HALVES:
        pytest.skip("16 bits are refused there")
    for text in packed_texts(arch_of(gpu_of(capability)), dtype, SHARED_BYTES[capability]):
        check(text, capability)


@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("capability", sorted(SHARED_BYTES), ids=str)
def test_every_family_on_every_chip(capability, dtype):
    for dims in DIMS:
        try:
            shapes = traits_of(capability, dims, dtype, ALL)
        except PlanError:
            continue
        for one in shapes:
            check_attention(one, capability)
        check_attention(replace(shapes[0], **PLAIN, resumes=False, hands_on=False, ragged=False), capability)


@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("capability", sorted(SHARED_BYTES), ids=str)
def test_every_family_of_gradients_on_every_chip(capability, dtype):
    for dims in DIMS:
        try:
            texts = list(gradient_texts(capability, dims, dtype))
        except PlanError:
            continue
        for text in texts:
            check(text, capability)


def test_what_a_chip_cannot_hold_is_refused_by_its_sizes():
    assert SIMT.capabilities == set(SHARED_BYTES)
    with pytest.raises(PlanError) as found:
        traits_of((7, 5), (256, 256), "float64", PLAIN)
    assert str(found.value) == (
        "head_dim and value_dim wanted small enough for tiles of 64 queries x 16 keys of float64 in 65,536 bytes of "
        "shared memory and 255 registers a thread, got 256 and 256. Split the heads, or use backend='cpu'."
    )


def fits(dim, dtype, gpu, *, gradients):
    """Whether heads of this size have a tile."""
    problem = Problem(64, 64, dim, dim, dtype)
    try:
        if not gradients:
            return bool(candidates(problem, gpu))
        return all(gradient_candidates(problem, of, gpu) for of in (QUERIES, KEYS))
    except PlanError:
        return False


PAGE = ROOT / "docs" / "gpu.md"


@pytest.mark.parametrize("row", table_below(PAGE, "and refuses what does not."), ids=lambda row: row[0])
def test_the_page_says_how_large_heads_may_be(row):
    """docs/gpu.md has them by capability."""
    chips, *said = row
    for chip in chips.split(", "):
        major, minor = map(int, chip.split("."))
        gpu, found = gpu_of((major, minor)), []
        for dtype in ("float32", "float64"):
            for gradients in (False, True):
                sizes = [dim for dim in range(8, 257, 8) if fits(dim, dtype, gpu, gradients=gradients)]
                found.append(max(sizes))
        assert found == [int(one) for one in said]
