"""The texts of the GPU's stages on the emulator, against the oracle: every option, without a GPU."""

import numpy as np
import pytest
from hypothesis import example, given, settings

import flurka_numba
from splat_numba.errors import ArgumentTypeError, BackendError
from tests.flurka.agreement import check_forward
from tests.flurka.strategies import MAPS, Case, cases

OPERAND = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}  # features, states and slots are rounded before they are multiplied
ELEMENTWISE = tuple(name for name in MAPS if name not in ("favor", "rfa"))
USUAL = Case(dtype="bfloat16", seq_q=70, seq_kv=200, rank=70, head_dim=64, value_dim=64)


def check(case, backend="emulate"):
    return check_forward(case, operand=OPERAND[case.dtype], backend=backend)


@settings(max_examples=60)
@given(cases(maps=ELEMENTWISE, dtypes=tuple(OPERAND)))
@example(Case(dtype="float16", seq_q=0))
@example(Case(dtype="float16", seq_kv=0))
@example(Case(dtype="float16", rank=0))
@example(Case(dtype="float16", method="kernel", seq_kv=0))
@example(Case(dtype="float16", method="low_rank", rank=0))
@example(Case(dtype="bfloat16", batch=2, seq_kv=100, kv_lengths=(0, 65)))
def test_every_case_agrees_with_the_oracle(case):
    check(case)


@pytest.mark.parametrize("phi", ELEMENTWISE)
@pytest.mark.parametrize("method", ["flurka", "kernel"])
def test_every_map_at_a_usual_size(method, phi):
    check(USUAL.but(method=method, feature_map=phi))


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


@pytest.mark.parametrize("method", ["flurka", "kernel", "low_rank"])
def test_what_is_beyond_a_length_never_reaches_anything(method):
    case = USUAL.but(method=method, batch=3, seq_kv=140, kv_lengths=(140, 70, 0))
    arrays = case.arrays()
    clean = case.run(arrays, backend="emulate")
    for b, length in enumerate(case.kv_lengths):
        arrays["k"][b, :, length:], arrays["v"][b, :, length:] = np.nan, np.inf
    np.testing.assert_array_equal(case.run(arrays, backend="emulate"), clean)
    assert np.isfinite(clean.astype(np.float32)).all()


def test_nan_in_a_query_stays_in_its_row():
    case = USUAL.but(seq_q=20)
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


def test_what_a_gpu_has_not():
    with pytest.raises(BackendError, match=r"feature_map 'favor' is not on GPUs in this version"):
        USUAL.but(feature_map="favor").run(backend="emulate")
    with pytest.raises(ArgumentTypeError, match=r"q wanted as float16 or bfloat16 for backend 'cuda', got float32"):
        USUAL.but(dtype="float32").run(backend="emulate")


def test_out_is_written():
    arrays = USUAL.arrays()
    out = np.full_like(arrays["q"], np.nan)
    assert flurka_numba.attention(**arrays, backend="emulate", out=out) is out
    np.testing.assert_array_equal(out, flurka_numba.attention(**arrays, backend="emulate"))
