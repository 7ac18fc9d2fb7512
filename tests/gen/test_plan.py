"""Plans: what they count and predict, what they cost to make, and what they say about themselves."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba.errors import PlanError
from splat_numba.formats import patterns as p
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.rows.passes import ClosedPass, TablePass
from splat_numba.plain import counted, duration
from splat_numba.testing import lengths, masks
from tests.gen.plan_cases import plan_of, table_plan_of

DTYPES = ("float16", "bfloat16", "float32", "float64")


def test_a_mask_that_keeps_nothing_costs_a_launch():
    """Found by test_any_mask_has_a_plan_whose_counts_are_right: its plan has no pass, and was predicted to take 0 s."""
    cost = plan_of(p.global_tokens(0), 1, 1).cost
    assert (cost.kept, cost.area) == (0, 0)
    assert cost.seconds > 0


@settings(max_examples=150)
@given(st.data())
def test_any_mask_has_a_plan_whose_counts_are_right(data):
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(masks(seq_q, seq_kv))
    plan = plan_of(mask, seq_q, seq_kv, data.draw(st.sampled_from(DTYPES)))
    nnz = ACSR.from_pattern(mask, seq_q, seq_kv).nnz if isinstance(mask, p.Pattern) else int(mask_sum(mask))
    cost = plan.cost
    assert cost.kept == nnz
    assert cost.area >= cost.kept
    assert cost.tiles >= cost.full >= 0
    assert cost.area <= cost.tiles * max((one.tile_q * one.tile_kv for one in plan.passes), default=0)
    assert 0 <= cost.fill <= 1
    assert 0 < cost.seconds < 1
    assert 0 < cost.dense_seconds < 1
    for one in plan.passes:
        assert one.tile_q % (2 * plan.machine.lanes(8 if plan.problem.dtype == "float64" else 4)) == 0
    text = plan.explain()
    assert f"kept        {nnz:,} pairs" in text
    json.dumps(plan.as_dict())


def test_gathered_keys_that_all_rows_keep_are_counted_once():
    assert plan_of(np.array([[True, False, True, True, False, False, True]]), 1, 7).cost.kept == 4


def mask_sum(mask):
    return mask.nnz if isinstance(mask, ACSR) else mask.sum()


@pytest.mark.parametrize(
    "pattern",
    [
        p.window(100),
        p.causal(),
        p.causal().align_end(),
        p.dilated(30, 7),
        p.strided(129),
        p.blocked(96, 1),
        p.longformer(40, 3),
        p.sparse_transformer_strided(100),
        p.prefix(1000),
    ],
    ids=str,
)
def test_counts_stay_exact_beyond_the_sampled_number_of_blocks(pattern):
    plan = plan_of(pattern, 9001, 8500)
    assert plan.cost.blocks > 128
    assert plan.cost.kept == ACSR.from_pattern(pattern, 9001, 8500).nnz


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        (p.full(), lambda n: n * n),
        (p.causal(), lambda n: n * (n + 1) / 2),
        (p.window(500), lambda n: n * 1001),
        (p.dilated(50, 7), lambda n: n * 101),
        (p.blocked(96), lambda n: n * 96),  # 96 rows a chunk: a block of 64 rows meets one or two, by turns
        (p.columns(96, 0, 8) & p.causal(), lambda n: n * n / 2 / 12),
        (p.longformer(40, 3), lambda n: n * 87),
    ],
    ids=lambda value: str(value) if isinstance(value, p.Pattern) else "",
)
def test_counts_of_two_billion_rows_are_estimated_closely_from_a_few_blocks(pattern, kept):
    length = 2**31 - 1
    plan = splat.plan(pattern, seq_q=length, seq_kv=length, head_dim=64, dtype="float32")
    assert not plan.cost.exact
    assert plan.cost.kept == pytest.approx(kept(length), rel=2e-3)
    assert "kept        about " in plan.explain()


def test_a_closed_plan_and_a_table_plan_count_the_same_pairs():
    for pattern in (p.window(20, 3), p.dilated(5, 3) | p.sinks(4), p.longformer(12, 5)):
        assert plan_of(pattern, 300, 257).cost.kept == table_plan_of(pattern, 300, 257).cost.kept


def million(pattern) -> Plan:
    return splat.plan(pattern, seq_q=1_000_000, seq_kv=1_000_000, head_dim=64, heads_q=8, dtype="float32")


@pytest.mark.parametrize(
    "make",
    [
        p.window,
        lambda size: p.causal() & p.window(10**6 + size),
        lambda size: p.dilated(size, 4),
        p.strided,
        lambda size: p.blocked(size, 1),
    ],
    ids=["window", "causal", "dilated", "strided", "blocked"],
)
def test_a_plan_at_a_million_tokens_takes_under_a_mebibyte_and_makes_no_runs(make, monkeypatch):
    def refuse(*_):
        raise AssertionError("a plan from a closed form wanted no runs")

    monkeypatch.setattr("splat_numba.formats.geometry.pattern_runs", refuse)
    million(make(500))  # imports and caches
    fresh = make(517)
    tracemalloc.start()
    try:
        plan = million(fresh)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.closed
    assert peak < 2**20


def test_an_empty_problem_has_a_plan():
    for seq_q, seq_kv in ((0, 0), (0, 5), (5, 0)):
        for mask in (p.causal(), np.zeros((seq_q, seq_kv), bool)):
            plan = plan_of(mask, seq_q, seq_kv)
            assert plan.cost.kept == plan.cost.area == 0
            assert plan.cost.fill == 1.0


def test_a_machine_too_wide_for_any_tile_is_refused():
    with pytest.raises(PlanError) as caught:
        plan_of(p.causal(), 64, 64, machine=Machine(vector_bytes=1024))
    assert str(caught.value) == "machine wanted with at most 128 lanes a register tile, got 512."


def test_float64_fills_registers_with_half_as_many_lanes():
    assert Machine(32).lanes(8) == 4
    assert Machine(64, 32).register_rows == 8
    assert Machine(32, 16).register_rows == 4


def test_sixteen_bit_results_are_kept_in_float32_between_passes():
    assert plan_of(p.causal(), 64, 64, "float16").out_dtype == "float16"
    resumed = plan_of(p.sparse_transformer_strided(128), 4096, 4096, "float16")
    assert any(one.resumes for one in resumed.passes)
    assert resumed.out_dtype == "float32"
    assert plan_of(p.sparse_transformer_strided(128), 4096, 4096, "float64").out_dtype == "float64"


@given(st.integers(0, 400), st.integers(1, 40))
def test_plans_of_equal_masks_are_equal(left, step):
    pattern = p.window(left, 0) | p.strided(step)
    first, second = plan_of(pattern, 1000, 1000), plan_of(p.window(left, 0) | p.strided(step), 1000, 1000)
    assert first == second
    assert first.explain() == second.explain()


@given(st.sampled_from([p.window(20), p.causal(), p.longformer(8, 2)]), lengths(), lengths())
def test_lengths_near_each_other_share_their_tiles(pattern, seq_q, seq_kv):
    """So calls of many lengths share one text."""
    assume(64 < seq_q <= 1024 and 64 < seq_kv <= 1024)
    assert plan_of(pattern, seq_q, seq_kv).passes == plan_of(pattern, 1024, 1024).passes


def test_the_tiles_tried_are_those_whose_scores_fit_half_a_cache():
    tiles = plan_of(p.strided(16), 1024, 1024).choices[0]
    assert tiles.chosen == "64 queries x 64 keys"
    assert tiles.reason.endswith("the least of 9")
    wanted = {f"{q} x {kv}" for q in (16, 32, 64, 128) for kv in (32, 64, 128) if q * kv <= 4096}
    assert {name for name, _ in tiles.refused} | {"64 x 64"} == wanted


def test_tiles_that_most_masks_share_are_taken_where_they_hardly_take_longer():
    """Whatever the length: a text serves a short sequence that was compiled for a long one."""
    for mask in (p.window(3), p.window(200), p.blocked(256), p.longformer(40, 8), p.prefix(70), p.dilated(64, 4)):
        chosen = [plan_of(mask, n, n, "float32", 64).choices[0] for n in (10, 40, 64, 65, 2048)]
        assert {one.chosen for one in chosen} == {"16 queries x 128 keys"}
    least = plan_of(p.blocked(256), 2048, 2048, "float32", 64).choices[0]
    assert least.refused[0][0] != "16 x 128"
    assert "% above the least of 9, and most masks share a text of these sizes" in least.reason


def test_rows_are_regrouped_for_four_steps_at_most_and_where_rows_have_four_keys():
    def steps_of(mask):
        choices = [one for one in plan_of(mask, *mask.shape).choices if one.what == "order of rows"]
        words = [word for one in choices for word in (one.chosen, one.refused[0][0]) if "regrouped" in word]
        return [word.removeprefix("rows regrouped by residue for steps ") for word in words]

    row, column = np.ogrid[:400, :400]
    assert steps_of((column - row) % 100 == 0) == ["100"]
    assert steps_of((column - row) % 101 == 0) == []
    step = 7 + row // 80  # 7 to 11, those of least keys last
    assert steps_of((column - row) % step == 0) == ["7, 8, 9, 10"]
    assert steps_of(((column - row) % 7 == 0) & (column > 7) | (column < 7)) == ["7"]  # not 1, which needs no classes


class TestExplain:
    def test_a_closed_plan_names_geometry_tiles_and_refusals(self):
        text = plan_of(p.longformer(256, 64), 4096, 4096).explain()
        assert text.splitlines()[0] == f"mask        {p.longformer(256, 64)!r}"
        assert "geometry    3 bands, closed form; the kernel serves every length" in text
        assert "pass 0" in text
        assert "queries x" in text
        assert "  refused   " in text
        assert "more, all slower" in text
        assert "intervals a row" in text
        assert "predicted" in text.splitlines()[6]

    def test_residue_classes_and_resumption_are_named(self):
        text = plan_of(p.sparse_transformer_strided(128), 4096, 4096).explain()
        assert "in 128 residue classes" in text
        assert "resumes the softmax of an earlier pass" in text

    def test_a_table_plan_names_its_pieces_and_the_order_of_rows(self):
        stored = ACSR.from_pattern(p.strided(8) | p.sinks(3), 1500, 1500)
        text = plan_of(stored, 1500, 1500).explain()
        assert "tables; the kernel made for these lengths" in text
        assert "pieces listed" in text
        assert "rows regrouped by residue for steps 8" in text
        assert "refused   rows in order" in text

    def test_dense_is_named_where_it_would_be_as_fast(self):
        assert "dense attention would be as fast" in plan_of(p.full(), 4096, 4096).explain()
        assert "dense attention would be as fast" not in plan_of(p.window(100), 4096, 4096).explain()

    def test_filling_is_named_where_no_pass_visits_every_row(self):
        fill = "fill        out = 0 and lse = -inf first"
        assert fill in plan_of(p.causal() & p.global_tokens((8, 24)), 64, 64).explain()
        # One pass, two and five that meet at their edges: all rows are known to be visited.
        for pattern in (p.causal(), p.global_tokens(4), p.global_tokens((8, 24)), p.sparse_transformer_strided(11)):
            plan = plan_of(pattern, 64, 64)
            assert plan.closed
            assert fill not in plan.explain()

    def test_small_choices_are_shown_whole(self):
        text = plan_of(np.eye(8, dtype=bool), 8, 8).explain()
        assert "tiles of a table pass" in text


def test_as_dict_has_the_passes_in_plain_values():
    closed = json.loads(json.dumps(plan_of(p.dilated(3, 5), 200, 200).as_dict()))
    assert closed["passes"][0]["row_step"] == 5
    assert closed["passes"][0]["segments"][0]["lattice"]["step"] == 5
    assert closed["machine"]["cores"] == 2
    stored = json.loads(json.dumps(plan_of(np.eye(70, dtype=bool), 70, 70).as_dict()))
    assert stored["passes"][0]["blocks"] == -(-70 // stored["passes"][0]["tile_q"])
    assert stored["passes"][0]["bytes"] > 0


def test_tables_are_read_only_and_passes_know_their_kind():
    stored = plan_of(np.eye(70, dtype=bool), 70, 70)
    assert not stored.closed
    (only,) = stored.passes
    assert isinstance(only, TablePass)
    for array in (only.table.rows, only.table.block_ptr, only.table.piece, only.table.lane_bits, only.table.cols):
        assert not array.flags.writeable
    closed = plan_of(p.causal(), 70, 70)
    assert all(isinstance(one, ClosedPass) for one in closed.passes)


def test_a_table_is_proportional_to_runs_and_not_to_pairs():
    """10,000 rows of 2,001 keys each: 20 million pairs."""
    plan = plan_of(ACSR.from_pattern(p.window(1000), 10_000, 10_000), 10_000, 10_000)
    assert sum(one.table.nbytes for one in plan.passes) < 8 * 64 * 10_000


@pytest.mark.parametrize(("number", "text"), [(0, "0 bands"), (1, "1 band"), (2, "2 bands"), (1000, "1,000 bands")])
def test_one_of_a_thing_is_not_several(number, text):
    assert counted(number, "band") == text


def test_explain_and_geometry_count_as_people_do():
    geometry = splat.geometry(p.window(4))
    plan = splat.plan(p.window(4), seq_q=64, seq_kv=64, head_dim=16, dtype="float32", backend="cpu")
    assert "1 term in closed form" in repr(geometry)
    assert "geometry    1 band, closed form" in plan.explain()


def test_times_are_in_units_that_suit_them():
    seconds = (0.0, 1.2e-6, 9.999e-4, 0.0123, 0.9996, 119.4, 119.6, 2500.0, 3e7)
    assert [duration(one) for one in seconds] == [
        "0 us", "1.2 us", "1 ms", "12.3 ms", "1 s", "119 s", "2 min", "41.7 min", "8,333 h",
    ]  # fmt: skip
    plan = splat.plan(p.full(), seq_q=10**8, seq_kv=10**8, head_dim=64, dtype="float32", backend="cpu")
    assert " h; dense " in plan.explain()
    assert "e+" not in plan.explain() + repr(plan)
