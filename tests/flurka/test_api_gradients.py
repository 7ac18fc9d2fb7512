"""Gradients on the CPU against the oracle's, under the one tolerance rule."""

import numpy as np
import pytest
from hypothesis import example, given, settings

from flurka_numba.checks import ARRAYS
from splat_numba.errors import ArgumentError, ArgumentTypeError
from tests.flurka.agreement import check_gradients
from tests.flurka.strategies import DTYPES, FEW_KINDS, KINDS, METHODS, Case, cases
from tests.profiles import draws


@settings(max_examples=draws(8))
@given(cases(kinds=KINDS, dtypes=["float32"]))
@example(Case(seq_q=0, seq_kv=0, rank=0))
@example(Case(method="kernel", seq_kv=0))
@example(Case(method="low_rank", rank=0))
@example(Case(feature_map="favor", method="kernel", batch=2, kv_lengths=(0, 1)))
def test_every_case_agrees_with_the_oracle(case):
    check_gradients(case, backend="cpu")


@settings(max_examples=draws(8))
@given(cases(kinds=FEW_KINDS, dtypes=DTYPES))
def test_other_dtypes_agree_with_the_oracle(case):
    check_gradients(case, backend="cpu")


@pytest.mark.parametrize(
    ("method", "phi", "dtype"),
    [(*kind, "float32") for kind in KINDS] + [(*kind, dtype) for kind in FEW_KINDS for dtype in DTYPES[1:]],
)
def test_every_map_and_dtype_at_a_usual_size(method, phi, dtype):
    case = Case(method=method, feature_map=phi, seq_q=97, seq_kv=131, rank=40, head_dim=64, value_dim=64, rows=48)
    check_gradients(case.but(dtype=dtype))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("method", ["flurka", "low_rank"])
def test_every_kind_of_projection(method, per_head, shared):
    case = Case(method=method, per_head=per_head, shared=shared, batch=3, kv_lengths=(33, 0, 40), seq_kv=40, rank=45)
    check_gradients(case)


@pytest.mark.parametrize(
    ("method", "frozen"), [("flurka", ARRAYS), ("low_rank", ("q",)), ("kernel", ("k", "v")), ("kernel", ("q",))]
)
def test_frozen_arguments_have_no_gradient(method, frozen):
    mine = [name for name in frozen if method != "kernel" or not name.startswith("proj")]
    check_gradients(Case(method=method), frozen=mine)


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_gradients_are_deterministic_and_the_pullback_can_be_used_again(method, phi):
    case = Case(method=method, feature_map=phi, seq_q=300, seq_kv=200, rank=30, batch=2)
    dout, (_, vjp), (_, again) = case.dout(), case.run_vjp(), case.run_vjp()
    for one, two, three in zip(vjp(dout), vjp(dout), again(dout), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_what_is_beyond_a_length_never_reaches_a_gradient(method, phi):
    case = Case(method=method, feature_map=phi, batch=2, seq_kv=40, kv_lengths=(17, 0))
    arrays = case.arrays()
    clean = case.run_vjp(arrays)[1](case.dout())
    for b, length in enumerate(case.kv_lengths):
        arrays["k"][b, :, length:], arrays["v"][b, :, length:] = np.nan, np.inf
    for got, wanted in zip(case.run_vjp(arrays)[1](case.dout()), clean, strict=True):
        if wanted is not None:
            assert np.isfinite(wanted).all()
            np.testing.assert_array_equal(got, wanted)
    for name, gradient in zip(("k", "v"), clean[1:3], strict=True):
        assert not gradient[0, :, 17:].any(), name
        assert not gradient[1].any(), name


def test_a_gradient_of_another_shape_or_dtype_is_refused():
    case = Case()
    _, vjp = case.run_vjp()
    with pytest.raises(ArgumentError, match=r"dout wanted of shape \(1, 2, 8, 16\), got \(2, 8, 16\)"):
        vjp(case.dout()[0])
    with pytest.raises(ArgumentTypeError, match="dout wanted as float32 as q is, got float64"):
        vjp(case.dout().astype(np.float64))


@pytest.mark.parametrize("method", METHODS)
def test_out_is_written_where_it_was_asked(method):
    case = Case(method=method)
    out = np.full_like(case.dout(), np.nan)
    got, vjp = case.run_vjp(out=out)
    assert got is out
    np.testing.assert_array_equal(out, case.run())
    assert all(np.isfinite(g).all() for g in vjp(case.dout()) if g is not None)
