"""The oracles against sums written out pair by pair in plain Python."""

from itertools import product
from math import exp, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from splat_numba import reference
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats.patterns import window

small = st.integers(1, 5)


@st.composite
def operands(draw):
    batch, heads_kv, group, seq_q, seq_kv, head_dim, value_dim = draw(st.tuples(*[small] * 7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    q = rng.standard_normal((batch, heads_kv * group, seq_q, head_dim))
    k = rng.standard_normal((batch, heads_kv, seq_kv, head_dim))
    v = rng.standard_normal((batch, heads_kv, seq_kv, value_dim))
    mask = rng.random((seq_q, seq_kv)) < draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    return q, k, v, mask


def by_hand(q, k, v, mask, scale, lengths):
    """Attention as its definition says, one query row at a time, in Python floats."""
    out = np.zeros((*q.shape[:3], v.shape[3]))
    lse = np.full(q.shape[:3], -inf)
    for b, h, i in product(*map(range, q.shape[:3])):
        g = h // (q.shape[1] // k.shape[1])
        kept = [j for j in range(k.shape[2]) if mask[i, j] and j < lengths[b]]
        powers = {
            j: exp(scale * sum(float(x) * float(y) for x, y in zip(q[b, h, i], k[b, g, j], strict=True))) for j in kept
        }
        if kept:
            total = sum(powers.values())
            lse[b, h, i] = log(total)
            out[b, h, i] = sum(p / total * v[b, g, j] for j, p in powers.items())
    return out, lse


@given(operands(), st.data())
def test_attention_is_its_definition(arrays, data):
    q, k, v, mask = arrays
    lengths = data.draw(st.lists(st.integers(0, k.shape[2]), min_size=len(q), max_size=len(q)))
    scale = data.draw(st.sampled_from([None, 0.5, -1.0]))
    out, lse = reference.attention(q, k, v, mask, scale=scale, return_lse=True, kv_lengths=lengths)
    wanted, wanted_lse = by_hand(q, k, v, mask, 1 / sqrt(q.shape[3]) if scale is None else scale, lengths)
    assert_allclose(out, wanted, rtol=1e-12, atol=1e-13)
    assert_allclose(lse, wanted_lse, rtol=1e-12, atol=1e-13)


@given(operands())
def test_the_layouts_and_missing_axes_agree(arrays):
    q, k, v, mask = arrays
    out, lse = reference.attention(q, k, v, mask, return_lse=True)
    swapped = [x.swapaxes(1, 2) for x in (q, k, v)]
    out_bshd, lse_bshd = reference.attention(*swapped, mask, return_lse=True, layout="bshd")
    assert_array_equal(out_bshd, out.swapaxes(1, 2))
    assert_array_equal(lse_bshd, lse)
    out3, lse3 = reference.attention(q[0], k[0], v[0], mask, return_lse=True)
    assert_array_equal(out3, out[0])
    assert_array_equal(lse3, lse[0])
    assert_array_equal(reference.attention(*(x[0] for x in swapped), mask, layout="bshd"), out[0].swapaxes(0, 1))
    for layout in ("bhsd", "bshd"):
        out2, lse2 = reference.attention(q[0, 0], k[0, 0], v[0, 0], mask, return_lse=True, layout=layout)
        assert_array_equal(out2, out[0, 0])
        assert_array_equal(lse2, lse[0, 0])


@given(operands())
def test_sddmm_softmax_spmm_compose_to_attention(arrays):
    q, k, v, mask = arrays
    scores = reference.sddmm(q, k, mask, scale=1 / sqrt(q.shape[3]))
    assert (scores[..., ~mask] == 0).all()
    weights = reference.softmax(scores, mask)
    assert (weights[..., ~mask] == 0).all()
    assert_allclose(weights.sum(-1), np.broadcast_to(mask.any(-1), q.shape[:3]), atol=1e-14)
    wanted = reference.attention(q, k, v, mask)
    assert_array_equal(reference.spmm(weights, v, mask), wanted)
    assert_array_equal(reference.spmm(weights, v), wanted)
    for axes in (1, 2):
        part = (0,) * axes
        scores = reference.sddmm(q[part], k[part], mask, scale=1 / sqrt(q.shape[3]))
        assert_array_equal(reference.spmm(reference.softmax(scores, mask), v[part], mask), wanted[part])


def test_one_mask_per_query_head(rng):
    q, k, v = (rng.standard_normal((2, heads, 6, 4)) for heads in (4, 2, 2))
    masks = list(rng.random((4, 6, 6)) < 0.5)
    out = reference.attention(q, k, v, masks)
    for h, mask in enumerate(masks):
        alone = reference.attention(q[:, h : h + 1], k[:, h // 2 : h // 2 + 1], v[:, h // 2 : h // 2 + 1], mask)
        assert_array_equal(out[:, h : h + 1], alone)


def test_a_stored_mask_is_taken_by_its_to_dense(rng):
    class Stored:
        def to_dense(self):
            return np.tri(3, dtype=bool)

    q, k, v = rng.standard_normal((3, 3, 4))
    assert_array_equal(reference.attention(q, k, v, Stored()), reference.attention(q, k, v, np.tri(3, dtype=bool)))


def test_an_empty_row_gives_zero_and_minus_infinity_whatever_its_query(rng):
    q, k, v = rng.standard_normal((3, 4, 5))
    mask = np.ones((4, 4), bool)
    mask[[1, 2]] = False
    q[1] = np.nan
    out, lse = reference.attention(q, k, v, mask, return_lse=True)
    assert_array_equal(out[1:3], 0)
    assert_array_equal(lse[1:3], -inf)
    assert np.isfinite(out[[0, 3]]).all()


@pytest.mark.parametrize("bad", [np.nan, inf, -inf])
def test_a_non_finite_query_makes_its_row_nan_and_no_other(rng, bad):
    q, k, v = rng.standard_normal((3, 4, 5))
    mask = np.tri(4, dtype=bool)
    clean = reference.attention(q, k, v, mask)
    q[2] = bad
    out = reference.attention(q, k, v, mask)
    assert np.isnan(out[2]).all()
    assert_array_equal(out[[0, 1, 3]], clean[[0, 1, 3]])


@pytest.mark.parametrize("bad", [np.nan, inf])
def test_keys_and_values_that_a_row_does_not_keep_never_reach_it(rng, bad):
    q, k, v = rng.standard_normal((3, 4, 5))
    mask = np.tri(4, dtype=bool)
    clean, clean_lse = reference.attention(q, k, v, mask, return_lse=True)
    k[2:] = v[2:] = bad
    out, lse = reference.attention(q, k, v, mask, return_lse=True)
    assert_array_equal(out[:2], clean[:2])
    assert_array_equal(lse[:2], clean_lse[:2])
    assert np.isnan(out[2:]).all()


def test_kv_lengths_hide_what_stands_beyond_them(rng):
    q, k, v = rng.standard_normal((3, 2, 1, 4, 5))
    clean = reference.attention(q, k, v, np.ones((4, 4), bool), kv_lengths=[2, 0])
    k[0, :, 2:] = v[0, :, 2:] = k[1] = v[1] = np.nan
    assert_array_equal(reference.attention(q, k, v, np.ones((4, 4), bool), kv_lengths=[2, 0]), clean)
    assert_array_equal(clean[1], 0)


@pytest.mark.parametrize(("batch", "seq_q", "seq_kv"), [(0, 3, 3), (2, 0, 3), (2, 3, 0), (0, 0, 0)])
def test_empty_sizes_give_empty_or_zero_results(batch, seq_q, seq_kv):
    q, k, v = np.ones((batch, 2, seq_q, 4)), np.ones((batch, 1, seq_kv, 4)), np.ones((batch, 1, seq_kv, 7))
    out, lse = reference.attention(q, k, v, np.ones((seq_q, seq_kv), bool), return_lse=True)
    assert out.shape == (batch, 2, seq_q, 7)
    assert lse.shape == (batch, 2, seq_q)
    assert not out.any()
    if seq_kv == 0:
        assert_array_equal(lse, -inf)


def test_large_scores_do_not_overflow():
    q = np.full((1, 1), 1e3)
    out, lse = reference.attention(
        q, np.array([[1.0], [2.0]]), np.eye(2), np.ones((1, 2), bool), return_lse=True, scale=1
    )
    assert_array_equal(out, [[0, 1]])
    assert_array_equal(lse, [2000])


good = {
    "q": np.ones((2, 4, 3, 5)),
    "k": np.ones((2, 2, 6, 5)),
    "v": np.ones((2, 2, 6, 7)),
    "mask": np.ones((3, 6), bool),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.ones((6, 3), bool)}, "mask: wanted shape (seq_q, seq_kv) = (3, 6), got (6, 3)"),
        ({"mask": [good["mask"]] * 3}, "mask: wanted one mask per query head, 4, got a list of 3"),
        (
            {"k": np.ones((2, 3, 6, 5)), "v": np.ones((2, 3, 6, 5))},
            "k: wanted a number of heads that divides heads_q = 4, got 3",
        ),
        ({"k": np.ones((2, 2, 6, 4))}, "k: wanted the batch and head_dim of q, 2 and 5, got shape (2, 2, 6, 4)"),
        ({"v": np.ones((2, 2, 5, 7))}, "v: wanted the batch, heads and seq_kv of k, (2, 2, 6), got shape (2, 2, 5, 7)"),
        ({"layout": "sbhd"}, "layout: wanted 'bhsd' or 'bshd', got 'sbhd'; reorder the axes to one of these"),
        ({"kv_lengths": [1]}, "kv_lengths: wanted one length per batch element, shape (2,), got (1,)"),
        ({"kv_lengths": [1, 7]}, "kv_lengths: wanted integers from 0 to seq_kv = 6, got [1, 7]"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(change, message):
    with pytest.raises(ArgumentError) as caught:
        reference.attention(**{**good, **change})
    assert str(caught.value) == message


def test_a_mask_that_is_not_bool_is_refused():
    with pytest.raises(ArgumentTypeError, match=r"^mask: wanted a bool array, got float64; use mask.astype\(bool\)"):
        reference.attention(**{**good, "mask": np.ones((3, 6))})
    with pytest.raises(
        ArgumentTypeError, match=r"^mask: wanted a bool array, got Window; of a Pattern give ACSR\.from_"
    ):
        reference.attention(**{**good, "mask": window(3)})
