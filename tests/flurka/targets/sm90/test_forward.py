"""The texts of the GPU's stages on the emulator, against the oracle: every option, without a GPU."""

import numpy as np
import pytest
from hypothesis import example, given, settings

import flurka_numba
from flurka_numba.gpu import plan
from tests.flurka.agreement import check_forward
from tests.flurka.error_bound import assert_close, tolerance
from tests.flurka.strategies import MAPS, Case, cases
from tests.profiles import draws

OPERAND = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}  # features, states and slots are rounded before they are multiplied
RANDOM = ("favor", "rfa")
USUAL = Case(dtype="bfloat16", seq_q=70, seq_kv=200, rank=70, head_dim=64, value_dim=64)


def check(case, backend="emulate"):
    return check_forward(case, operand=OPERAND[case.dtype], backend=backend)


@settings(max_examples=draws(25))
@given(cases(dtypes=tuple(OPERAND)))
@example(Case(dtype="bfloat16", batch=2, seq_kv=100, kv_lengths=(0, 65)))
def test_every_case_agrees_with_the_oracle(case):
    check(case)


EMPTY = {
    "no queries": {"seq_q": 0},
    "no keys": {"seq_kv": 0},
    "no slots": {"rank": 0},
    "no keys, kernel attention": {"method": "kernel", "seq_kv": 0},
    "no slots, low-rank attention": {"method": "low_rank", "rank": 0},
    "no keys, low-rank attention": {"method": "low_rank", "seq_kv": 0},
}


@pytest.mark.parametrize("changes", EMPTY.values(), ids=EMPTY)
def test_empty_arrays(changes):
    check(Case(dtype="float16", **changes))


@pytest.mark.parametrize("phi", MAPS)
@pytest.mark.parametrize("method", ["flurka", "kernel"])
def test_every_map_at_a_usual_size(method, phi):
    check(USUAL.but(method=method, feature_map=phi, rows=64))


WIDE = {
    "two blocks of features and of values": {"head_dim": 100, "value_dim": 72, "rank": 20},
    "a product for the sums alone": {"head_dim": 40, "value_dim": 256, "rank": 20, "heads": 1},
    "no queries ahead": {"head_dim": 256, "value_dim": 40, "rank": 20, "heads": 1},
    "two row blocks": {"rank": 320, "heads": 1},
    "four warpgroups": {"rank": 250, "heads": 1},
    "spans of two heads in a tile": {"heads": 3, "rank": 130},
    "projections of their own, two spans a head": {"heads": 2, "head_dim": 128, "value_dim": 128, "per_head": True},
    "projections of their own, one span a tile": {"heads": 2, "head_dim": 128, "value_dim": 64, "per_head": True},
    "blocks that share a state": {"method": "kernel", "seq_kv": 600, "heads": 1},
    "blocks that share a state, ragged": {"method": "kernel", "seq_kv": 600, "batch": 2, "kv_lengths": (590, 130)},
    "many splits": {"seq_kv": 1000, "heads": 1, "rank": 64},
}


@pytest.mark.parametrize("changes", WIDE.values(), ids=WIDE)
def test_each_way_of_dividing_the_work(changes):
    check(USUAL.but(seq_q=40, **changes))


@pytest.mark.parametrize("dtype", OPERAND)
def test_blocks_that_share_the_slots_of_a_state(dtype, monkeypatch):
    monkeypatch.setattr(plan, "slot_shares", lambda *_: 3)  # with few slots one block is faster
    check(USUAL.but(seq_q=20, seq_kv=80, rank=100, heads=1, dtype=dtype))


WIDE_RANDOM = {
    "one row": {"rows": 1},
    "sines and cosines in one block": {"rows": 20, "head_dim": 16},
    "most rows of rfa": {"rows": 128, "value_dim": 20},
    "two blocks of features and of values": {"rows": 100, "head_dim": 100, "value_dim": 72},
    "the widest queries": {"rows": 40, "head_dim": 256, "value_dim": 40, "heads": 1},
    "the widest values, no queries ahead": {"rows": 128, "head_dim": 64, "value_dim": 256, "heads": 1, "seq_kv": 40},
    "odd rows": {"rows": 33, "head_dim": 33, "value_dim": 33, "dtype": "float16"},
    "blocks that share a state": {"rows": 24, "method": "kernel", "seq_kv": 600, "heads": 1},
    "ragged": {"rows": 24, "method": "kernel", "seq_kv": 300, "batch": 3, "kv_lengths": (290, 130, 0), "head_dim": 20},
    "many splits": {"rows": 64, "seq_kv": 1000, "heads": 1, "rank": 64},
}


@pytest.mark.parametrize("phi", RANDOM)
@pytest.mark.parametrize("changes", WIDE_RANDOM.values(), ids=WIDE_RANDOM)
def test_each_way_of_dividing_the_work_of_random_features(changes, phi):
    check(USUAL.but(seq_q=40, feature_map=phi, **changes))


def test_most_rows_of_favor():
    check(USUAL.but(seq_q=40, feature_map="favor", rows=250, heads=1, value_dim=20))


@pytest.mark.parametrize("eps", [None, 0.0])
@pytest.mark.parametrize("dtype", OPERAND)
def test_favor_of_long_queries_whose_features_are_all_small(dtype, eps):
    case = USUAL.but(feature_map="favor", rows=64, dtype=dtype, eps=eps, rank=20, seq_q=30)
    arrays = case.arrays()
    arrays["q"] = (3 * arrays["q"].astype(np.float32)).astype(arrays["q"].dtype)  # exp(-|q|^2 / 16) is about e^-36
    allowed, _ = tolerance(case.call(arrays), dtype, operand=OPERAND[dtype])
    assert_close(case.run(arrays, backend="emulate"), case.wanted_vjp(arrays)[0], allowed)


def test_rfa_of_angles_of_many_turns_and_of_rows_without_direction():
    case = USUAL.but(feature_map="rfa", rows=64, rank=20, seq_q=30)
    arrays = case.arrays()
    arrays["omega"] *= np.float32(40.0)
    arrays["q"][:, :, 3] = 0.0
    arrays["proj_k"][5] = 0.0
    allowed, _ = tolerance(case.call(arrays), case.dtype, operand=OPERAND[case.dtype])
    assert_close(case.run(arrays, backend="emulate"), case.wanted_vjp(arrays)[0], allowed)


@pytest.mark.parametrize("phi", ["elu", *RANDOM])
@pytest.mark.parametrize("method", ["flurka", "kernel", "low_rank"])
def test_what_is_beyond_a_length_never_reaches_anything(method, phi):
    case = USUAL.but(method=method, feature_map=phi, batch=3, seq_kv=140, kv_lengths=(140, 70, 0))
    arrays = case.arrays()
    clean = case.run(arrays, backend="emulate")
    for b, length in enumerate(case.kv_lengths):
        arrays["k"][b, :, length:], arrays["v"][b, :, length:] = np.nan, np.inf
    np.testing.assert_array_equal(case.run(arrays, backend="emulate"), clean)
    assert np.isfinite(clean.astype(np.float32)).all()


@pytest.mark.parametrize("phi", ["elu", *RANDOM])
def test_nan_in_a_query_stays_in_its_row(phi):
    case = USUAL.but(seq_q=20, feature_map=phi)
    arrays = case.arrays()
    clean = case.run(arrays, backend="emulate").astype(np.float32)
    arrays["q"][0, 1, 3, 0] = np.nan
    out = case.run(arrays, backend="emulate").astype(np.float32)
    assert np.isnan(out[0, 1, 3]).all()
    kept = np.ones(out.shape, bool)
    kept[0, 1, 3] = False
    np.testing.assert_array_equal(out[kept], clean[kept])


def test_splat_emulate_runs_backend_cuda_on_the_emulator(monkeypatch):
    monkeypatch.setenv("SPLAT_EMULATE", "1")
    check(USUAL.but(seq_q=8, seq_kv=70), backend="cuda")


def test_out_is_written():
    arrays = USUAL.arrays()
    out = np.full_like(arrays["q"], np.nan)
    assert flurka_numba.attention(**arrays, backend="emulate", out=out) is out
    np.testing.assert_array_equal(out, flurka_numba.attention(**arrays, backend="emulate"))
