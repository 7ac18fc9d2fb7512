"""Hopper kernels of every family compile and link without a GPU, spill no register, and give ptxas nothing to warn of.

A warning here is a lost kernel: C7512 says that matrix products are serialised, C7504 that setmaxnreg is ignored.
A covering set, since each takes seconds: every option, tile, type, and number of groups and of resident blocks, among
them the shapes with the fewest registers to spare.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from splat_numba.errors import BackendError
from splat_numba.executors.gpu.executor import disassemble
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.targets.sm90.attention import attention_entry
from splat_numba.gen.targets.sm90.schedule import attention_text
from splat_numba.gen.targets.sm90.shape import REGISTERS, shared_bytes
from splat_numba.gen.targets.sm90.tile_shapes import TILES_KV, feasible
from splat_numba.runtime.cuda.build import build, ptx
from splat_numba.runtime.cuda.code import source_of
from splat_numba.runtime.cuda.compilers.compiler import chosen
from splat_numba.settings import current
from tests.gen.sm90_traits import DTYPES, GOLDEN, shapes

OPTIONS = {
    "plain": {"partial": False, "skips": False},
    "partial": {"partial": True, "skips": False},
    "skips": {"partial": True, "skips": True},
    "ragged": {"partial": True, "skips": True, "ragged": True},
    "resumes": {"partial": True, "skips": True, "resumes": True},
    "hands_on": {"partial": True, "skips": True, "hands_on": True},
    "negate": {"partial": True, "skips": False, "negate": True},
    "all": {"partial": True, "skips": True, "ragged": True, "resumes": True, "hands_on": True, "negate": True},
}
# (head_dim, value_dim, dtype, groups, tile_kv, options)
COVER = (
    (64, 64, "float16", 1, 64, "partial"),
    (64, 64, "float16", 1, 128, "plain"),
    (32, 32, "bfloat16", 1, 80, "ragged"),
    (256, 256, "bfloat16", 1, 96, "negate"),
    (64, 64, "bfloat16", 2, 128, "plain"),
    (128, 128, "bfloat16", 2, 128, "skips"),
    (128, 128, "float16", 2, 128, "resumes"),
    (192, 192, "bfloat16", 2, 112, "negate"),
    (96, 96, "bfloat16", 2, 128, "ragged"),
    (33, 17, "float16", 2, 64, "all"),
    (64, 64, "float16", 3, 128, "skips"),
    (128, 128, "bfloat16", 3, 80, "hands_on"),
    (80, 80, "float16", 3, 112, "resumes"),
    (96, 96, "bfloat16", 3, 96, "negate"),
    (20, 20, "bfloat16", 3, 64, "all"),
)


def has_disassembler() -> bool:
    """NVIDIA's is no part of the extra."""
    try:
        disassemble(b"")
    except BackendError as error:
        return "got neither" not in str(error)
    return True


pytestmark = pytest.mark.usefixtures("cuda_compiler")


def traits_of(case):
    head_dim, value_dim, dtype, groups, tile_kv, options = case
    (one,) = (
        one for one in shapes(head_dim, value_dim, dtype) if (one.groups, one.tile_kv) == (groups, tile_kv)
    )  # fmt: skip
    chosen = OPTIONS[options]
    return replace(one, **{**chosen, "skips": chosen["skips"] and groups > 1})


# Bytes that kernels may spill: (groups, of masks of key lengths, keys of a tile, None for any) -> (bytes, why).
PRODUCER = "in the producer, of 24 or 32 registers, which waits for copies anyway; more would be the consumers' loss"
ALLOWED = {
    (2, "ragged", None): (320, PRODUCER),
    (3, "ragged", None): (240, PRODUCER),
    (2, "masked", 64): (48, PRODUCER),
    (3, "masked", 64): (48, PRODUCER),
}


def allowed_spills(one: Traits) -> int:
    """Bytes, 0 for all but the exceptions."""
    family = "ragged" if one.ragged else "masked" if one.partial else "plain"
    found = [ALLOWED.get((one.groups, family, tile), (0, "")) for tile in (None, one.tile_kv)]
    return max(size for size, _ in found)


def spills_among_products(cubin: bytes) -> list[str]:
    """Lines of assembly that spill, from the first matrix product to the last: the consumers' loop."""
    lines = disassemble(cubin).splitlines()
    products = [number for number, line in enumerate(lines) if "HGMMA" in line]
    assert products
    return [line.strip() for line in lines[products[0] : products[-1]] if re.search(r"\b(STL|LDL)\b", line)]


@pytest.mark.parametrize("case", COVER, ids=lambda case: "-".join(map(str, case)))
def test_a_kernel_compiles_without_spills_and_warnings(case):
    one = traits_of(case)
    cubin = build(source_of(attention_text(one)), attention_entry(one), current())
    report = cubin.report
    assert report.warnings == ()
    assert report.spill_bytes <= allowed_spills(one), report.log
    if report.spill_bytes and has_disassembler():
        assert spills_among_products(cubin.code) == []
    assert report.shared_bytes == shared_bytes(one) <= Gpu().shared_bytes
    resident = one.blocks_per_multiprocessor
    assert report.registers * 128 * (one.groups + 1) * resident <= Gpu().registers  # at launch, before setmaxnreg


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_kernel_compiles(name):
    report = build(source_of(attention_text(GOLDEN[name])), attention_entry(GOLDEN[name]), current()).report
    assert report.warnings == ()
    assert report.spill_bytes <= allowed_spills(GOLDEN[name]), report.log


def test_the_cover_has_every_option_tile_type_and_number_of_groups_and_blocks():
    kinds = [traits_of(case) for case in COVER]
    assert all(feasible(one, Gpu()) for one in kinds)
    assert {options for *_, options in COVER} == set(OPTIONS)
    assert {one.tile_kv for one in kinds} == set(TILES_KV)
    assert {one.dtype for one in kinds} == set(DTYPES)
    assert {(one.groups, one.blocks_per_multiprocessor) for one in kinds} == set(REGISTERS)


def test_setmaxnreg_and_wgmma_are_what_the_text_says():
    found = ptx(source_of(attention_text(GOLDEN["masked"])), attention_entry(GOLDEN["masked"]), chosen(None))
    producer, consumer = REGISTERS[2, 1]
    assert f"setmaxnreg.dec.sync.aligned.u32 {producer};" in found
    assert f"setmaxnreg.inc.sync.aligned.u32 {consumer};" in found
    assert "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16" in found
    assert "cp.async.bulk.tensor.5d" in found
    assert ".local" not in found.split("setmaxnreg", 1)[1]  # arrays of the text are registers
