"""Bands are exact, disjoint and one interval a row; lengths that are missing or disagree are refused."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from splat_numba.errors import ArgumentError, ArgumentTypeError, PatternError
from splat_numba.formats import patterns as p
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.closed_form import closed_form
from splat_numba.formats.geometry import Geometry, geometry
from tests.formats.dense_oracle import dense
from tests.formats.pattern_cases import closed_leaves, combined, lengths, open_leaves

any_pattern = combined(st.one_of(closed_leaves, open_leaves))


@st.composite
def random_masks(draw):
    seq_q, seq_kv = draw(lengths), draw(lengths)
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    mask = rng.random((seq_q, seq_kv)) < density
    if draw(st.booleans()):
        mask &= (np.arange(seq_q)[:, None] - np.arange(seq_kv)) % draw(st.integers(1, 5)) == 0
    return mask


def times_kept(found: Geometry) -> np.ndarray:
    """How many bands keep each pair, band by band and row by row."""
    times = np.zeros(found.table.shape, int)
    for band in found:
        for row, lo, hi in zip(band.rows, band.lo, band.hi, strict=True):
            for place in range(lo, hi):
                times[row, band.residue + band.step * place] += 1
    return times


@given(any_pattern, lengths, lengths)
def test_the_bands_of_a_pattern_keep_every_pair_of_it_once(pattern, seq_q, seq_kv):
    found = geometry(pattern, seq_q, seq_kv)
    wanted = dense(pattern, seq_q, seq_kv)
    assert_array_equal(found.to_dense(), wanted)
    assert_array_equal(times_kept(found), wanted.astype(int))


@given(random_masks())
@example(np.zeros((0, 0), bool))
@example(np.zeros((3, 0), bool))
@example(np.ones((1, 1), bool))
def test_the_bands_of_a_stored_mask_keep_every_pair_of_it_once(mask):
    for given_mask in (mask, ACSR.from_dense(mask)):
        found = geometry(given_mask)
        assert_array_equal(found.to_dense(), mask)
        assert_array_equal(times_kept(found), mask.astype(int))
        assert sum(band.nnz for band in found) == mask.sum()


@given(random_masks())
def test_a_band_has_one_lattice_ascending_rows_and_no_empty_interval(mask):
    found = geometry(mask)
    assert len(found) == len(found.bands)
    for band in found:
        assert 0 <= band.residue < band.step
        assert (np.diff(band.rows) > 0).all()
        assert (band.lo < band.hi).all()
        assert (band.lo >= 0).all()


@given(any_pattern)
def test_a_closed_form_is_there_exactly_where_the_pattern_has_one(pattern):
    terms = closed_form(pattern)
    assert geometry(pattern, 9, 9).terms == terms
    if terms is not None:
        assert geometry(pattern).terms == terms


def test_a_stride_leaves_one_band_for_every_residue():
    assert [(band.step, band.residue) for band in geometry(p.strided(3), 12, 12)] == [(3, 0), (3, 1), (3, 2)]
    assert [(band.step, band.residue) for band in geometry(p.window(2), 12, 12)] == [(1, 0)]


def test_closed_forms_are_as_few_terms_as_a_person_would_write():
    assert len(geometry(p.longformer(256, 64)).terms) == 3
    assert len(geometry(p.sparse_transformer_strided(128)).terms) == 2
    assert geometry(p.documents((3, 4)), 7, 7).terms is None
    assert geometry(np.ones((3, 3), bool)).terms is None


def test_a_closed_form_without_lengths_says_so_when_numbers_are_asked_for():
    with pytest.raises(ArgumentError) as caught:
        _ = geometry(p.window(2)).table
    assert str(caught.value) == "seq_q and seq_kv wanted as integers, got None. Give both to geometry()."


def test_a_million_rows_of_a_closed_form_cost_nothing_until_numbers_are_asked_for():
    assert repr(geometry(p.longformer(256, 64), 10**9, 10**9)) == (
        "Geometry(shape=(1000000000, 1000000000), 3 terms in closed form)"
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: geometry(p.documents((3, 4))),
            ArgumentError,
            "seq_q and seq_kv wanted as integers, because documents((3, 4)) has no closed form; got None. "
            "Give both lengths.",
        ),
        (
            lambda: geometry(p.causal(), 4),
            ArgumentError,
            "seq_q and seq_kv wanted together, got 4 and None. Give both, or neither.",
        ),
        (
            lambda: geometry(np.ones((3, 4), bool), 4, 3),
            ArgumentError,
            "mask wanted of shape (4, 3), got (3, 4). Leave seq_q and seq_kv out, or correct them.",
        ),
        (
            lambda: geometry("causal", 4, 3),
            ArgumentTypeError,
            "mask wanted as a Pattern, an ACSR or a 2-D bool array, got str. Build one, for example splat.window(128).",
        ),
    ],
)
def test_lengths_that_are_missing_or_disagree_are_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_lengths_that_do_not_fit_the_pattern_are_refused():
    with pytest.raises(PatternError, match=r"documents"):
        geometry(p.documents((3, 4)), 8, 8)
