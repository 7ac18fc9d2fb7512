"""Box passes keep every pair of a mask once and no other, with tables that a Hopper kernel can follow."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_numba.arguments.masks import describe, store_mask
from splat_numba.errors import PlanError
from splat_numba.formats import patterns as p
from splat_numba.formats.geometry import geometry
from splat_numba.gen.boxes import search as box_search
from splat_numba.gen.boxes.bits import tile_bits
from splat_numba.gen.boxes.cost import count_box_pass, work_of_cover, work_of_pass
from splat_numba.gen.boxes.cover import cover
from splat_numba.gen.boxes.order import FlatRuns, RowOrder, arrange, class_views, place_on_grid, place_runs
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.schedules.views import Box
from splat_numba.gen.targets.sm90 import tile_shapes
from splat_numba.gen.targets.sm90.target import SM90
from splat_numba.testing import lengths, masks
from tests.gen.box_interpreter import check, check_merged, check_order, kept
from tests.gen.plan_cases import dense

EXAMPLES = 1500 if settings.get_current_profile_name() == "explore" else 100
GPU = Gpu()


def plan_of(
    mask, seq_q, seq_kv, dim=64, dtype="bfloat16", *, ragged=False, negate=False, heads=8, transposed=False
) -> Plan:
    stored = store_mask(mask, seq_q, seq_kv)
    problem = Problem(seq_q, seq_kv, dim, dim, dtype, 1, heads, heads)
    found = geometry(stored, seq_q, seq_kv)
    if transposed:
        found, problem = found.transposed(), problem.transposed()
    return SM90.plan(found, problem, GPU, describe(stored), Conditions(ragged, negate))


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_any_mask(data):
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(masks(seq_q, seq_kv))
    ragged, dim = data.draw(st.booleans()), data.draw(st.sampled_from([64, 128, 256, 16, 80]))
    plan = plan_of(mask, seq_q, seq_kv, dim, ragged=ragged)
    wanted = dense(mask, seq_q, seq_kv)
    check(plan, wanted)
    assert plan.cost.kept == wanted.sum()
    assert plan.cost.area >= plan.cost.kept
    assert plan.cost.tiles >= plan.cost.full >= 0
    for one in plan.passes:
        assert tile_shapes.feasible(one.traits, GPU)
        assert one.traits.ragged == ragged
        assert not (ragged and one.kv_box.outer > 1)
    json.dumps(plan.as_dict())
    assert f"kept        {wanted.sum():,} pairs" in plan.explain()


@settings(max_examples=EXAMPLES // 4)
@given(st.data())
def test_any_mask_transposed(data):
    """Rows are keys: what the gradients of keys and values want."""
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(masks(seq_q, seq_kv))
    plan = plan_of(mask, seq_q, seq_kv, transposed=True)
    wanted = dense(mask, seq_q, seq_kv).T
    check(plan, wanted)
    assert f"kept        {wanted.sum():,} pairs" in plan.explain()


@settings(max_examples=3 * EXAMPLES)
@given(st.data())
def test_any_order_of_rows_with_any_tiles(data):
    """Those too that the cost model would refuse at these lengths."""
    seq_kv = data.draw(st.one_of(lengths(), st.sampled_from([120, 128, 256])))
    seq_q = data.draw(st.one_of(st.just(seq_kv), lengths()))
    mask = data.draw(masks(seq_q, seq_kv))
    problem = Problem(seq_q, seq_kv, 64, 64, "float16")
    runs = FlatRuns.of(geometry(store_mask(mask, seq_q, seq_kv), seq_q, seq_kv).table)
    widths = [w for w in range(2, 65) if seq_q % w == seq_kv % w == 0 and min(seq_q, seq_kv) > 0]
    steps = frozenset(int(step) for step in np.unique(runs.step[runs.step > 1]))
    if widths and data.draw(st.booleans()):
        order = RowOrder(width=data.draw(st.sampled_from(widths)))
        placed = place_on_grid(runs, seq_kv, order.width)
    else:
        order = RowOrder(data.draw(st.sampled_from([1, 2, 3, 4, 7, 64, 130, *sorted(steps)])))
        placed = place_runs(runs, seq_kv, steps if data.draw(st.booleans()) else frozenset(sorted(steps)[1:]))
    resumes = data.draw(st.booleans())
    shape = data.draw(st.sampled_from(tile_shapes.candidates(problem, GPU)))
    part, aligned = (
        box_search.PassRuns(order, placed, resumes, handed_on=data.draw(st.booleans())),
        data.draw(st.booleans()),
    )
    trial = box_search._try(part, shape, problem, tile_shapes.tiles_of(problem, GPU), aligned)
    one = box_search._finish(trial)
    assert not (aligned and (one.table.piece[:, 1] % one.kv_box.inner).any())
    assert np.array_equal(kept(one, seq_q, seq_kv), dense(mask, seq_q, seq_kv))
    check_order(one)
    check_merged(one)
    rows = np.sort(one.table.rows[one.table.rows >= 0])
    if resumes:
        assert (np.diff(rows) > 0).all()
        assert (one.table.block[:, 5] > 0).all()
    else:
        assert np.array_equal(rows, np.arange(seq_q))
    assert one.order == str(order)
    count, listed, covered = count_box_pass(one), work_of_pass(one), work_of_cover(trial.cover)
    assert count.kept == trial.cover.kept == dense(mask, seq_q, seq_kv).sum()
    assert count.area == listed.group_tiles.sum() * 64 * one.tile_kv
    for name in ("tiles", "group_tiles", "masked"):
        busy = getattr(covered, name)
        assert sorted(getattr(listed, name)) == sorted(busy[covered.tiles > 0] if resumes else busy)
    assert tile_shapes.tiles_of(problem, GPU).seconds(work_of_pass(one), one.traits) == pytest.approx(trial.seconds)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 64, 129])
@pytest.mark.parametrize("step", [1, 2, 7, 8, 64, 200])
def test_class_views_hold_every_token_once(length, step):
    views = class_views(length, step)
    found = [
        v.offset + v.inner_step * x + v.outer_step * y for v in views for x in range(v.inner) for y in range(v.outer)
    ]
    assert sorted(found) == list(range(length))


N = 2048
CUTS = (100, 612, 37, 255, 1, 500, 543)
BENCHMARKS = {
    "full": (p.full(), "rows in order"),
    "causal": (p.causal(), "rows in order"),
    "window": (p.window(512), "rows in order"),
    "causal window": (p.window(1024, 0), "rows in order"),
    "dilated": (p.dilated(128, 4), "rows by residue modulo 4"),
    "more dilated": (p.dilated(64, 16), "rows by residue modulo 16"),
    "strided": (p.strided(16), "rows by residue modulo 16"),
    "blocked": (p.blocked(256, 1), "rows in order"),
    "documents": (p.documents(CUTS), "rows in order"),
    "longformer": (p.longformer(256, 64), "rows in order"),
    "bigbird": (p.bigbird(64), "rows in order"),
    "sparse transformer": (p.sparse_transformer_strided(128), None),
    "fixed sparse transformer": (p.sparse_transformer_fixed(128, 8), None),
    "neighborhood": (p.neighborhood((32, 64), 13), "rows on a grid 64 wide"),
    "columns": (p.columns(16, 3), "rows in order"),
    "two strides": (p.strided(2) | p.strided(3), None),
}


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("dim", [64, 128])
def test_the_masks_of_the_benchmarks(name, dim):
    mask, order = BENCHMARKS[name]
    plan = plan_of(mask, N, N, dim)
    check(plan, dense(mask, N, N))
    assert order is None or next(c.chosen for c in plan.choices if c.what == "order of rows") == order
    assert plan.explain() == plan_of(mask, N, N, dim).explain()


def test_columns_that_all_rows_share_are_full_tiles_of_their_lattice():
    (one,) = plan_of(p.columns(16, 3), 4096, 4096).passes
    assert one.table.kv_views == class_views(4096, 16)
    assert not one.traits.partial


def test_a_window_needs_few_masks():
    (one,) = plan_of(p.window(512), 4096, 4096, 128).passes
    assert 0 < len(one.table.bits) <= 6


def test_a_pass_that_resumes_takes_only_rows_with_tiles():
    mask = p.sparse_transformer_strided(128)
    plan = plan_of(mask, 8192, 8192, 128, heads=32)
    assert [one.resumes for one in plan.passes] == [False, True]
    assert "resumes the softmax of an earlier pass" in plan.explain()
    assert plan.out_dtype == "bfloat16"
    assert not plan.closed
    assert plan.covered


def test_key_lengths_forbid_grids():
    mask = p.neighborhood((32, 64), 13)
    plan = plan_of(mask, N, N, ragged=True)
    check(plan, dense(mask, N, N))
    assert all(one.kv_box.outer == 1 and one.traits.ragged for one in plan.passes)


def test_random_masks():
    mask = np.random.default_rng(0).random((1024, 1024)) < 0.5
    check(plan_of(mask, 1024, 1024), mask)


def test_the_sign_of_the_scale_is_a_trait():
    (one,) = plan_of(p.causal(), 64, 64, negate=True).passes
    assert one.traits.negate


def test_masks_are_deduplicated_in_parts_too(monkeypatch):
    monkeypatch.setattr("splat_numba.gen.boxes.bits.WORD_BUDGET", 1 << 10)
    mask = p.window(50, 3) | p.sinks(5)
    check(plan_of(mask, 700, 700), dense(mask, 700, 700))


def test_masks_of_one_hash_are_all_kept(monkeypatch):
    monkeypatch.setattr("splat_numba.gen.boxes.bits._hashes", lambda masks: np.zeros(len(masks), np.uint64))
    runs = FlatRuns.of(geometry(p.window(50, 3), 700, 700).table)
    made = cover(arrange(RowOrder(), 700, 1), place_runs(runs, 700, frozenset()), Box(64))
    _, bits = tile_bits(made)
    assert len(bits) == (made.status == 2).sum()


def test_other_types_are_refused():
    with pytest.raises(PlanError) as caught:
        plan_of(p.causal(), 64, 64, dtype="float32")
    assert str(caught.value) == (
        "dtype wanted as float16 or bfloat16 on sm_90a, whose tensor cores take 16-bit inputs, got float32. "
        "Convert q, k and v, or use backend='cpu'."
    )


def test_heads_too_large_for_any_tile_are_refused():
    with pytest.raises(PlanError, match=r"head_dim and value_dim wanted small enough .* got 1024 and 1024\. Split"):
        plan_of(p.causal(), 64, 64, 1024)


@pytest.mark.parametrize("dim", [1, 8, 16, 33, 64, 80, 96, 128, 192, 256])
def test_common_head_dimensions_have_shapes(dim):
    found = tile_shapes.candidates(Problem(64, 64, dim, dim, "float16"), GPU)
    assert 0 < len(found) <= 10
    assert all(tile_shapes.feasible(one, GPU) for one in found)


def test_known_shapes_are_feasible_and_others_are_not():
    for dim, groups, tile_kv, resident in [(128, 2, 128, 1), (128, 3, 80, 1), (64, 3, 128, 1), (128, 1, 80, 2)]:
        assert tile_shapes.feasible(Traits(dim, dim, "float16", groups, tile_kv, 2, resident), GPU)
    for dim, groups, tile_kv, resident in [(128, 2, 256, 1), (128, 3, 128, 1), (128, 1, 176, 2), (64, 2, 64, 2)]:
        assert not tile_shapes.feasible(Traits(dim, dim, "float16", groups, tile_kv, 2, resident), GPU)
    assert not tile_shapes.feasible(Traits(64, 64, "float16", 1, 64, 2, 1), Gpu(registers=32768))


def test_an_empty_problem_has_a_plan():
    for seq_q, seq_kv in ((0, 0), (0, 5), (5, 0)):
        plan = plan_of(np.zeros((seq_q, seq_kv), bool), seq_q, seq_kv)
        assert (plan.cost.kept, plan.cost.area) == (0, 0)
        assert plan.cost.seconds > 0
        check(plan, np.zeros((seq_q, seq_kv), bool))


def test_explain_names_the_machine_and_the_boxes():
    text = plan_of(p.neighborhood((32, 64), 13), N, N).explain()
    assert "target      sm_90a, 132 multiprocessors, 227 KiB of shared memory a block" in text
    assert "the kernel serves every mask and length, with tables made for these" in text
    assert "rows on a grid 64 wide" in text
    assert "masks listed" in text
