"""Calls on a GPU's FMA units, their texts run by the emulator, against the oracle: methods, maps, dtypes, options."""

from functools import partial

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import flurka_numba
from flurka_numba.gpu.composed import attention as composed_attention
from flurka_numba.gpu.composed import plan as gpu_composed_plan
from splat_numba.errors import ArgumentError, ArgumentTypeError
from tests.flurka.agreement import check_forward, check_gradients
from tests.flurka.strategies import EVERY_KIND, Case, cases

HALVES = ("float16", "bfloat16")
LENGTHS = st.one_of(st.sampled_from([8, 0, 1, 3, 16, 17, 33]), st.integers(0, 40))
USUAL = Case(seq_q=20, seq_kv=40, rank=17, head_dim=24, value_dim=20, rows=12)
# Of 16 bits: tensor cores have these, too, but each target takes what it is asked for.
COMPOSED_HALVES = [(method, phi) for method, phi in EVERY_KIND if method == "low_rank" or phi in ("favor", "rfa")]

check = partial(check_gradients, backend="emulate", target="simt")


@settings(max_examples=10)
@given(cases(dtypes=("float32",), lengths=LENGTHS, max_dim=40))
@example(USUAL.but(seq_q=0))
@example(USUAL.but(seq_kv=0))
@example(USUAL.but(rank=0))
@example(USUAL.but(method="low_rank", rank=0))
@example(USUAL.but(method="kernel", seq_kv=0))
@example(USUAL.but(batch=0))
@example(USUAL.but(feature_map="favor", method="kernel", batch=2, kv_lengths=(0, 33)))
def test_every_float32_case_agrees_with_the_oracle(case):
    check(case)


@settings(max_examples=5)
@given(cases(kinds=COMPOSED_HALVES, dtypes=HALVES, lengths=LENGTHS, max_dim=40))
def test_every_16_bit_case_of_a_few_kinds_agrees_with_the_oracle(case):
    check(case)


WAYS = {
    "favor, per head": {"feature_map": "favor", "per_head": True, "batch": 2},
    "rfa, odd rows": {"feature_map": "rfa", "rows": 7, "head_dim": 33, "value_dim": 7},
    "key lengths with projections": {"batch": 2, "kv_lengths": (31, 0), "shared": True, "per_head": True},
    "low rank": {"method": "low_rank", "scale": -0.3, "batch": 2, "kv_lengths": (31, 40)},
    "your own map": {"feature_map": "softplus", "method": "kernel", "batch": 2, "kv_lengths": (31, 0), "seq_q": 17},
    "strides": {"strided": True, "method": "low_rank"},
    "strides, kernel": {"strided": True, "method": "kernel", "feature_map": "rfa"},
}


@pytest.fixture
def divided(monkeypatch):
    """Scratch memory for a few rows, and depths that are always shared."""
    monkeypatch.setattr(gpu_composed_plan, "LEAST_ROWS", 16)
    monkeypatch.setattr(gpu_composed_plan, "LEAST_STEPS", 1)
    monkeypatch.setattr(composed_attention, "composed_plan", partial(gpu_composed_plan.composed_plan, largest=4096))


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_chunks_of_rows_and_shares_of_depths(changes):
    check(USUAL.but(**changes))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_tiles(dtype):
    check(USUAL.but(method="low_rank", seq_q=70, seq_kv=20, rank=70, head_dim=40, value_dim=36, heads=1, dtype=dtype))


HALF_WAYS = {
    "low rank": {"method": "low_rank", "strided": True},
    "favor": {"feature_map": "favor", "dtype": "bfloat16"},
    "rfa, odd": {"feature_map": "rfa", "method": "kernel", "head_dim": 33, "value_dim": 7},
    "key lengths": {"batch": 2, "kv_lengths": (31, 0), "shared": True},
    "wide heads": {"method": "kernel", "head_dim": 200, "value_dim": 100, "seq_kv": 20, "heads": 1},
}


@pytest.mark.parametrize("changes", HALF_WAYS.values(), ids=HALF_WAYS)
def test_16_bit_gradients(changes):
    check(USUAL.but(**{"dtype": "float16", **changes}))


def test_more_features_than_a_multiprocessor_holds():
    case = USUAL.but(dtype="bfloat16", feature_map="favor", rows=300, rank=5, heads=1)
    check_forward(case, backend="emulate", target="simt")


@pytest.mark.parametrize("frozen", [("q",), ("k", "v"), ("proj_k",), ("k", "v", "proj_k", "proj_v"), ("k", "proj_k")])
@pytest.mark.parametrize("method", ["flurka", "low_rank"])
def test_frozen_arguments_have_none(method, frozen):
    check(USUAL.but(method=method, seq_q=5, seq_kv=9, head_dim=8, value_dim=8), frozen=frozen)


@pytest.mark.parametrize(
    ("method", "phi"),
    [("low_rank", "elu"), ("flurka", "elu"), ("flurka", "rfa"), ("kernel", "elu"), ("kernel", "favor")],
)
def test_what_is_beyond_a_length_never_reaches_anything(method, phi):
    case = USUAL.but(method=method, feature_map=phi, batch=2, kv_lengths=(31, 0), seq_q=5, head_dim=8, value_dim=8)
    arrays = case.arrays()
    arrays["k"][0, :, 31:], arrays["v"][0, :, 31:] = np.nan, np.inf
    arrays["k"][1], arrays["v"][1] = np.inf, np.nan
    out, vjp = case.run_vjp(arrays, backend="emulate")
    clean, clean_vjp = case.run_vjp(backend="emulate")
    np.testing.assert_array_equal(out, clean)
    for got, right in zip(vjp(case.dout()), clean_vjp(case.dout()), strict=True):
        assert (got is None) == (right is None)
        if got is not None:
            np.testing.assert_array_equal(got, right)
            assert np.isfinite(got).all()


def test_nan_in_a_query_stays_in_its_row():
    for phi in ("elu", "favor", "rfa"):
        case = USUAL.but(feature_map=phi, seq_q=5)
        arrays = case.arrays()
        clean = case.run(arrays, backend="emulate")
        arrays["q"][0, 1, 3, 0] = np.nan
        out = case.run(arrays, backend="emulate")
        assert np.isnan(out[0, 1, 3]).all()
        out[0, 1, 3] = clean[0, 1, 3]
        np.testing.assert_array_equal(out, clean)


def test_rows_whose_divisor_is_0_are_0():
    case = USUAL.but(feature_map="relu", eps=0.0, seq_q=5)
    arrays = case.arrays()
    arrays["q"][0, 0, 2] = -1.0
    out, vjp = case.run_vjp(arrays, backend="emulate")
    assert not out[0, 0, 2].any()
    assert all(np.isfinite(one).all() for one in vjp(case.dout()))
    assert not vjp(case.dout())[0][0, 0, 2].any()


def test_out_is_written_and_what_does_not_fit_is_refused():
    arrays = USUAL.arrays()
    out = np.full(USUAL.dout().shape, np.nan, np.float32)
    assert flurka_numba.attention(**arrays, backend="emulate", out=out) is out
    np.testing.assert_array_equal(out, USUAL.run(backend="emulate"))
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as float16, bfloat16, float32 for backend 'cuda', got flo"):
        USUAL.but(dtype="float64").run(backend="emulate")
    with pytest.raises(ArgumentError, match=r"dout wanted of shape"):
        USUAL.run_vjp(backend="emulate")[1](np.zeros(3, np.float32))
