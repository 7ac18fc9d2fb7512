"""Calls by products on tensor cores from Ampere on, their texts run by the emulator, against the oracle."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flurka_numba.emulated.executor import EmulatedCall
from flurka_numba.gpu.composed import attention as composed_attention
from flurka_numba.gpu.composed import plan as composed_plan
from flurka_numba.targets.sm80 import rows_shape
from splat_numba.emulator import machine
from splat_numba.emulator.text import launch
from tests.flurka.agreement import check_gradients, operand_of
from tests.flurka.far_numbers import check_far
from tests.flurka.strategies import Case, cases
from tests.profiles import draws

LENGTHS = st.one_of(st.sampled_from([8, 0, 1, 3, 16, 17, 33]), st.integers(0, 40))
SMALL = Case(seq_q=5, seq_kv=20, rank=5, head_dim=8, value_dim=8, rows=6, heads=1, dtype="bfloat16")


def check(case):
    operands = {"operand": operand_of(case), "operand_back": operand_of(case, gradients=True)}
    check_gradients(case, backend="emulate", target="sm80", **operands)


@settings(max_examples=draws(2))
@given(cases(dtypes=("float16", "bfloat16"), lengths=LENGTHS, max_dim=24))
def test_every_case_agrees_with_the_oracle(case):
    check(case)


WAYS = {
    "elu of tokens": {"method": "kernel", "heads": 2, "seq_q": 20},
    "key lengths": {"batch": 2, "kv_lengths": (13, 0), "shared": True, "dtype": "float16"},
    "favor of tokens": {"method": "kernel", "feature_map": "favor", "batch": 2, "kv_lengths": (13, 20)},
    "rfa, odd, per head": {"feature_map": "rfa", "head_dim": 9, "value_dim": 7, "per_head": True, "dtype": "float16"},
    "low rank": {"method": "low_rank", "scale": -0.3, "dtype": "float16", "strided": True},
}


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_ways(changes):
    check(SMALL.but(**changes))


def test_chunks_of_rows_and_shares_of_depths(monkeypatch):
    monkeypatch.setattr(composed_plan, "LEAST_ROWS", 16)
    monkeypatch.setattr(composed_plan, "LEAST_STEPS", 1)
    few = partial(composed_plan.composed_plan, largest=2048)
    monkeypatch.setattr(composed_attention, "composed_plan", few)
    check(SMALL.but(method="kernel", seq_q=40, seq_kv=100, batch=2, kv_lengths=(100, 70)))


def test_values_that_no_tile_has_beside_their_sum():
    check(SMALL.but(method="kernel", value_dim=150, seq_kv=5))


@pytest.mark.parametrize("changes", [{"scale": -0.3, "batch": 2, "kv_lengths": (20, 7)}, {"rank": 0}], ids=str)
def test_slots_as_keys_and_values_of_attention(changes):
    check(SMALL.but(method="low_rank", **changes))


def test_what_is_beyond_a_length_never_reaches_anything():
    case = SMALL.but(method="kernel", batch=2, kv_lengths=(13, 0))
    arrays = case.arrays()
    arrays["k"][0, :, 13:], arrays["v"][0, :, 13:] = np.nan, np.inf
    arrays["k"][1], arrays["v"][1] = np.inf, np.nan
    out, vjp = case.run_vjp(arrays, backend="emulate", target="sm80")
    clean, clean_vjp = case.run_vjp(backend="emulate", target="sm80")
    np.testing.assert_array_equal(out, clean)
    for got, right in zip(vjp(case.dout())[:3], clean_vjp(case.dout())[:3], strict=True):
        np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize(("method", "phi", "size"), [("kernel", "elu", 1e30)])
def test_bfloat16_has_float32s_range(method, phi, size):
    check_far(method, phi, size, "emulate", target="sm80", precision=250.0, dtype="bfloat16")


FAULTS = {
    "a barrier less": ("    ptx.block_barrier()\n", "    pass\n"),
    "a rest of A less": ("add_product(total, 0, a1_0, a1_1, a1_2, a1_3, b0_0, b0_1)", "pass"),
    "rows of a quad exchanged": ("own_0 = ptx.select_real(", "own_0 = ptx.select_real(f32(0.0) * "),
    "the slope of a neighbour": ("x_at = x + ", "x_at = x + u64(2) + "),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name, monkeypatch):
    right, wrong = FAULTS[name]
    planted = []

    def faulty(text, *rest, **options):
        if "find_matrices" in text and right in text:
            planted.append(name)
            text = text.replace(right, wrong)
        launch(text, *rest, **options)

    monkeypatch.setattr(machine, "launch", faulty)
    with pytest.raises(Exception, match=r"too far|race|barrier|shared memory|alignment|multiple"):
        check(SMALL.but(method="kernel", head_dim=16, seq_q=20, seq_kv=70))
    assert planted


@pytest.fixture
def heads_side_by_side(monkeypatch):
    """Tokens as layers make them, whose heads are columns of one product."""
    place = EmulatedCall.place

    def beside(call, name, array):
        if not name.startswith(("q", "k", "v")):
            return place(call, name, array)
        tensor = call._machine.allocate_contiguous(name, array.shape, "bfloat16", side_by_side=True)
        call._machine.read(tensor)[...] = array
        return tensor

    monkeypatch.setattr(EmulatedCall, "place", beside)


BESIDE = {
    "flurka": {"seq_kv": 20, "rank": 9, "value_dim": 24, "heads": 3},
    "low_rank": {"batch": 2, "kv_lengths": (17, 0), "seq_kv": 20, "heads": 2, "shared": True},
}


@pytest.mark.usefixtures("heads_side_by_side")
@pytest.mark.parametrize(("method", "changes"), BESIDE.items())
def test_heads_side_by_side(method, changes):
    check(SMALL.but(method=method, **changes))


def test_queries_in_shares(monkeypatch):
    monkeypatch.setattr(composed_plan, "LEAST_QUERIES", 3)
    check(SMALL.but(method="low_rank", seq_q=9, batch=2, strided=True, rank=9, value_dim=5))


ROWS = {
    "elu": {"seq_q": 70},
    "key lengths, float16": {"batch": 2, "kv_lengths": (20, 3), "seq_q": 3, "dtype": "float16", "value_dim": 33},
    "your own map": {"feature_map": "corners", "head_dim": 40, "value_dim": 7, "seq_q": 33},
}


@pytest.mark.parametrize("changes", ROWS.values(), ids=ROWS)
def test_rows_times_a_matrix_that_stays(monkeypatch, changes):
    monkeypatch.setattr(rows_shape, "LEAST_TILES", 0)
    check(SMALL.but(method="kernel", **changes))
