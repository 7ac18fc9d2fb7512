"""Products on tensor cores compile and link without a GPU for chips of every generation: no spills, no local memory.

A part runs in every commit; SPLAT_TEST_EVERY_CHIP=1 compiles all texts for all chips (minutes).
"""

import ast
import os
import re
from pathlib import Path

import pytest

from flurka_numba.feature_maps import resolve
from flurka_numba.targets.gpu.compiled import CompiledText
from flurka_numba.targets.sm80.direct_product import DirectProductTraits
from flurka_numba.targets.sm80.direct_shape import direct_tile, stages_for
from flurka_numba.targets.sm80.product import WarpProductTraits
from flurka_numba.targets.sm80.product_ends import Divide, DividePull, Slope
from flurka_numba.targets.sm80.product_shape import tile_of
from flurka_numba.targets.sm80.rows_product import RowsProductTraits
from flurka_numba.targets.sm80.rows_shape import stays_in_shared_memory
from splat_numba.gen.plans.machine import SHARED_BYTES
from splat_numba.gen.targets.sm80.target import SM80
from splat_numba.runtime.cuda.code import cubin_for
from splat_numba.settings import current
from tests.flurka.strategies import MAPS
from tests.gen.golden_text import golden

ELU, CORNERS, SOFTPLUS = (resolve(MAPS[name], None)[0] for name in ("elu", "corners", "softplus"))
B, H, F = "bfloat16", "float16", "float32"
GOLDEN = Path(__file__).parent / "golden" / "divided.txt"


def product(dtypes, tile, **options):
    return WarpProductTraits(*dtypes, *tile, **options)


TEXTS = {
    "state": product((B, B, F), (64, 80), a_turned=True, a_map=ELU, b_ones=True),
    "state of random features": product((F, B, F), (128, 80), a_turned=True, b_ones=True),
    "state of slots": product((F, F, F), (128, 144), a_turned=True, a_map=CORNERS, b_ones=True),
    "divided": product((B, F, B), (128, 80), a_map=ELU, end=Divide("plus_eps", 1e-6, 64)),
    "divided, wide": product((F, F, H), (128, 144), end=Divide("guarded", 1e-3, 128)),
    "pulled": product((B, F, F), (128, 80), a_map=ELU, end=DividePull("plus_eps", 1e-6, 64, B)),
    "pulled, wide": product((H, F, F), (128, 144), a_map=SOFTPLUS, end=DividePull("plain", 0.0, 128, H)),
    "gradient of states": product((B, F, F), (64, 80), a_turned=True, a_map=ELU),
    "gradient of random features": product((F, F, F), (128, 128), b_turned=True),
    "slopes": product((F, F, B), (128, 64), b_turned=True, end=Slope(ELU, B)),
    "slopes of keys, wide": product((H, F, H), (128, 128), b_turned=True, a_ones=True, end=Slope(CORNERS, H)),
    "slots": DirectProductTraits(B, F, 256, 128, 3),
    "slots of each head": DirectProductTraits(H, F, 128, 64, 4),
    "few slots": DirectProductTraits(H, B, 64, 128, 3),
    "tokens from slots": DirectProductTraits(B, B, 128, 128, 3, a_turned=True),
    "projections from slots": DirectProductTraits(B, B, 256, 128, 3, b_turned=True),
    "both turned": DirectProductTraits(H, H, 64, 64, 3, a_turned=True, b_turned=True),
    "divided rows": RowsProductTraits(B, F, B, 64, 80, a_map=ELU, end=Divide("plus_eps", 1e-6, 64)),
    "pulled rows": RowsProductTraits(B, F, F, 64, 80, a_map=ELU, end=DividePull("plus_eps", 1e-6, 64, B)),
    "slopes of rows": RowsProductTraits(F, F, B, 96, 64, b_turned=True, end=Slope(ELU, B)),
    "slopes of rows of keys": RowsProductTraits(H, F, H, 96, 64, b_turned=True, a_ones=True, end=Slope(CORNERS, H)),
    "rows of features": RowsProductTraits(F, F, F, 96, 80),
    "rows of wide features": RowsProductTraits(B, F, B, 96, 80, a_map=SOFTPLUS, end=Divide("plain", 0.0, 64)),
    "gradient of a projection": product((F, B, B), (128, 128), b_turned=True),
    "gradient of tokens": product((H, F, H), (128, 64), a_turned=True),
    "scores": product((H, F, F), (128, 128), b_turned=True),
}
USUAL = (("slopes of rows", (8, 6)), ("state", (12, 0)), ("tokens from slots", (8, 9)))


def check(name, capability):
    text = CompiledText(TEXTS[name], "sm_{}{}".format(*capability))
    report = cubin_for(text, current()).report
    assert report.warnings == ()
    assert report.spill_bytes == 0, report.log
    assert re.findall(r"(\d+) bytes stack frame", report.log) == ["0"], "an array is no registers"
    assert report.registers * text.entry.threads * text.entry.blocks <= 1 << 16
    assert report.shared_bytes <= SHARED_BYTES[capability]


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.parametrize(("name", "capability"), USUAL, ids=str)
def test_a_product_compiles_into_registers(name, capability):
    check(name, capability)


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.skipif(os.environ.get("SPLAT_TEST_EVERY_CHIP") != "1", reason="SPLAT_TEST_EVERY_CHIP is not 1")
@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
@pytest.mark.parametrize("name", TEXTS)
def test_every_product_on_every_chip(name, capability):
    check(name, capability)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_are_pure_and_take_the_parameters_of_their_entries(text):
    assert text.render() == text.render()
    function = next(node for node in ast.parse(text.render()).body if isinstance(node, ast.FunctionDef))
    assert function.name == text.entry.name
    assert [one.arg for one in function.args.args] == [name for name, _ in text.entry.parameters]


def test_the_source_is_the_golden_one(update_golden):
    """After a change of the emitters --update-golden writes it anew."""
    text = product((B, F, B), (64, 16), a_map=ELU, end=Divide("plus_eps", 1e-6, 8)).render()
    assert text == golden(GOLDEN, text, update=update_golden), f"{GOLDEN} differs: read it, then --update-golden"


def test_tiles_are_as_wide_as_their_columns():
    assert tile_of(64, 65) == (64, 80)
    assert tile_of(65536, 64) == (128, 64)
    assert tile_of(256, 65536) == (128, 144)
    assert tile_of(20, 150) == (64, 80)
    assert tile_of(1, 1) == (64, 16)


def test_steps_are_long_where_both_operands_have_16_bits_and_room():
    long = {name for name, one in TEXTS.items() if isinstance(one, WarpProductTraits) and one.depth == 64}
    assert long == {"state"}
    assert {one.depth for one in TEXTS.values() if isinstance(one, WarpProductTraits)} == {64, 32}


def test_products_of_operands_as_they_are():
    assert direct_tile((256, 65536, 1024), 1) == (256, 128)
    assert direct_tile((256, 65536, 64), 1) == (128, 64)
    assert direct_tile((65536, 256, 1024), 1) == (128, 128)
    assert direct_tile((256, 64, 65536), 16) == (256, 128)
    assert direct_tile((5, 20, 8), 1) == (64, 64)
    assert (stages_for(99 << 10), stages_for(163 << 10)) == (3, 4)
    assert stays_in_shared_memory((65536, 65, 64), F, a_turned=False)
    assert not stays_in_shared_memory((255, 65, 64), F, a_turned=False)  # rows
    assert not stays_in_shared_memory((65536, 97, 64), F, a_turned=False)
    assert not stays_in_shared_memory((65536, 65, 81), F, a_turned=False)
    assert not stays_in_shared_memory((65536, 65, 64), F, a_turned=True)
    assert not stays_in_shared_memory((65536, 65, 64), B, a_turned=False)
    with pytest.raises(ValueError, match="dtype wanted as one of bfloat16, float16, got float32"):
        DirectProductTraits(F, F, 64, 64, 3)


def test_pieces():
    """Numbers of one 16-bit type go to tensor cores as they are; else bfloat16 takes two pieces of what is wider."""
    found = {name: (one.kind, *(side.pieces for side in one.operands)) for name, one in TEXTS.items()}
    assert found["slots"] == (B, 1, 1)
    assert found["slots of each head"] == (H, 1, 1)
    assert found["state"] == (B, 2, 1)
    assert found["scores"] == (B, 2, 2)
    assert found["divided"] == (B, 2, 2)
