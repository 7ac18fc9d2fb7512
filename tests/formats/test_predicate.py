"""Masks from a function of indices: the same pairs whatever comes of them, and a pattern where there is one."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba.errors import ArgumentError, ArgumentTypeError, PatternError, PatternTypeError
from splat_numba.formats import predicate
from splat_numba.testing import patterns
from tests.formats.pattern_cases import lengths

DOCUMENT = np.repeat(np.arange(4), [100, 30, 200, 70])


def dense_of(f, seq_q, seq_kv):
    """The obvious way: all pairs at once."""
    i, j = np.ogrid[:seq_q, :seq_kv]
    return np.broadcast_to(f(i, j), (seq_q, seq_kv))


@settings(max_examples=120)
@given(st.data(), lengths, lengths, st.integers(1, 40))
def test_the_pairs_are_those_of_the_function_whatever_the_blocks(data, seq_q, seq_kv, block):
    pattern = data.draw(patterns(seq_q, seq_kv))
    wanted = splat.ACSR.from_pattern(pattern, seq_q, seq_kv).to_dense()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predicate, "BLOCK_PAIRS", block)
        found = splat.from_predicate(lambda i, j: wanted[i, j], seq_q, seq_kv)
    np.testing.assert_array_equal(splat.geometry(found, seq_q, seq_kv).to_dense(), wanted)


@given(st.integers(0, 2**16), lengths, lengths, st.floats(0, 1))
def test_masks_that_follow_no_rule_come_through(seed, seq_q, seq_kv, density):
    wanted = np.random.default_rng(seed).random((seq_q, seq_kv)) < density
    found = splat.from_predicate(lambda i, j: wanted[i, j], seq_q, seq_kv)
    np.testing.assert_array_equal(splat.geometry(found, seq_q, seq_kv).to_dense(), wanted)


@pytest.mark.parametrize(
    ("f", "text"),
    [
        (lambda q, kv: q >= kv, "causal()"),
        (lambda q, _: q >= 0, "full()"),
        (lambda _, kv: kv < 5, "sinks(5)"),
        (lambda q, kv: (q >= kv) & (q - kv <= 37), "window(37, 0)"),
        (lambda q, kv: (q >= kv) & ((q - kv <= 37) | (kv < 4)), "(window(37, 0) | sinks(4)) & causal()"),
        (lambda q, kv: (abs(q - kv) <= 37) | (kv < 4), "window(37) | sinks(4)"),
        (lambda q, kv: (kv < 33) | (q >= kv), "prefix(33)"),
        (lambda q, kv: (abs(q - kv) <= 40) & ((q - kv) % 4 == 0), "dilated(10, 4)"),
        (lambda q, kv: (q - kv) % 16 == 0, "strided(16)"),
        (lambda q, kv: (kv % 16 == 3) & (kv <= q), "causal() & columns(16, 3)"),
        (lambda q, kv: q // 64 == kv // 64, "blocked(64)"),
        (lambda q, kv: (q // 64 - 1 <= kv // 64) & (kv // 64 <= q // 64), "blocked(64, 1)"),
        (lambda q, kv: (q // 64 == kv // 64) & (q >= kv), "blocked(64) & causal()"),
        (lambda q, kv: (abs(q - kv) <= 16) | (q < 8) | (kv < 8), "window(16) | global_tokens(8)"),
        (lambda q, kv: DOCUMENT[q] == DOCUMENT[kv], "documents((100, 30, 200, 70))"),
        (lambda q, kv: (DOCUMENT[q] == DOCUMENT[kv]) & (q >= kv), "documents((100, 30, 200, 70)) & causal()"),
    ],
)
def test_what_users_of_flex_attention_write_is_known_as_a_pattern(f, text):
    found = splat.from_predicate(f, 400, 400)
    assert found == splat.parse(text)
    np.testing.assert_array_equal(splat.ACSR.from_pattern(found, 400, 400).to_dense(), dense_of(f, 400, 400))


def test_fewer_queries_than_keys_are_aligned_at_the_end_where_the_function_says_so():
    assert splat.from_predicate(lambda q, kv: q + 300 >= kv, 100, 400) == splat.causal().align_end()
    assert splat.from_predicate(lambda q, kv: q >= kv, 100, 400) == splat.causal()


def test_what_is_no_pattern_is_stored():
    found = splat.from_predicate(lambda q, kv: (q * 7919 + kv * 104729) % 13 == 0, 64, 48)
    assert isinstance(found, splat.ACSR)
    assert found == splat.from_dense(dense_of(lambda q, kv: (q * 7919 + kv * 104729) % 13 == 0, 64, 48))


def test_memory_does_not_follow_the_pairs():
    predicate_of = lambda q, kv: q - kv == 17  # noqa: E731 - one line is its point
    tracemalloc.start()
    try:
        assert splat.from_predicate(predicate_of, 16, 1 << 22) is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * predicate.BLOCK_PAIRS < 16 << 22  # of 64 Mi pairs, a byte each


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (
            5,
            ArgumentTypeError,
            "f wanted as a function (q_idx, kv_idx) -> bool, got 5 of type int. Write, for",
        ),
        (
            lambda b, h, q, kv: (b, h, q, kv),
            ArgumentTypeError,
            "f wanted as a function of two arguments, q_idx and kv_idx, got one with (b, h, q, kv). Of FlexAttention's",
        ),
        (
            lambda q, kv: kv < 3 or q >= kv,
            ArgumentError,
            "f wanted as a function of integer arrays, got one that asks whether a whole array is true. Write & for",
        ),
        (
            lambda q, kv: q - kv,
            ArgumentTypeError,
            "f wanted as a function that gives bool, True to attend, got",
        ),
        (
            lambda q, _: np.zeros((q.size, 5), bool),
            ArgumentError,
            "f wanted to give an array that broadcasts to (8, 8), for q_idx of shape (8, 1) and kv_idx of shape",
        ),
        (
            lambda q, kv: {}[q.size * kv.size],
            ArgumentError,
            "f wanted as a function of integer arrays (rows, 1) and (1, cols), got KeyError from it: 64. Try it on",
        ),
    ],
)
def test_functions_that_are_no_masks_are_refused_by_name(f, error, message):
    with pytest.raises(error) as raised:
        splat.from_predicate(f, 8, 8)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ((-1, 8), PatternError, "seq_q: wanted an integer >= 0, got -1."),
        ((8, 2.0), PatternTypeError, "seq_kv: wanted an integer >= 0, got 2.0 of type float."),
        ((2**30, 2**30), ArgumentError, "seq_q and seq_kv wanted with at most 2**44 pairs,"),
    ],
)
def test_lengths_that_are_none_are_refused(lengths, error, message):
    with pytest.raises(error) as raised:
        splat.from_predicate(np.greater_equal, *lengths)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(("seq_q", "seq_kv"), [(0, 0), (0, 5), (5, 0), (1, 1)])
def test_empty_lengths_are_taken(seq_q, seq_kv):
    found = splat.from_predicate(np.greater_equal, seq_q, seq_kv)
    assert splat.geometry(found, seq_q, seq_kv).to_dense().shape == (seq_q, seq_kv)
