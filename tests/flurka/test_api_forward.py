"""The three operators on the CPU against the oracle, under the one tolerance rule."""

import numpy as np
import pytest
from hypothesis import example, given, settings

from tests.flurka.agreement import check_forward
from tests.flurka.strategies import DTYPES, FEW_KINDS, KINDS, METHODS, Case, cases
from tests.profiles import draws


@settings(max_examples=draws(15))
@given(cases(kinds=KINDS, dtypes=["float32"]))
@example(Case(seq_q=0, seq_kv=0, rank=0))
@example(Case(method="kernel", seq_kv=0))
@example(Case(method="low_rank", rank=0))
@example(Case(feature_map="favor", method="kernel", batch=2, kv_lengths=(0, 1)))
@example(Case(head_dim=1, value_dim=80, rank=100, strided=True))
def test_every_case_agrees_with_the_oracle(case):
    check_forward(case, backend="cpu")


@settings(max_examples=draws(8))
@given(cases(kinds=FEW_KINDS, dtypes=DTYPES))
def test_other_dtypes_agree_with_the_oracle(case):
    check_forward(case, backend="cpu")


@pytest.mark.parametrize(
    ("method", "phi", "dtype"),
    [(*kind, "float32") for kind in KINDS] + [(*kind, dtype) for kind in FEW_KINDS for dtype in DTYPES[1:]],
)
def test_every_map_and_dtype_at_a_usual_size(method, phi, dtype):
    case = Case(method=method, feature_map=phi, seq_q=97, seq_kv=131, rank=40, head_dim=64, value_dim=64, rows=48)
    check_forward(case.but(dtype=dtype))


@pytest.mark.parametrize("phi", ["elu", "favor"])
@pytest.mark.parametrize("method", METHODS)
def test_long_sequences_agree(method, phi):
    check_forward(Case(method=method, feature_map=phi, heads=1, seq_q=70, seq_kv=5003, rank=33, head_dim=32))


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_what_is_beyond_a_length_never_reaches_anything(method, phi):
    case = Case(method=method, feature_map=phi, batch=3, seq_kv=40, kv_lengths=(40, 17, 0))
    arrays = case.arrays()
    clean = case.run(arrays)
    for b, length in enumerate(case.kv_lengths):
        arrays["k"][b, :, length:], arrays["v"][b, :, length:] = np.nan, np.inf
    np.testing.assert_array_equal(case.run(arrays), clean)
    assert np.isfinite(clean).all()


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_nan_in_a_query_stays_in_its_row(method, phi):
    case = Case(method=method, feature_map=phi, seq_q=20)
    arrays = case.arrays()
    clean = case.run(arrays)
    arrays["q"][0, 1, 3, 0] = np.nan
    out = case.run(arrays)
    assert np.isnan(out[0, 1, 3]).all()
    kept = np.ones(out.shape, bool)
    kept[0, 1, 3] = False
    np.testing.assert_array_equal(out[kept], clean[kept])


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_the_same_call_gives_the_same_bits(method, phi):
    case = Case(method=method, feature_map=phi, seq_q=200, seq_kv=300, rank=50)
    np.testing.assert_array_equal(case.run(), case.run())


def test_an_entry_without_keys_gives_zeros():
    for phi in ("elu", "relu", "favor", "rfa"):
        out = Case(method="kernel", feature_map=phi, batch=2, kv_lengths=(0, 8)).run()
        assert not out[0].any()
        assert out[1].any()


def test_features_that_all_die_give_zeros_where_eps_is_0():
    case = Case(feature_map="relu", eps=0.0)
    arrays = case.arrays()
    arrays["q"] = -np.abs(arrays["q"])
    assert not case.run(arrays).any()


@pytest.mark.parametrize("size", [1e-3, 30.0])
@pytest.mark.parametrize("phi", ["elu", "favor", "rfa", "relu"])
def test_small_and_large_inputs_stay_finite(phi, size):
    out = Case(feature_map=phi, spread=size, dtype="float32", seq_kv=64).run()
    assert np.isfinite(out).all()
