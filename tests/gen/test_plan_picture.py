"""Pictures of plans: of every kind of pass they show the pairs that the mask keeps, and those computed beside."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.formats.raster import part_picture
from splat_numba.gen.shown.picture import explain_rows, plan_picture

MASKS = [
    "window(100) | sinks(4)", "causal()", "strided(16) | window(20)", "bigbird(64)", "dilated(40, 3)",
    "longformer(50, 10)", "(window(70, 0) | sinks(9)).align_end()", "columns(48, 40, 3) & causal()",
    "blocked(100) & causal()", "strided(5000)",
]  # fmt: skip
TARGETS = [
    {"dtype": "float32"},
    {"dtype": "float16", "backend": "cuda", "target": "sm_90a"},
    {"dtype": "float32", "backend": "cuda", "target": "simt"},
]


def parsed(text):
    return ET.fromstring(text)  # noqa: S314 - our own text


def plan_of(mask, seq_q, seq_kv, **options):
    return splat.plan(mask, seq_q=seq_q, seq_kv=seq_kv, head_dim=64, **options)


def check(plan, mask):
    """The picture's cells are those of the mask, and what is computed is no less."""
    picture = plan_picture(plan, 64)
    wanted = part_picture(
        splat.ACSR.from_pattern(mask, plan.problem.seq_q, plan.problem.seq_kv), picture.rows, picture.cols, 64
    )
    np.testing.assert_allclose(picture.kept, wanted.kept, atol=1e-12)
    assert picture.caption == wanted.caption
    shares = {layer.name: layer.shares for layer in picture.computed}
    assert all((share >= -1e-12).all() for share in shares.values())
    assert sum(share.sum() for share in shares.values()) > 0
    return picture


@pytest.mark.parametrize("options", TARGETS, ids=["cpu", "sm_90a", "simt"])
@pytest.mark.parametrize("text", MASKS)
def test_what_is_kept_is_what_the_mask_keeps(text, options):
    mask = splat.parse(text)
    seq_q, seq_kv = (700, 1300) if "align_end" in text else (1300, 1300)
    check(plan_of(mask, seq_q, seq_kv, **options), mask)


@pytest.mark.parametrize("options", TARGETS, ids=["cpu", "sm_90a", "simt"])
def test_grids_and_packed_batches_have_a_picture(options):
    check(plan_of(splat.neighborhood((24, 32), 7), 768, 768, **options), splat.neighborhood((24, 32), 7))
    documents = splat.documents((300, 17, 451)) & splat.causal()
    check(plan_of(documents, 768, 768, **options), documents)


def test_full_tiles_and_waste_are_those_that_the_plan_counts():
    plan = plan_of(splat.causal(), 512, 512, dtype="float32")
    picture = plan_picture(plan, 512)
    assert picture.whole
    pairs = {}
    for layer in picture.computed:
        pairs[layer.name] = pairs.get(layer.name, 0) + round(layer.shares.sum())
    (one,) = plan.passes
    assert pairs["pass 0, full tiles"] == plan.cost.full * one.tile_q * one.tile_kv
    assert sum(pairs.values()) == plan.cost.area
    assert pairs["computed, not kept"] == plan.cost.area - plan.cost.kept


def test_a_plan_of_a_million_tokens_has_a_small_picture():
    plan = plan_of(splat.window(1000) | splat.strided(65536), 1 << 20, 1 << 20, dtype="float32")
    assert len(plan._repr_html_()) < 60_000


def test_a_plan_is_shown_with_all_that_explain_says():
    plan = plan_of(splat.bigbird(64), 1024, 1024, dtype="float32")
    root = parsed(plan._repr_html_())
    shown = " ".join("".join(root.itertext()).split())
    for name, text in explain_rows(plan):
        assert " ".join(text.split()) in shown
        assert name in shown
    assert [f"{name:<12}{text}".strip() for name, text in explain_rows(plan)][:7] == plan.explain().splitlines()[:7]


def test_draw_gives_its_axes_with_a_legend():
    axis = pytest.importorskip("matplotlib.figure").Figure().subplots()
    assert plan_of(splat.window(200), 2048, 2048, dtype="float32").draw(axis) is axis
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "pass 0, full tiles", "pass 0, partial tiles", "computed, not kept",
    ]  # fmt: skip
    assert axis.images


def test_nothing_to_run_is_an_empty_picture():
    plan = plan_of(splat.sinks(0), 64, 64, dtype="float32")
    assert not plan_picture(plan, 64).dots.any()
    assert "<svg" in plan._repr_html_()
