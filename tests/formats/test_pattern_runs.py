"""Runs of a pattern equal its definition, pair by pair; draws of random_blocks are uniform and reproducible."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.formats import patterns as p
from splat_numba.formats.pattern_runs import check_lengths, pattern_runs
from splat_numba.formats.random_blocks import chosen_blocks
from tests.formats.dense_oracle import dense, dense_runs
from tests.formats.pattern_cases import closed_leaves, combined, global_indices, lengths, open_leaves


def agrees(pattern, seq_q, seq_kv):
    runs = pattern_runs(pattern, seq_q, seq_kv)
    assert runs.shape == (seq_q, seq_kv)
    np.testing.assert_array_equal(dense_runs(runs), dense(pattern, seq_q, seq_kv))


@st.composite
def any_case(draw):
    seq_q, seq_kv = draw(lengths), draw(lengths)
    leaves = st.one_of(closed_leaves, open_leaves, global_indices(seq_q, seq_kv))
    return draw(combined(leaves)), seq_q, seq_kv


@given(any_case())
@example((p.random_blocks(3, 2, 0).align_end(), 11, 4))
@example((p.random_blocks(3, 9, 0) & p.columns(20, 1, 12), 7, 15))
@example((p.full() & p.sinks(0), 3, 3))
@example((p.columns(10, 1, 9), 2, 95))
@example((p.bigbird(2).align_end(), 5, 18))
@example((p.global_tokens(range(0, 18, 2)).align_end(), 6, 17))
def test_runs_equal_the_definition(case):
    agrees(*case)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), combined(closed_leaves, most=2), st.booleans())
def test_documents(document_lengths, other, aligned):
    pattern, total = p.documents(document_lengths), sum(document_lengths)
    agrees(pattern.align_end() if aligned else pattern, total, total)
    agrees(pattern & other, total, total)
    agrees(pattern | other, total, total)


@given(st.data(), st.lists(st.integers(1, 5), min_size=2, max_size=3))
def test_neighborhoods(data, shape):
    per_axis = {"min_size": len(shape), "max_size": len(shape)}
    kernel = data.draw(st.lists(st.sampled_from([1, 3, 5, 11]), **per_axis))
    dilation = data.draw(st.lists(st.integers(1, 3), **per_axis))
    total = int(np.prod(shape))
    pattern = p.neighborhood(shape, kernel, dilation)
    agrees(pattern, total, total)
    agrees(pattern.align_end() | p.sinks(1), total, total)


@pytest.mark.parametrize(("seq_q", "seq_kv"), [(0, 0), (0, 5), (5, 0), (1, 1)])
@pytest.mark.parametrize(
    "pattern",
    [
        p.full(),
        p.bigbird(2),
        p.columns(30, 0, 9),
        p.random_blocks(4, 2, 1).align_end(),
        p.global_tokens(()),
        p.sinks(0),
    ],
)
def test_empty_and_single_lengths(pattern, seq_q, seq_kv):
    agrees(pattern, seq_q, seq_kv)


@pytest.mark.parametrize(
    ("pattern", "seq_q", "seq_kv", "message"),
    [
        (
            p.documents((2, 3)),
            5,
            6,
            (
                "lengths: wanted documents of 5 tokens for seq_q and 6 for seq_kv, got 5. The total must equal "
                "both lengths: change it, or pad the sequences."
            ),
        ),
        (
            p.causal() & p.neighborhood((2, 3), 3).align_end(),
            5,
            5,
            (
                "shape: wanted the grid (2, 3) of 5 tokens for seq_q and 5 for seq_kv, got 6. The total must equal "
                "both lengths: change it, or pad the sequences."
            ),
        ),
        (
            p.sinks(1) | p.global_tokens((1, 7)),
            4,
            7,
            "indices: wanted global tokens below max(seq_q, seq_kv) = 7, got 7. Remove it, or pass longer sequences.",
        ),
        (p.full(), -1, 7, "seq_q: wanted an integer >= 0, got -1. Give at least 0."),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(pattern, seq_q, seq_kv, message):
    for check in (pattern_runs, check_lengths):
        with pytest.raises(PatternError) as caught:
            check(pattern, seq_q, seq_kv)
        assert str(caught.value) == message


def test_only_patterns_have_runs():
    with pytest.raises(PatternTypeError, match=r"^pattern: wanted a Pattern such as .* got str\. Use the constructors"):
        pattern_runs("causal()", 4, 4)


def test_lengths_must_be_integers():
    with pytest.raises(PatternTypeError, match=r"^seq_kv: wanted an integer >= 0, got 4.0 of type float"):
        pattern_runs(p.full(), 4, 4.0)


def test_a_count_of_global_tokens_beyond_the_lengths_keeps_what_there_is():
    agrees(p.global_tokens(50), 3, 4)
    check_lengths(p.global_tokens((6,)), 3, 7)


@given(st.integers(1, 40), st.integers(0, 45), st.integers(0, 2**64 - 1), st.integers(0, 10**9))
def test_drawn_blocks_are_distinct_and_in_range(blocks, per_row, seed, first):
    chosen = chosen_blocks(seed, np.arange(first, first + 5), blocks, per_row)
    assert chosen.shape == (5, min(per_row, blocks))
    assert (np.diff(chosen, axis=1) > 0).all()
    assert ((chosen >= 0) & (chosen < blocks)).all()


@given(st.integers(1, 40), st.integers(0, 45), st.integers(0, 9))
def test_a_draw_does_not_depend_on_the_rows_drawn_with_it(blocks, per_row, row):
    together = chosen_blocks(3, np.arange(10), blocks, per_row)
    np.testing.assert_array_equal(chosen_blocks(3, np.array([row]), blocks, per_row)[0], together[row])


@pytest.mark.parametrize(("blocks", "per_row"), [(6, 2), (6, 3), (6, 5), (5, 1)])
@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_every_subset_is_equally_likely(blocks, per_row, seed):
    rows = 12_000
    chosen = chosen_blocks(seed, np.arange(rows), blocks, per_row)
    subsets = list(combinations(range(blocks), per_row))
    number = {subset: at for at, subset in enumerate(subsets)}
    found = np.bincount([number[tuple(row)] for row in chosen.tolist()], minlength=len(subsets))
    expected = rows / len(subsets)
    statistic = ((found - expected) ** 2 / expected).sum()
    freedom = len(subsets) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)  # five standard deviations of chi-squared


def test_seeds_and_rows_give_different_draws():
    chosen = chosen_blocks(0, np.arange(1000), 1000, 3)
    assert len({tuple(row) for row in chosen.tolist()}) > 990
    assert (chosen_blocks(1, np.arange(1000), 1000, 3) != chosen).any(axis=1).mean() > 0.99
