"""The oracle of gradients: against finite differences, against torch's autograd, and what must hold exactly."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from splat_numba import reference
from splat_numba.errors import ArgumentError
from splat_numba.formats import patterns as p
from splat_numba.formats.acsr import ACSR

small = st.integers(1, 4)


@st.composite
def calls(draw):
    """(dout, dlse, [q, k, v], mask, options): grouped heads, one mask or a mask a head, key lengths, a scale."""
    batch, heads_kv, group, seq_q, seq_kv, head_dim, value_dim = draw(st.tuples(*[small] * 7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    heads = heads_kv * group
    q = rng.standard_normal((batch, heads, seq_q, head_dim))
    k, v = (rng.standard_normal((batch, heads_kv, seq_kv, dim)) for dim in (head_dim, value_dim))
    dout, dlse = rng.standard_normal((batch, heads, seq_q, value_dim)), rng.standard_normal((batch, heads, seq_q))
    masks = list(rng.random((heads, seq_q, seq_kv)) < draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])))
    lengths = draw(st.none() | st.lists(st.integers(0, seq_kv), min_size=batch, max_size=batch))
    mask = masks if draw(st.booleans()) else masks[0]
    return dout, dlse, [q, k, v], mask, {"scale": draw(st.sampled_from([None, 0.5, -1.0])), "kv_lengths": lengths}


def total(dout, dlse, arrays, mask, options):
    """What is differentiated. Rows that keep nothing have lse = -inf and no gradient."""
    out, lse = reference.attention(*arrays, mask, return_lse=True, **options)
    return (dout * out).sum() + (dlse * np.where(lse == -inf, 0.0, lse)).sum()


@settings(max_examples=40)
@given(calls())
def test_gradients_are_finite_differences(call):
    dout, dlse, arrays, mask, options = call
    found = reference.attention_backward(dout, *arrays, mask, dlse=dlse, **options)
    step = 1e-6
    for at, gradient in enumerate(found):
        assert gradient.shape == arrays[at].shape
        place = tuple(np.random.default_rng(at).integers(0, gradient.shape))  # one number of each is enough
        sides = []
        for sign in (1, -1):
            moved = [x.copy() for x in arrays]
            moved[at][place] += sign * step
            sides.append(total(dout, dlse, moved, mask, options))
        assert_allclose(gradient[place], (sides[0] - sides[1]) / (2 * step), rtol=1e-6, atol=1e-7)


@settings(max_examples=30)
@given(calls())
def test_gradients_of_the_three_operators_are_finite_differences(call):
    """Along a drawn direction of one input after the other; products are linear in each."""
    _, _, (q, k, v), mask, options = call
    scale = options["scale"] or 1.0
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((*q.shape[:3], k.shape[2]))
    dout = rng.standard_normal((*q.shape[:3], v.shape[3]))
    kept = np.stack(mask) if isinstance(mask, list) else mask
    for name, function, gradients, change, inputs in (
        ("sddmm", lambda q, k: reference.sddmm(q, k, mask, scale=scale),
         reference.sddmm_backward(dense, q, k, mask, scale=scale), np.where(kept, dense, 0), (q, k)),
        ("softmax", lambda scores: reference.softmax(scores, mask),
         (reference.softmax_backward(dense[::-1], dense, mask),), dense[::-1], (dense,)),
        ("spmm", lambda weights, v: reference.spmm(weights, v, mask),
         reference.spmm_backward(dout, dense, v, mask), dout, (dense, v)),
    ):  # fmt: skip
        for at, gradient in enumerate(gradients):
            assert gradient.shape == inputs[at].shape
            direction, step, sides = rng.standard_normal(inputs[at].shape), 1e-5, []
            for sign in (1, -1):
                moved = list(inputs)
                moved[at] = inputs[at] + sign * step * direction
                sides.append((change * function(*moved)).sum())
            slope = (sides[0] - sides[1]) / (2 * step)
            assert_allclose((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-7, err_msg=f"{name} {at}")


def test_the_three_compose_to_the_gradients_of_attention(rng):
    q, k, v, dout = rng.standard_normal((4, 6, 5))
    mask = rng.random((6, 6)) < 0.6
    mask[2] = False
    scores = reference.sddmm(q, k, mask, scale=0.3)
    dweights, dv = reference.spmm_backward(dout, reference.softmax(scores, mask), v, mask)
    found = *reference.sddmm_backward(reference.softmax_backward(dweights, scores, mask), q, k, mask, scale=0.3), dv
    for got, wanted in zip(found, reference.attention_backward(dout, q, k, v, mask, scale=0.3), strict=True):
        assert_allclose(got, wanted, atol=1e-13)


def test_gradients_are_those_of_torch(rng):
    torch = pytest.importorskip("torch")
    q = rng.standard_normal((2, 4, 9, 5))
    k, v = rng.standard_normal((2, 2, 11, 5)), rng.standard_normal((2, 2, 11, 3))
    mask = rng.random((9, 11)) < 0.6
    mask[4] = False
    dout, dlse = rng.standard_normal((2, 4, 9, 3)), rng.standard_normal((2, 4, 9))
    tq, tk, tv = (torch.tensor(x, requires_grad=True) for x in (q, k, v))
    keep = torch.tensor(mask)
    scores = (0.3 * tq @ tk.repeat_interleave(2, 1).mT).masked_fill(~keep, -inf)[:, :, keep.any(1)]
    full = keep.any(1)
    (torch.tensor(dout)[:, :, full] * (scores.softmax(-1) @ tv.repeat_interleave(2, 1))).sum().backward(
        retain_graph=True
    )
    (torch.tensor(dlse)[:, :, full] * scores.logsumexp(-1)).sum().backward()
    found = reference.attention_backward(dout, q, k, v, mask, dlse=dlse, scale=0.3)
    for gradient, wanted in zip(found, (tq.grad, tk.grad, tv.grad), strict=True):
        assert_allclose(gradient, wanted.numpy(), rtol=1e-11, atol=1e-13)


@settings(max_examples=30)
@given(calls())
def test_identities(call):
    dout, dlse, arrays, mask, options = call
    q, k, v = arrays
    one = reference.attention_backward(dout, *arrays, mask, dlse=dlse, **options)
    for zero in reference.attention_backward(0 * dout, *arrays, mask, **options):
        assert_array_equal(zero, 0)
    two = reference.attention_backward(dout[::-1], *arrays, mask, **options)
    both = reference.attention_backward(3 * dout + dout[::-1], *arrays, mask, dlse=3 * dlse, **options)
    for a, b, c in zip(one, two, both, strict=True):
        assert_allclose(c, 3 * a + b, atol=1e-12)
    flat = reference.attention_backward(dout, q, k, np.ones_like(v), mask, **options)
    for gradient in flat[:2]:  # the sum over keys of the weights is 1, whatever q and k
        assert_allclose(gradient, 0, atol=1e-13)


def test_a_window_over_everything_is_full(rng):
    q, k, v, dout = rng.standard_normal((4, 6, 4))
    window = ACSR.from_pattern(p.window(6), 6, 6)
    for got, wanted in zip(
        reference.attention_backward(dout, q, k, v, window),
        reference.attention_backward(dout, q, k, v, np.ones((6, 6), bool)),
        strict=True,
    ):
        assert_array_equal(got, wanted)


def test_heads_that_share_keys_add_up(rng):
    q, dout = rng.standard_normal((2, 2, 6, 5, 4))
    k, v = rng.standard_normal((2, 2, 2, 7, 4))
    masks = list(rng.random((6, 5, 7)) < 0.6)
    dq, dk, dv = reference.attention_backward(dout, q, k, v, masks)
    apart = reference.attention_backward(dout, q, *(x.repeat(3, axis=1) for x in (k, v)), masks)
    assert_allclose(dq, apart[0])
    for ours, theirs in ((dk, apart[1]), (dv, apart[2])):
        assert_allclose(ours, theirs.reshape(2, 2, 3, 7, 4).sum(axis=2))
    order = np.array([2, 0, 1, 5, 3, 4])  # of heads, within their groups
    turned = reference.attention_backward(dout[:, order], q[:, order], k, v, [masks[h] for h in order])
    assert_allclose(turned[0], dq[:, order])
    assert_allclose(turned[1], dk)


def test_layouts_and_missing_axes_agree(rng):
    q, k, v, dout = rng.standard_normal((4, 2, 3, 6, 4))
    dlse, mask = rng.standard_normal((2, 3, 6)), rng.random((6, 6)) < 0.5
    wanted = reference.attention_backward(dout, q, k, v, mask, dlse=dlse)
    swapped = [x.swapaxes(1, 2) for x in (dout, q, k, v)]
    for got, one in zip(reference.attention_backward(*swapped, mask, dlse=dlse, layout="bshd"), wanted, strict=True):
        assert_array_equal(got, one.swapaxes(1, 2))
    for axes in (1, 2):
        part = (0,) * axes
        found = reference.attention_backward(*(x[part] for x in (dout, q, k, v)), mask, dlse=dlse[part])
        for got, one in zip(found, wanted, strict=True):
            assert_array_equal(got, one[part])


@pytest.mark.parametrize("bad", [np.nan, inf])
def test_what_is_not_kept_never_reaches_a_gradient(rng, bad):
    q, k, v, dout = rng.standard_normal((4, 2, 1, 6, 4))
    mask = np.tri(6, dtype=bool)
    mask[2] = False  # a row that keeps nothing
    dlse = rng.standard_normal((2, 1, 6))
    lengths = [4, 0]
    clean = reference.attention_backward(dout, q, k, v, mask, dlse=dlse, kv_lengths=lengths)
    q[0, 0, 2] = dout[0, 0, 2] = dlse[0, 0, 2] = bad
    k[0, 0, 4:] = v[0, 0, 4:] = bad  # beyond the length
    q[1] = k[1] = v[1] = dout[1] = dlse[1] = bad  # all of it is
    found = reference.attention_backward(dout, q, k, v, mask, dlse=dlse, kv_lengths=lengths)
    for got, wanted in zip(found, clean, strict=True):
        assert_array_equal(got, wanted)
    assert_array_equal(found[0][0, 0, 2], 0)
    for gradient in found[1:]:
        assert_array_equal(gradient[0, 0, 4:], 0)
    for gradient in found:
        assert_array_equal(gradient[1], 0)


@pytest.mark.parametrize("name", ["dout", "q", "k", "v"])
def test_nan_reaches_what_depends_on_it_and_nothing_else(rng, name):
    arrays = dict(zip(("dout", "q", "k", "v"), rng.standard_normal((4, 6, 4)), strict=True))
    mask = np.zeros((6, 6), bool)
    mask[:3, :3] = mask[3:, 3:] = True
    arrays[name][4] = np.nan  # in the second block: of a row, or of a key that all its rows keep
    dq, dk, dv = reference.attention_backward(*arrays.values(), mask)
    for gradient in (dq, dk, dv):
        assert np.isfinite(gradient[:3]).all()
    rows = [4] if name in {"dout", "q"} else [3, 4, 5]
    assert np.isnan(dq[rows]).all()
    assert np.isfinite(np.delete(dq, rows, axis=0)).all()
    assert np.isnan(dk[3:]).all()
    assert (np.isfinite(dv[3:]) if name == "v" else np.isnan(dv[3:])).all()


def test_keys_of_minus_infinity_add_nothing(rng):
    q, k, v, dout = rng.standard_normal((4, 5, 4))
    q[:, 0] = abs(q[:, 0])
    mask = np.ones((5, 5), bool)
    without = mask.copy()
    without[:, 2] = False
    wanted = reference.attention_backward(dout, q, k, v, without)
    k[2, 0] = -inf
    for got, one in zip(reference.attention_backward(dout, q, k, v, mask), wanted, strict=True):
        assert_array_equal(got, one)
    k[:, 0] = -inf  # every row attends to nothing
    for gradient in reference.attention_backward(dout, q, k, v, mask):
        assert_array_equal(gradient, 0)


@pytest.mark.parametrize(("seq_q", "seq_kv"), [(0, 3), (3, 0), (0, 0)])
def test_empty_arrays(seq_q, seq_kv):
    q, dout = np.ones((2, 2, 1, seq_q, 4))
    k, v = np.ones((2, 2, 1, seq_kv, 4))
    dq, dk, dv = reference.attention_backward(dout, q, k, v, np.ones((seq_q, seq_kv), bool))
    assert [x.shape for x in (dq, dk, dv)] == [q.shape, k.shape, v.shape]
    assert not any(x.any() for x in (dq, dk, dv))


def test_shapes_that_do_not_fit_are_refused(rng):
    q, k, v = rng.standard_normal((3, 4, 5))
    mask = np.ones((4, 4), bool)
    with pytest.raises(ArgumentError, match=r"^dout: wanted the shape of out, \(4, 5\), got \(4, 3\)"):
        reference.attention_backward(np.ones((4, 3)), q, k, v, mask)
    with pytest.raises(ArgumentError, match=r"^dlse: wanted the shape of lse, \(4,\), got \(4, 1\)"):
        reference.attention_backward(q, q, k, v, mask, dlse=np.ones((4, 1)))
