"""Texts by numba-cuda-mlir, the second compiler, where it is installed: CI has the first."""

import re

import pytest

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.targets.simt.packed.texts import packed_text
from splat_numba.gen.targets.sm80.packed.texts import tiled_text
from splat_numba.gen.targets.sm90.attention import attention_entry
from splat_numba.gen.targets.sm90.schedule import attention_text
from splat_numba.runtime.cuda.build import build, ptx
from splat_numba.runtime.cuda.code import source_of
from splat_numba.runtime.cuda.compilers.compiler import chosen
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings
from tests.gen.simt_traits import GOLDEN_PACKED
from tests.gen.sm80_traits import GOLDEN_TILED
from tests.gen.sm90_traits import GOLDEN


@pytest.fixture(autouse=True)
def compiler():
    pytest.importorskip("numba_cuda_mlir", reason="needs the extra cuda-mlir")


def by_mlir(made):
    return build(source_of(made), made.entry, Settings(cache=False, cuda_compiler="mlir")).report


def test_a_hopper_kernel_by_mlir_has_nothing_to_warn_of():
    """Arrays of device functions that stay in memory serialise the matrix products (C7514)."""
    report = by_mlir(attention_text(GOLDEN["plain"]))
    assert (report.registers, report.spill_bytes, report.warnings) == (128, 0, ())


def test_mlir_keeps_variables_that_two_branches_set_in_registers():
    assert " 0 bytes stack frame" in by_mlir(tiled_text(GOLDEN_TILED["packed_spmm"], "sm_90")).log


def test_mlir_takes_the_bits_of_numbers_as_other_numbers():
    made = packed_text(GOLDEN_PACKED["sddmm_runs"], "sm_90")
    assert ".view(np.float32)" in made.render()
    assert by_mlir(made).spill_bytes == 0


def test_mlir_compiles_each_device_function_once(monkeypatch):
    from numba_cuda_mlir import mlir_compiler

    compiled, own = [], mlir_compiler.compile_mlir

    def noted(function, returned, arguments, *rest, **options):
        compiled.append((function.__name__, arguments))
        return own(function, returned, arguments, *rest, **options)

    monkeypatch.setattr(mlir_compiler, "compile_mlir", noted)
    made = packed_text(GOLDEN_PACKED["softmax"], "sm_90")
    by_mlir(made)
    defined = set(re.findall(r"^def (\w+)", made.render(), re.MULTILINE))
    assert len(defined & {name for name, _ in compiled}) > 5
    assert len(compiled) == len(set(compiled))


def test_the_least_of_unsigned_numbers():
    """2^32 - 1, which stands for no limit, is not -1; conversions, shifts and divisions are unsigned, too."""
    entry = attention_entry(Traits(64, 64, "float16", 1, 64, 2, 1))
    names = ", ".join(name for name, _ in entry.parameters)
    text = f"""import numpy as np
from splat_numba.runtime.cuda.dialect import cuda, ptx


def attention({names}):
    ptx.store_word(out, min(blocks, seq_q), max(batch, np.uint32(1)))
    ptx.store_word(lse, blocks // seq_q, blocks >> np.uint32(3))
    ptx.store_real(lse, np.float32(blocks), np.uint32(1) if blocks < batch else np.uint32(0))
"""
    found = ptx(KernelSource.of("least", text), entry, chosen("mlir"))
    assert {"min.u32", "max.u32", "div.u32", "cvt.rn.f32.u32"} <= set(re.findall(r"[a-z]+(?:\.[a-z0-9]+)+", found))
    assert not re.search(r"(min|max|div|shr|setp\.\w+)\.s(32|64)|cvt\.rn\.f32\.s", found)
