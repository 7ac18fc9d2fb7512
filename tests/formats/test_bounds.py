"""Bounds evaluate as documented, and whatever is proved about them holds for every row and length."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat_numba.formats.bounds import (
    END,
    Chunk,
    Const,
    Maximum,
    Minimum,
    Position,
    Span,
    at_most,
    clamped,
    evaluate,
    interval_empty,
    inverse,
    maximum,
    minimum,
    restrict,
    size_of,
    value_range,
)
from splat_numba.formats.terms import Edge, Term, lattice

positions = st.builds(Position, st.integers(-5, 5), st.booleans())
leaves = st.one_of(
    st.builds(Const, st.integers(-3, 12), st.booleans()),
    st.just(END),
    positions,
    st.builds(Chunk, st.sampled_from([2, 3, 4, 6]), positions, st.integers(-6, 8)),
    st.builds(
        Chunk, st.sampled_from([2, 3, 4, 6]), st.builds(Position, st.integers(-5, 5)), st.integers(-6, 8), st.just(True)
    ),
)
bounds = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Maximum(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Minimum(tuple(parts))),
    ),
    max_leaves=5,
)
lengths = st.integers(0, 15)
edges = st.builds(Edge, st.integers(0, 9), st.booleans())


def value(bound, row, seq_q, seq_kv):
    """The documented meaning, in Python integers."""
    match bound:
        case Const(constant, aligned):
            return constant + (seq_kv - seq_q if aligned else 0)
        case Position(shift, aligned):
            return row + shift + (seq_kv - seq_q if aligned else 0)
        case Chunk(size, position, shift, moved):
            start = size * math.floor(value(position, row, seq_q, seq_kv) / size) + shift
            return start + (seq_kv - seq_q if moved else 0)
        case Maximum(parts):
            return max(value(part, row, seq_q, seq_kv) for part in parts)
        case Minimum(parts):
            return min(value(part, row, seq_q, seq_kv) for part in parts)
    return seq_kv


def selected(term, seq_q, seq_kv):
    """The rows of a term."""
    delta = seq_kv - seq_q

    def row(edge):
        return seq_q if edge is None else edge.value - (delta if edge.aligned else 0)

    return [i for i in range(seq_q) if row(term.row_lo) <= i < row(term.row_hi)]


def row_ranges():
    return st.builds(lambda lo, hi: Term(lo, hi, lattice(1, diagonal=False), Const(0), END), edges, st.none() | edges)


@given(bounds, lengths, lengths)
def test_evaluate_gives_the_documented_value(bound, seq_q, seq_kv):
    found = evaluate(bound, np.arange(seq_q), seq_q, seq_kv)
    assert found.dtype == np.int64
    assert found.tolist() == [value(bound, row, seq_q, seq_kv) for row in range(seq_q)]


@given(bounds)
def test_bounds_never_shrink_from_row_to_row(bound):
    assert (np.diff(evaluate(bound, np.arange(40), 40, 30)) >= 0).all()


@given(st.lists(bounds, min_size=1, max_size=3), lengths, lengths)
def test_maximum_and_minimum_keep_the_value(parts, seq_q, seq_kv):
    for row in range(seq_q):
        values = [value(part, row, seq_q, seq_kv) for part in parts]
        assert value(maximum(*parts), row, seq_q, seq_kv) == max(values)
        assert value(minimum(*parts), row, seq_q, seq_kv) == min(values)


@given(st.lists(bounds, min_size=1, max_size=3), st.randoms())
def test_maximum_and_minimum_do_not_depend_on_the_order(parts, random):
    shuffled = random.sample(parts, len(parts))
    assert maximum(*parts) == maximum(*shuffled)
    assert minimum(*parts) == minimum(*shuffled)


@given(bounds, bounds, row_ranges(), lengths, lengths)
def test_what_is_proved_holds(a, b, term, seq_q, seq_kv):
    proved, empty = at_most(a, b, term.span), interval_empty(a, b, term.span)
    for row in selected(term, seq_q, seq_kv):
        low, high = value(a, row, seq_q, seq_kv), value(b, row, seq_q, seq_kv)
        assert low <= high or not proved
        assert max(low, 0) >= min(high, seq_kv) or not empty


@given(bounds, row_ranges(), lengths, lengths)
def test_simplification_keeps_the_value_in_the_row_range(bound, term, seq_q, seq_kv):
    short, simple = restrict(bound, term.span), clamped(bound, term.span)
    for row in selected(term, seq_q, seq_kv):
        wanted = value(bound, row, seq_q, seq_kv)
        assert value(short, row, seq_q, seq_kv) == wanted
        assert np.clip(value(simple, row, seq_q, seq_kv), 0, seq_kv) == np.clip(wanted, 0, seq_kv)
    assert size_of(simple) <= size_of(bound)


@given(bounds, st.integers(0, 8), st.none() | st.integers(0, 12), lengths, lengths)
def test_value_range_covers_every_row(bound, row_lo, row_hi, seq_q, seq_kv):
    least, greatest = value_range(bound, row_lo, row_hi)
    for row in range(row_lo, seq_q if row_hi is None else min(row_hi, seq_q)):
        assert least <= value(bound, row, seq_q, seq_kv) <= greatest


@given(bounds, lengths, lengths)
def test_the_inverse_says_which_rows_reach_a_column(bound, seq_q, seq_kv):
    """Of the transposed mask, whose lengths are exchanged."""
    for col in range(seq_kv):
        turned = inverse(bound, lambda const, col=col: col >= value(const, 0, seq_q, seq_kv))
        border = value(turned, col, seq_kv, seq_q)
        for row in range(seq_q):
            assert (col >= value(bound, row, seq_q, seq_kv)) == (row < border)


def test_value_range_of_known_bounds():
    assert value_range(Position(-3), 2, 10) == (-1, 6)
    assert value_range(Position(1), 0, None) == (1, math.inf)
    assert value_range(Position(1, aligned=True), 0, 4) == (-math.inf, math.inf)
    assert value_range(Chunk(4, Position(0), 4), 5, 9) == (8, 12)
    assert value_range(END, 0, 4) == (0, math.inf)
    assert value_range(Minimum((Const(7), Position(0))), 3, None) == (3, 7)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (maximum(Position(1), Position(4), Const(2)), Position(4)),
        (maximum(Const(5), Position(1)), Maximum((Const(5), Position(1)))),
        (maximum(Const(-1), END), END),
        (maximum(Maximum((Const(3), Position(0))), Const(9)), Maximum((Const(9), Position(0)))),
        (minimum(END, Position(1, aligned=True)), Position(1, aligned=True)),
        (minimum(END, Position(1)), Minimum((END, Position(1)))),
        (minimum(Position(1), Chunk(8, Position(0), 8)), Position(1)),
        (minimum(Chunk(8, Position(0), 0), Chunk(8, Position(0), -8)), Chunk(8, Position(0), -8)),
        (minimum(Chunk(4, Position(0), 0), Chunk(8, Position(0), 0)), Chunk(8, Position(0), 0)),
        (clamped(Position(-256), Span(hi=64)), Const(0)),
        (clamped(Maximum((Const(0), Position(-9))), Span()), Position(-9)),
        (clamped(Minimum((END, Position(5))), Span()), Position(5)),
    ],
)
def test_simplifications(found, wanted):
    assert found == wanted
