"""The transpose of a closed form keeps the transposed pairs, each once, for every pair of lengths."""

import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splat_numba.errors import ArgumentError
from splat_numba.formats import patterns as p
from splat_numba.formats.bounds import END, Chunk, Const, Maximum, Position
from splat_numba.formats.closed_form import MOST_TERMS, Edge, Lattice, Term, closed_form
from splat_numba.formats.geometry import geometry
from splat_numba.formats.transpose_terms import transpose_terms
from splat_numba.testing import patterns
from tests.formats.dense_oracle import dense, dense_terms
from tests.formats.pattern_cases import closed_leaves, combined, lengths

FIRST, ALL = Edge(0), Lattice()
FEW = 1000 if settings.get_current_profile_name() == "explore" else 40

with_indices = st.one_of(closed_leaves, st.lists(st.integers(0, 18), max_size=4).map(p.global_tokens))


def check(pattern, seq_q, seq_kv):
    """Whether the pattern has terms; if so those of its transpose are right, and so are those turned back."""
    terms = closed_form(pattern)
    if terms is None:
        return False
    turned = transpose_terms(terms)
    if turned is None:
        return False
    assert len(turned) <= MOST_TERMS
    wanted = dense(pattern, seq_q, seq_kv)
    np.testing.assert_array_equal(dense_terms(turned, seq_kv, seq_q), wanted.T)
    again = transpose_terms(turned)
    if again is not None:
        np.testing.assert_array_equal(dense_terms(again, seq_q, seq_kv), wanted)
    return again is not None


@given(combined(with_indices), lengths, lengths)
@example(p.longformer(2, 3).align_end(), 12, 5)
@example((p.blocked(3, 1) | p.dilated(2, 4) | p.sinks(5)).align_end(), 11, 7)
@example(p.sparse_transformer_fixed(4, 2).align_end() | p.prefix(6), 9, 14)
@example(p.global_tokens((0, 3, 4, 9)).align_end() | p.prefix(6), 4, 11)
def test_terms_turn(pattern, seq_q, seq_kv):
    check(pattern, seq_q, seq_kv)


@settings(max_examples=FEW)
@given(st.data(), lengths, lengths)
def test_terms_of_the_patterns_of_every_constructor_turn(data, seq_q, seq_kv):
    check(data.draw(patterns(seq_q, seq_kv)), seq_q, seq_kv)


@given(closed_leaves, st.booleans(), lengths, lengths)
def test_every_leaf_turns_and_turns_back(pattern, aligned, seq_q, seq_kv):
    """But lattices of columns alone."""
    pattern = pattern.align_end() if aligned else pattern
    columns = any(term.lattice.step > 1 and not term.lattice.diagonal for term in closed_form(pattern))
    assert check(pattern, seq_q, seq_kv) != columns


@pytest.mark.parametrize(
    ("pattern", "terms"),
    [
        (p.full(), [Term(FIRST, None, ALL, Const(0), END)]),
        (p.causal(), [Term(FIRST, None, ALL, Position(0), END)]),
        (p.causal().align_end(), [Term(FIRST, None, ALL, Position(0, True), END)]),
        (p.window(3, 1), [Term(FIRST, None, ALL, Position(-1), Position(4))]),
        (p.dilated(2, 5), [Term(FIRST, None, Lattice(5, diagonal=True), Position(-10), Position(11))]),
        (p.strided(4).align_end(), [Term(FIRST, None, Lattice(4, True, 0, True), Const(0), END)]),
        (p.sinks(3), [Term(FIRST, Edge(3), ALL, Const(0), END)]),
        (p.prefix(3), [Term(FIRST, Edge(3), ALL, Const(0), END), Term(Edge(3), None, ALL, Position(0), END)]),
        (p.blocked(4, 1, 2), [Term(FIRST, None, ALL, Chunk(4, Position(-12), 4), Chunk(4, Position(4), 4))]),
        (
            p.blocked(4).align_end(),
            [Term(FIRST, None, ALL, Chunk(4, Position(-4), 4, True), Chunk(4, Position(0), 4, True))],
        ),
        (
            p.global_tokens(3).align_end(),
            [
                Term(FIRST, Edge(3), ALL, Const(0), Const(0, True)),
                Term(FIRST, None, ALL, Const(0, True), Const(3, True)),
                Term(FIRST, Edge(3), ALL, Const(3, True), END),
            ],
        ),
        (
            p.longformer(256, 64),
            [
                Term(FIRST, None, ALL, Const(0), Const(64)),
                Term(FIRST, None, ALL, Maximum((Const(64), Position(-256))), Position(257)),
                Term(FIRST, Edge(64), ALL, Position(257), END),
            ],
        ),
    ],
)
def test_results_are_as_small_as_a_person_would_write(pattern, terms):
    assert transpose_terms(closed_form(pattern)) == tuple(terms)


def test_rows_that_are_every_so_manieth_have_no_closed_form():
    """Rows of a term are a range: runs are turned instead."""
    for pattern in (p.columns(5, 2), p.sparse_transformer_fixed(8, 2)):
        assert transpose_terms(closed_form(pattern)) is None
        found = geometry(pattern, 30, 23).transposed()
        assert (found.terms, found.shape, found.label) == (None, (23, 30), "table")
        np.testing.assert_array_equal(found.to_dense(), dense(pattern, 30, 23).T)


@settings(max_examples=FEW)
@given(combined(closed_leaves), lengths, lengths)
@example(p.columns(4, 1), 9, 5)
def test_a_geometry_turns(pattern, seq_q, seq_kv):
    found = geometry(pattern, seq_q, seq_kv)
    turned = found.transposed()
    assert turned.shape == (seq_kv, seq_q)
    np.testing.assert_array_equal(turned.to_dense(), dense(pattern, seq_q, seq_kv).T)
    assert turned.transposed() is found


def test_a_stored_mask_turns_by_its_runs(rng):
    mask = rng.random((9, 14)) < 0.4
    np.testing.assert_array_equal(geometry(mask).transposed().to_dense(), mask.T)


def test_a_million_rows_cost_nothing_until_numbers_are_asked_for():
    turned = geometry(p.longformer(256, 64), 10**9, 10**8).transposed()
    assert repr(turned) == "Geometry(shape=(100000000, 1000000000), 3 terms in closed form)"
    assert turned.label == "transposed_window_global_tokens"


def test_lengths_are_needed_where_there_is_no_closed_form():
    assert geometry(p.window(3)).transposed().terms is not None
    with pytest.raises(ArgumentError) as caught:
        geometry(p.columns(4, 1)).transposed()
    assert str(caught.value) == (
        "seq_q and seq_kv wanted as integers, because the transpose of columns(4, 1) has no closed form; got None. "
        "Give both lengths."
    )


def test_a_pickled_geometry_is_turned_again():
    turned = geometry(p.window(3, 1), 9, 7).transposed()
    again = pickle.loads(pickle.dumps(turned))  # noqa: S301  # our own
    assert (again.shape, again.terms) == (turned.shape, turned.terms)
    np.testing.assert_array_equal(again.to_dense(), turned.to_dense())
