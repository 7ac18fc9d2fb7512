"""The tolerance has room for what is right, and none for what is wrong."""

import numpy as np
import pytest

from tests.flurka.agreement import check_gradients
from tests.flurka.error_bound import assert_close, tolerance
from tests.flurka.strategies import Case

USUAL = Case(seq_q=33, seq_kv=97, rank=31, head_dim=33, value_dim=33)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("seed", range(4))
def test_right_results_use_less_than_half(dtype, seed):
    assert check_gradients(USUAL.but(dtype=dtype, seed=seed), backend="cpu") < 0.5


def bound(case):
    arrays = case.arrays()
    return case.run(arrays, backend="cpu"), *case.wanted_vjp(arrays), *tolerance(case.call(arrays), case.dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_two_units_in_the_last_place_of_one_number_are_found(dtype):
    out, wanted, _, allowed, _ = bound(USUAL.but(dtype=dtype))
    assert_close(out, wanted, allowed)
    bits = out.view(np.uint16)
    bits[0, 1, 5, 7] += 2
    with pytest.raises(AssertionError, match=r"out\[\(0, 1, 5, 7\)\].* 1 of"):
        assert_close(out, wanted, allowed)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_lost_key_is_found(dtype):
    case = USUAL.but(dtype=dtype)
    _, wanted, wanted_vjp, allowed, allowed_vjp = bound(case)
    lost, vjp = case.but(kv_lengths=(96,)).run_vjp(case.arrays(), backend="cpu")
    with pytest.raises(AssertionError, match=r"out\["):
        assert_close(lost, wanted, allowed)
    for got, right, of in list(zip(vjp(case.dout()), wanted_vjp(case.dout()), allowed_vjp(case.dout()), strict=True)):
        with pytest.raises(AssertionError):
            assert_close(got, right, of)


def test_features_rounded_to_bfloat16_are_found_in_float32():
    case = USUAL.but(method="kernel")
    arrays = case.arrays()
    _, wanted, _, allowed, _ = bound(case)
    near = case.run({**arrays, "k": (arrays["k"].view(np.uint32) & 0xFFFF0000).view(np.float32)}, backend="cpu")
    with pytest.raises(AssertionError, match=r"out\["):
        assert_close(near, wanted, allowed)
