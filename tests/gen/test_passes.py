"""The passes of a plan visit every kept pair once, no other pair, and write every row in a safe order.

The plans are carried out by ``plan_interpreter``; nothing is compiled.
"""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splat_numba.formats import patterns as p
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.closed_form import closed_form
from splat_numba.gen.plans.machine import Machine
from splat_numba.testing import lengths, masks, patterns
from tests.formats.pattern_cases import closed_leaves, combined
from tests.gen.plan_cases import dense, plan_of, table_plan_of, transposed_plan_of
from tests.gen.plan_interpreter import check

# Each example takes milliseconds: nothing is compiled.
EXAMPLES = 2000 if settings.get_current_profile_name() == "explore" else 150
LENGTHS = (0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 130)
closed_patterns = combined(closed_leaves).filter(lambda pattern: closed_form(pattern) is not None)


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_any_mask(data):
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(masks(seq_q, seq_kv))
    check(plan_of(mask, seq_q, seq_kv), dense(mask, seq_q, seq_kv))


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_any_pattern_by_tables(data):
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(patterns(seq_q, seq_kv))
    check(table_plan_of(mask, seq_q, seq_kv), dense(mask, seq_q, seq_kv))


@settings(max_examples=EXAMPLES)
@given(closed_patterns, lengths(), lengths(), lengths(), lengths())
@example(p.prefix(5).align_end() | p.global_tokens(3), 16, 16, 5, 64)
@example(p.window(3) | p.global_tokens(4).align_end(), 64, 64, 64, 3)
def test_a_closed_plan_is_right_at_lengths_it_was_not_made_for(pattern, made_q, made_kv, seq_q, seq_kv):
    plan = plan_of(pattern, made_q, made_kv)
    assert plan.closed
    check(plan, dense(pattern, seq_q, seq_kv))


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_key_lengths_cut_every_kind_of_pass(data):
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(masks(seq_q, seq_kv))
    limit = data.draw(st.integers(0, seq_kv))
    check(plan_of(mask, seq_q, seq_kv), dense(mask, seq_q, seq_kv), limit)


@settings(max_examples=EXAMPLES // 5)
@given(st.data())
def test_any_mask_transposed(data):
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(masks(seq_q, seq_kv))
    check(transposed_plan_of(mask, seq_q, seq_kv), dense(mask, seq_q, seq_kv).T)


@settings(max_examples=EXAMPLES // 5)
@given(closed_patterns, lengths(), lengths(), lengths(), lengths())
@example(p.blocked(5, 1).align_end() & p.window(9, 3), 16, 16, 40, 64)
@example(p.global_tokens(4).align_end() | p.dilated(3, 2), 64, 64, 64, 3)
def test_a_closed_plan_of_a_transpose_is_right_at_lengths_it_was_not_made_for(pattern, made_q, made_kv, seq_q, seq_kv):
    plan = transposed_plan_of(pattern, made_q, made_kv)
    if plan.closed:
        check(plan, dense(pattern, seq_q, seq_kv).T)


def test_a_transposed_plan_explains_itself():
    plan = transposed_plan_of(p.longformer(256, 64), 4096, 1024)
    assert plan.explain().splitlines()[:4] == [
        "mask        window(256) | global_tokens(64), transposed",
        "problem     batch 1, heads 1/1, 1024 x 4096, head_dim 8, value_dim 8, float32",
        "target      cpu, 2 cores, 32-byte vectors",
        "geometry    3 bands, closed form; the kernel serves every length",
    ]
    assert plan.cost.kept == dense(p.longformer(256, 64), 4096, 1024).sum()


@pytest.mark.parametrize("pattern", [p.dilated(9, 8), p.strided(8), p.dilated(40, 4) | p.sinks(2)], ids=str)
def test_tables_regrouped_by_residue(pattern):
    """Long enough that regrouping pays, which small drawn masks never are."""
    stored = ACSR.from_pattern(pattern, 1500, 1400)
    plan = plan_of(stored, 1500, 1400)
    assert any(choice.what == "order of rows" for choice in plan.choices)
    check(plan, stored.to_dense())
    check(plan, stored.to_dense(), 777)


def test_some_plan_regroups_resumes_and_gathers():
    """Or the tests above would not see those."""
    strided = ACSR.from_pattern(p.strided(8) | p.sinks(3), 1500, 1500)
    plan = plan_of(strided, 1500, 1500)
    assert [one.resumes for one in plan.passes] == [False, True]
    mask = np.random.default_rng(0).random((100, 3000)) < 0.002
    scattered = plan_of(mask, 100, 3000)
    assert any((one.table.piece[:, 1] == 0).any() for one in scattered.passes)
    check(scattered, mask)


@pytest.mark.parametrize("pattern", [p.window(20, 9), p.longformer(12, 5), p.prefix(40).align_end()], ids=str)
@pytest.mark.parametrize("machine", [Machine(16, 16, 1), Machine(64, 32, 64)], ids=str)
def test_other_machines(pattern, machine):
    for dtype in ("float32", "float64"):
        check(plan_of(pattern, 100, 140, dtype, machine=machine), dense(pattern, 100, 140))


@pytest.mark.parametrize("text", [p.causal(), p.causal().align_end(), p.sparse_transformer_strided(11)], ids=str)
def test_every_pair_of_awkward_lengths(text):
    plan = plan_of(text, 128, 128)
    for seq_q in LENGTHS:
        for seq_kv in LENGTHS:
            check(plan, dense(text, seq_q, seq_kv))
