"""The instructions' assembly: every operand has its place, and each is a function that texts can call."""

from __future__ import annotations

import importlib
import re

import pytest

from splat_numba.gen.language.instructions import FAMILIES, INSTRUCTIONS, MatrixProduct, set_registers
from splat_numba.settings import CUDA_COMPILERS

BY_NAME = {one.name: one for one in INSTRUCTIONS}
PRODUCTS = [
    MatrixProduct(columns, dtype, from_registers, transposed, fresh=fresh)
    for columns in (8, 64, 80, 128, 256)
    for dtype in ("float16", "bfloat16")
    for from_registers in (True, False)
    for transposed in (True, False)
    for fresh in (True, False)
]


def places(assembly):
    return [int(number) for number in re.findall(r"\$(\d+)", assembly)]


def test_names_are_unique_and_names():
    assert len(BY_NAME) == len(INSTRUCTIONS)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) for name in BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_result_and_operand_has_its_place(name):
    one = BY_NAME[name]
    assert set(one.results) | set(one.operands) <= set("rlfd")
    assert set(places(one.assembly)) == set(range(len(one.results) + len(one.operands)))


@pytest.mark.parametrize("name", BY_NAME)
def test_assembly_is_whole(name):
    text = BY_NAME[name].assembly
    for opening, closing in ("{}", "[]", "()"):
        assert text.count(opening) == text.count(closing)
    assert text.endswith((";", "}"))
    assert (text.startswith("{ .reg")) == (".reg" in text)  # registers of its own are in a scope of its own


@pytest.mark.parametrize(
    "name", [name for name, one in BY_NAME.items() if "@p" in one.assembly and "bra" not in one.assembly]
)
def test_predicates_are_the_last_operand_and_words(name):
    one = BY_NAME[name]
    last = len(one.results) + len(one.operands) - 1
    assert f"setp.ne.b32 p, ${last}, 0;" in one.assembly
    assert one.operands[-1] == "r"
    assert places(one.assembly).count(last) == 1
    assert one.ordered


@pytest.mark.parametrize("name", BY_NAME)
def test_what_touches_memory_or_waits_is_ordered(name):
    one = BY_NAME[name]
    free = re.match(r"(\{ .*)?(mov|setp|selp|ex2|lg2|rcp|sqrt|max|cvt|ld\.global\.nc)\b", one.assembly)
    effects = re.search(
        r"\b(st|atom|bar|mbarrier|fence|wgmma|cp|ld\.shared|ld\.global\.b32|ld\.global\.f32)\b", one.assembly
    )
    assert bool(effects) <= one.ordered
    if not one.ordered:
        assert free
        assert one.results, "one that gives nothing and may be dropped does nothing"


@pytest.mark.parametrize("product", PRODUCTS, ids=str)
def test_a_matrix_product_has_a_register_for_every_two_columns(product):
    assert product.registers == product.columns // 2  # 64 rows x columns over 128 threads
    accumulators, operands = range(product.registers), len(product.operands)
    # Results; then, unless it is fresh, the same as operands tied to them, which the text does not name.
    first = product.registers * (1 if product.fresh else 2)
    assert set(places(product.assembly)) == {*accumulators, *range(first, first + operands)}
    assert len(places(product.assembly)) == product.registers + operands
    shape = f"m64n{product.columns}k16"
    kind = {"float16": "f16", "bfloat16": "bf16"}[product.dtype]
    assert f"wgmma.mma_async.sync.aligned.{shape}.f32.{kind}.{kind} " in product.assembly
    assert product.operands == ("rrrrl" if product.from_registers else "ll" if product.fresh else "llr")


def test_the_last_immediate_says_how_the_right_operand_is_stored():
    for product in PRODUCTS:
        immediates = re.findall(r"(?:, -?[01])+;", product.assembly)[-1].rstrip(";").split(", ")[1:]
        scales, layouts = immediates[:-1], immediates[-1]
        assert layouts == str(int(product.transposed))
        if product.from_registers or product.fresh:
            assert scales[0] == str(int(not product.fresh))
            scales = scales[1:]
        assert scales == (["1", "1"] if product.from_registers else ["1", "1", "0"])


@pytest.mark.parametrize("claim", [True, False])
def test_register_counts_are_in_the_text(claim):
    one = set_registers(240, claim=claim)
    assert one.assembly == f"setmaxnreg.{'inc' if claim else 'dec'}.sync.aligned.u32 240;"
    assert (one.results, one.operands, one.ordered) == ("", "", True)
    assert one.name not in BY_NAME


@pytest.mark.parametrize("compiler", CUDA_COMPILERS)
def test_every_instruction_is_a_function_that_texts_can_call(compiler):
    needed, module = {"numba-cuda": ("numba_cuda", "numba_cuda_ptx"), "mlir": ("numba_cuda_mlir", "mlir_ptx")}[compiler]
    pytest.importorskip(needed)
    ptx = importlib.import_module(f"splat_numba.runtime.cuda.compilers.{module}")
    assert [name for name in (*BY_NAME, *FAMILIES) if not hasattr(ptx, name)] == []
