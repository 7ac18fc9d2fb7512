"""The oracles: identities of the method, order (a) against order (b), finite differences of every gradient."""

import numpy as np
import pytest
from hypothesis import given, settings

from flurka_numba import draw_orthogonal_features, reference
from flurka_numba.checks import ARRAYS
from tests.flurka.error_bound import assert_close, tolerance
from tests.flurka.strategies import EVERY_KIND, MAPS, Case, cases

SMALL = {"seq_q": 3, "seq_kv": 5, "rank": 4, "head_dim": 4, "value_dim": 3, "rows": 6, "dtype": "float64", "batch": 2}


@pytest.mark.parametrize("phi", MAPS)
def test_identity_projections_give_kernel_attention(phi):
    case = Case(feature_map=phi, dtype="float64", rank=8)
    arrays = case.arrays() | {"proj_k": np.eye(8), "proj_v": np.eye(8)}
    plain = case.but(method="kernel").arrays()
    wanted, _ = case.but(method="kernel").wanted_vjp(plain)
    np.testing.assert_allclose(case.wanted_vjp(arrays)[0], wanted, rtol=1e-12)


def test_exact_exponential_features_give_linformer(rng):
    """phi of a monomial basis: exp(q.k) = sum over n of (q.k)^n / n! in one dimension."""
    q, k = rng.uniform(-1, 1, (7, 1)), rng.uniform(-1, 1, (9, 1))
    v, proj = rng.standard_normal((9, 4)), rng.standard_normal((5, 9)) / 3
    factorials = np.cumprod([1.0, *range(1, 30)])

    def features(x):
        return x ** np.arange(30) / np.sqrt(factorials)

    weights = features(q) @ features(proj @ k).T
    by_features = weights / weights.sum(axis=1, keepdims=True) @ (proj @ v)
    np.testing.assert_allclose(reference.low_rank_attention(q, k, v, proj, scale=1.0), by_features, rtol=1e-10)


@pytest.mark.parametrize(("method", "phi"), EVERY_KIND)
def test_constant_values_give_a_constant_output(method, phi):
    case = Case(method=method, feature_map=phi, dtype="float64", eps=None if method == "low_rank" else 1e-12)
    arrays = case.arrays()
    arrays["v"] = np.full_like(arrays["v"], 2.5)
    if method != "kernel":
        arrays["proj_v"] = arrays["proj_v"] / arrays["proj_v"].sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(case.wanted_vjp(arrays)[0], 2.5, rtol=1e-6)


@pytest.mark.parametrize(("method", "phi"), [kind for kind in EVERY_KIND if kind[1] != "rfa"])  # that one is signed
def test_output_rows_are_convex_combinations_of_the_slots_values(method, phi):
    case = Case(method=method, feature_map=phi, dtype="float64", spread=3.0)
    arrays = case.arrays()
    slots = arrays["v"] if method == "kernel" else arrays["proj_v"] @ arrays["v"]
    out = case.wanted_vjp(arrays)[0]
    assert (out <= slots.max(axis=-2, keepdims=True) + 1e-9).all()
    assert (out >= slots.min(axis=-2, keepdims=True) - np.abs(slots).max() * 1e-5 - 1e-9).all()


@pytest.mark.parametrize("phi", MAPS)
def test_kernel_attention_over_the_slots_is_flurka(phi):
    case = Case(feature_map=phi, dtype="float64", rank=11, shared=False)
    arrays = case.arrays()
    slots = {"k": arrays["proj_k"] @ arrays["k"], "v": arrays["proj_v"] @ arrays["v"], "q": arrays["q"]}
    if "omega" in arrays:
        slots["omega"] = arrays["omega"]
    over_slots, _ = case.but(method="kernel").wanted_vjp(slots)
    np.testing.assert_allclose(case.wanted_vjp(arrays)[0], over_slots, rtol=1e-12)


def test_order_a_equals_order_b(rng):
    x, w_k, w_v = rng.standard_normal((2, 12, 8)), rng.standard_normal((8, 8)), rng.standard_normal((8, 8))
    proj, q = rng.standard_normal((5, 12)) / 3, rng.standard_normal((2, 3, 8))
    whole = reference.attention(q[:, None], (x @ w_k)[:, None], (x @ w_v)[:, None], proj)
    few = reference.kernel_attention(q[:, None], (proj @ x @ w_k)[:, None], (proj @ x @ w_v)[:, None])
    np.testing.assert_allclose(whole, few, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"shared": True, "per_head": True}, {"kv_lengths": (5, 3)}], ids=str)
@pytest.mark.parametrize(("method", "phi"), EVERY_KIND)
def test_gradients_are_those_of_finite_differences(method, phi, options):
    # eps = 0: the stabilisers of favor have no gradient, and without eps they have no effect either
    case = Case(method=method, feature_map=phi, eps=0.0 if phi == "favor" else None, **SMALL, **options)
    arrays, dout = case.arrays(), case.dout()
    _, vjp = case.wanted_vjp(arrays)
    for name, gradient in zip(ARRAYS, vjp(dout), strict=True):
        if name not in arrays:
            assert gradient is None
            continue
        wanted = differences(lambda arrays=arrays: np.sum(case.wanted_vjp(arrays)[0] * dout), arrays[name])
        np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-8 * max(np.abs(wanted).max(), 1), err_msg=name)


def test_the_gradient_of_favor_keeps_its_stabiliser_constant(rng):
    x, omega = rng.standard_normal((3, 4)), draw_orthogonal_features(6, 4, seed=0)
    stab, dy = rng.standard_normal((3, 1)), rng.standard_normal((3, 6))
    _, pull = reference.positive(x, omega, 0.1, stab)
    wanted = differences(lambda: np.sum(reference.positive(x, omega, 0.1, stab)[0] * dy), x)
    np.testing.assert_allclose(pull(dy), wanted, rtol=1e-6, atol=1e-9)


def differences(value, x, step=1e-6):
    found = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = value()
        x[index] = kept - step
        found[index] = (above - value()) / (2 * step)
        x[index] = kept
    return found


@pytest.mark.parametrize(("method", "phi"), EVERY_KIND)
def test_what_is_beyond_a_length_never_reaches_anything(method, phi):
    case = Case(method=method, feature_map=phi, batch=2, kv_lengths=(5, 0))
    arrays = case.arrays()
    clean = [*case.wanted_vjp(arrays)[1](case.dout()), case.wanted_vjp(arrays)[0]]
    for b, length in enumerate(case.kv_lengths):
        arrays["k"][b, :, length:], arrays["v"][b, :, length:] = np.nan, np.inf
    out, vjp = case.wanted_vjp(arrays)
    for got, wanted in zip([*vjp(case.dout()), out], clean, strict=True):
        assert (got is None) == (wanted is None)
        assert got is None or np.isfinite(got).all()
        np.testing.assert_array_equal(got, wanted)


def test_an_entry_without_keys_gives_zeros_and_no_gradient():
    case = Case(method="kernel", batch=2, kv_lengths=(0, 8))
    out, vjp = case.wanted_vjp()
    assert not out[0].any()
    assert all(not gradient[0].any() for gradient in vjp(case.dout())[:3])


@pytest.mark.parametrize(("method", "phi"), EVERY_KIND)
def test_nan_in_a_query_stays_in_its_row(method, phi):
    case = Case(method=method, feature_map=phi)
    arrays = case.arrays()
    arrays["q"][0, 1, 3, 0] = np.nan
    out, _ = case.wanted_vjp(arrays)
    assert np.isnan(out[0, 1, 3]).all()
    assert np.isnan(out).sum() == out.shape[-1]


@settings(max_examples=30)
@given(cases())
def test_axes_and_dtypes_make_no_difference_and_the_rule_of_tolerance_covers_every_case(case):
    arrays = case.arrays()
    out, vjp = case.wanted_vjp(arrays)
    allowed, allowed_vjp = tolerance(case.call(arrays), case.dtype)
    assert out.shape == allowed.shape == (*arrays["q"].shape[:-1], case.value_dim)
    rounded = out.astype(case.dtype if case.dtype != "bfloat16" else np.float32)
    assert_close(rounded, out, allowed)
    for name, gradient, bound in zip(ARRAYS, vjp(case.dout()), allowed_vjp(case.dout()), strict=True):
        assert (gradient is None) == (name not in arrays)
        assert gradient is None or gradient.shape == bound.shape == arrays[name].shape


def test_the_rule_of_tolerance_is_tight_enough_to_find_a_lost_token():
    case = Case(seq_q=64, seq_kv=257, rank=64, head_dim=64, value_dim=64)
    arrays = case.arrays()
    wanted, _ = case.wanted_vjp(arrays)
    allowed, _ = tolerance(case.call(arrays), case.dtype)
    arrays["k"][..., 100, :] = 0
    with pytest.raises(AssertionError, match="are too far"):
        assert_close(case.wanted_vjp(arrays)[0], wanted, allowed)


def test_projections_of_two_axes_are_those_of_every_head():
    case = Case(dtype="float64")
    arrays = case.arrays()
    each = arrays | {name: np.stack([arrays[name]] * 2) for name in ("proj_k", "proj_v")}
    (out, vjp), (out_each, vjp_each) = case.wanted_vjp(arrays), case.wanted_vjp(each)
    np.testing.assert_array_equal(out, out_each)
    for one, two in zip(vjp(case.dout())[3:], vjp_each(case.dout())[3:], strict=True):
        np.testing.assert_allclose(one, two.sum(axis=0), rtol=1e-12)


def test_a_shared_projection_has_the_sum_of_both_gradients():
    case = Case(dtype="float64", shared=True)
    arrays = case.arrays()
    both = case.wanted_vjp(arrays | {"proj_v": arrays["proj_k"].copy()})[1](case.dout())
    one = case.wanted_vjp(arrays)[1](case.dout())
    assert one[4] is None
    np.testing.assert_allclose(one[3], both[3] + both[4], rtol=1e-12)
