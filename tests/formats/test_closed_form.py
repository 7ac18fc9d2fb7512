"""The terms of a closed form are disjoint, and their union is the pattern, for every pair of lengths."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from splat_numba.formats import patterns as p
from splat_numba.formats import term_algebra
from splat_numba.formats.bounds import END, Chunk, Const, Maximum, Minimum, Position
from splat_numba.formats.closed_form import Edge, Lattice, Term, closed_form, consecutive_ranges
from splat_numba.formats.terms import NoClosedFormError, intersect_lattices, lattice, lattices_meet
from tests.formats.dense_oracle import dense, dense_terms
from tests.formats.pattern_cases import closed_leaves, combined, lengths

FIRST, ALL = Edge(0), Lattice()
DIAGONAL_128 = Lattice(128, diagonal=True)


def with_indices():
    return st.one_of(closed_leaves, st.lists(st.integers(0, 18), max_size=4).map(p.global_tokens))


def agrees(pattern, seq_q, seq_kv):
    terms = closed_form(pattern)
    if terms is not None:
        np.testing.assert_array_equal(dense_terms(terms, seq_q, seq_kv), dense(pattern, seq_q, seq_kv))
    return terms


@given(combined(with_indices()), lengths, lengths)
@example(p.longformer(2, 3).align_end(), 12, 5)
@example(p.strided(4) | p.strided(6), 13, 17)
@example(p.global_tokens((0, 3, 4, 9)).align_end() | p.prefix(6), 4, 11)
@example((p.blocked(3, 1) | p.dilated(2, 4) | p.sinks(5)).align_end(), 11, 7)
@example((p.global_tokens(2) & p.global_tokens(3).align_end()) | p.causal(), 6, 7)
def test_terms_are_disjoint_and_make_up_the_pattern(pattern, seq_q, seq_kv):
    agrees(pattern, seq_q, seq_kv)


@given(closed_leaves, st.booleans(), lengths, lengths)
def test_every_leaf_has_a_closed_form(pattern, aligned, seq_q, seq_kv):
    assert agrees(pattern.align_end() if aligned else pattern, seq_q, seq_kv) is not None


@given(combined(with_indices()))
def test_terms_are_canonical(pattern):
    for term in closed_form(pattern) or ():
        assert not term.empty
        assert term.simplified() == term
        assert term.lattice == lattice(
            term.lattice.step, diagonal=term.lattice.diagonal, shift=term.lattice.shift, aligned=term.lattice.aligned
        )


@pytest.mark.parametrize(
    ("pattern", "terms"),
    [
        (p.full(), [Term(FIRST, None, ALL, Const(0), END)]),
        (p.causal(), [Term(FIRST, None, ALL, Const(0), Position(1))]),
        (p.causal().align_end(), [Term(FIRST, None, ALL, Const(0), Position(1, aligned=True))]),
        (p.window(3, 1), [Term(FIRST, None, ALL, Position(-3), Position(2))]),
        (p.dilated(2, 5), [Term(FIRST, None, Lattice(5, diagonal=True), Position(-10), Position(11))]),
        (p.dilated(0, 5), [Term(FIRST, None, ALL, Position(0), Position(1))]),
        (p.strided(1), [Term(FIRST, None, ALL, Const(0), END)]),
        (p.columns(5, 2), [Term(FIRST, None, Lattice(5, shift=2), Const(0), END)]),
        (p.columns(9, 0, 9), [Term(FIRST, None, ALL, Const(0), END)]),
        (p.blocked(4, 1, 2), [Term(FIRST, None, ALL, Chunk(4, Position(0), -4), Chunk(4, Position(0), 12))]),
        (p.blocked(1, 1, 2), [Term(FIRST, None, ALL, Position(-1), Position(3))]),
        (p.sinks(0), []),
        (p.global_tokens(()), []),
        (p.prefix(0), [Term(FIRST, None, ALL, Const(0), Position(1))]),
        (p.prefix(5) | p.causal(), [Term(FIRST, None, ALL, Const(0), Maximum((Const(5), Position(1))))]),
        (p.window(4, 0) | p.window(0, 3), [Term(FIRST, None, ALL, Position(-4), Position(4))]),
        (p.full() | p.strided(3) | p.longformer(2, 1), [Term(FIRST, None, ALL, Const(0), END)]),
        (
            p.longformer(256, 64),
            [
                Term(FIRST, Edge(64), ALL, Const(0), END),
                Term(Edge(64), None, ALL, Position(-256), Position(257)),
                Term(Edge(64), None, ALL, Const(0), Minimum((Const(64), Position(-256)))),
            ],
        ),
        (
            p.sparse_transformer_strided(128),
            [
                Term(FIRST, None, ALL, Position(-128), Position(1)),
                Term(FIRST, None, DIAGONAL_128, Const(0), Position(-128)),
            ],
        ),
        (
            p.sparse_transformer_fixed(4, 1),
            [
                Term(FIRST, None, ALL, Chunk(4, Position(0), 0), Position(1)),
                Term(FIRST, None, Lattice(4, shift=3), Const(0), Chunk(4, Position(0), 0)),
            ],
        ),
        (
            p.window(512) | p.sinks(4),
            [
                Term(FIRST, None, ALL, Position(-512), Position(513)),
                Term(FIRST, None, ALL, Const(0), Minimum((Const(4), Position(-512)))),
            ],
        ),
        (
            p.blocked(8) & p.causal() & p.window(20),
            [Term(FIRST, None, ALL, Chunk(8, Position(0), 0), Position(1))],
        ),
    ],
)
def test_results_are_as_small_as_a_person_would_write(pattern, terms):
    assert closed_form(pattern) == tuple(terms)


@pytest.mark.parametrize(
    "pattern",
    [
        p.documents((2, 3)),
        p.neighborhood((2, 2), 3),
        p.random_blocks(4, 1, 0),
        p.bigbird(4),
        p.columns(20, 0, 9),
        p.global_tokens(range(0, 40, 2)),
        p.strided(4) & p.columns(4, 1),  # residues of j - i and of j together are no lattice
        p.strided(4) & p.strided(4).align_end(),
        p.global_tokens(4) & p.global_tokens(3).align_end(),  # which edge is later depends on the lengths
        p.global_tokens(4) | p.global_tokens(3).align_end(),
        p.strided(9) | p.strided(11),  # would split into too many residues
        p.strided(3) | p.strided(5) | p.strided(7) | p.strided(11),
        p.strided(5) | p.strided(6) | p.strided(7) | p.strided(8) | p.strided(9) | p.strided(11),
    ],
)
def test_patterns_without_a_closed_form(pattern):
    assert closed_form(pattern) is None


@pytest.mark.parametrize("pattern", [p.window(2**40), p.window(3, 2**40), p.blocked(2**40, 2**40, 2**40).align_end()])
def test_the_largest_sizes_stay_exact(pattern):
    agrees(pattern, 7, 5)
    agrees(pattern, 5, 7)


def test_large_products_stay_within_int64():
    agrees(p.dilated(2**40, 2**40).align_end(), 5, 7)
    agrees(p.dilated(2**40, 3), 5, 7)
    assert closed_form(p.strided(2**40 - 1) & p.strided(2**40 - 3)) is None


@given(st.integers(1, 12), st.integers(0, 30), st.integers(1, 12), st.integers(0, 30), st.booleans())
def test_lattices_intersect_by_chinese_remainders(step_a, shift_a, step_b, shift_b, diagonal):
    a, b = lattice(step_a, diagonal=diagonal, shift=shift_a), lattice(step_b, diagonal=diagonal, shift=shift_b)
    common = intersect_lattices(a, b) if lattices_meet(a, b) else None
    for j in range(200):
        both = (j - a.shift) % a.step == 0 and (j - b.shift) % b.step == 0
        assert both == (common is not None and (j - common.shift) % common.step == 0)


def test_rows_whose_order_the_lengths_decide_are_not_subtracted():
    window = Term(Edge(2), Edge(6, aligned=True), ALL, Position(-1), Position(2))
    everything = Term(Edge(1), Edge(9), ALL, Const(0), Position(9))
    assert not term_algebra._rows_within(window, everything)
    with pytest.raises(NoClosedFormError):
        term_algebra._difference(everything, window)


def test_row_ranges_join_only_if_their_edges_are_in_order():
    def rows(lo, hi):
        return Term(lo, hi, ALL, Const(0), Position(9))

    assert term_algebra.merged([rows(Edge(5), None), rows(Edge(1), Edge(5))]) == [rows(Edge(1), None)]
    apart = [rows(Edge(1), Edge(5, aligned=True)), rows(Edge(5, aligned=True), None)]
    assert term_algebra.merged(apart) == apart


def test_lattices_of_different_origin_do_not_intersect():
    with pytest.raises(NoClosedFormError):
        intersect_lattices(lattice(4, diagonal=True), lattice(4, diagonal=False))


@given(st.lists(st.integers(0, 30), unique=True).map(sorted))
def test_ranges_are_maximal_and_keep_every_index(indices):
    ranges = consecutive_ranges(tuple(indices))
    assert [index for lo, hi in ranges for index in range(lo, hi)] == indices
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges))
