"""float16 states, features and weights beyond 65504 or below 2^-24: kernels scale them by powers of two (scales.py)."""

import numpy as np
import pytest

import flurka_numba
from flurka_numba import FeatureMap
from tests.flurka.error_bound import assert_close, tolerance
from tests.flurka.strategies import Case

OPERAND = 2.0**-11
EXPONENTIAL = FeatureMap("exponential", np.exp, "exp(x)")
SMALL = Case(dtype="float16", seq_q=20, seq_kv=64, rank=20, head_dim=64, value_dim=64, heads=1, rows=64)
KERNEL = SMALL.but(method="kernel")


def times(**factors):
    """Arrays by name multiplied with these numbers."""

    def change(arrays):
        for name, factor in factors.items():
            arrays[name] = (arrays[name].astype(np.float32) * np.float32(factor)).astype(np.float16)

    return change


def in_turn(*changes):
    def change(arrays):
        for one in changes:
            one(arrays)

    return change


def below(number, *names):
    """Arrays in which each number is near this one."""

    def change(arrays):
        for name in names:
            arrays[name] = (number + 0.25 * arrays[name].astype(np.float32)).astype(np.float16)

    return change


def sums(*names):
    """Rows of E or F that add up their tokens, all of which are positive: many are beyond 65504."""

    def change(arrays):
        for name in names:
            arrays[name] = np.abs(6000 * arrays[name].astype(np.float32)).astype(np.float16)
            proj = f"proj_{name}" if f"proj_{name}" in arrays else "proj_k"
            arrays[proj] = np.sign(arrays[proj]) * (1 + np.abs(arrays[proj]))

    return change


FORWARD = {
    "long keys": (KERNEL, times(k=3000)),
    "two spans": (KERNEL.but(head_dim=72, value_dim=80), times(k=3000)),
    "relu": (KERNEL.but(feature_map="relu"), times(k=12000, q=12000)),
    "small features": (KERNEL, below(-11.0, "k", "q")),
    "favor": (KERNEL.but(feature_map="favor", eps=0.0), times(k=3)),
    "rfa": (KERNEL.but(feature_map="rfa"), times(k=3000)),
    "slots that are sums": (SMALL, sums("k", "v")),
    "slots that are sums, two spans": (SMALL.but(head_dim=72, value_dim=16, rank=150), sums("k")),
    "values that are sums, two spans": (SMALL.but(head_dim=16, value_dim=72, rank=40), sums("v")),
    "small slots": (SMALL, times(k=1e-4, q=1e-4)),
    "rfa of slots that are sums": (SMALL.but(feature_map="rfa"), sums("k", "v")),
    "favor of values that are sums": (SMALL.but(feature_map="favor"), sums("v")),
    "low-rank attention to slots that are sums": (SMALL.but(method="low_rank"), in_turn(sums("k"), times(q=1e-4))),
    "low-rank attention to values that are sums": (
        SMALL.but(method="low_rank", heads=2, value_dim=40),
        in_turn(sums("v"), times(k=1e-4, q=1e-2)),
    ),
    "low-rank attention to small values": (SMALL.but(method="low_rank"), times(v=1e-4, k=1e-2)),
}


@pytest.mark.parametrize(("case", "change"), FORWARD.values(), ids=FORWARD)
def test_results_of_numbers_beyond_float16(case, change):
    arrays = case.arrays()
    change(arrays)
    allowed, _ = tolerance(case.call(arrays), case.dtype, operand=OPERAND)
    assert allowed.isfinite()
    assert_close(case.run(arrays, backend="emulate"), case.wanted_vjp(arrays)[0], allowed)


BACKWARD = {
    "long keys": (KERNEL, times(k=3000), 1.0),
    "a pass for the sums of its own": (KERNEL.but(head_dim=72, value_dim=80), times(k=3000), 1.0),
    "weights of rows beyond float16": (KERNEL, times(v=8), 12000.0),
    "the same, in two passes": (KERNEL.but(head_dim=40, value_dim=20), times(v=8), 12000.0),
    "slots": (SMALL, times(k=300), 1.0),
    "slots that are sums": (SMALL, sums("k", "v"), 1e-3),
    "a formula of slots that are sums, in two passes": (
        SMALL.but(head_dim=40, value_dim=20, feature_map="corners"), sums("k", "v"), 1e-3,
    ),
    "small values, large gradients": (SMALL, times(v=1e-4, proj_v=1e-2), 1e4),
    "large gradients of slots": (SMALL, times(k=1e3, proj_k=1e-4, v=300, proj_v=30), 200.0),
    "small gradients of slots, one projection": (
        SMALL.but(heads=2, shared=True), times(k=3e-4, proj_k=3e3, v=1e-2), 1e-4,
    ),
    "slots with a projection a head": (SMALL.but(per_head=True), sums("k"), 300.0),
}  # fmt: skip


@pytest.mark.parametrize(("case", "change", "steep"), BACKWARD.values(), ids=BACKWARD)
def test_gradients_of_numbers_beyond_float16(case, change, steep):
    arrays = case.arrays()
    change(arrays)
    dout = (steep * case.dout().astype(np.float32)).astype(np.float16)
    out, vjp = case.run_vjp(arrays, backend="emulate")
    wanted, wanted_vjp = case.wanted_vjp(arrays)
    allowed, allowed_vjp = tolerance(case.call(arrays), case.dtype, operand=OPERAND)
    assert_close(out, wanted, allowed)
    for got, right, bound in zip(vjp(dout), wanted_vjp(dout), allowed_vjp(dout), strict=True):
        if got is not None:
            with np.errstate(over="ignore"):
                assert_close(got, right.astype(np.float16).astype(np.float64), bound)


def test_features_of_a_formula_beyond_float16_on_the_queries_side():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 1, n, 64)).astype(np.float16) for n in (20, 40, 40))
    q = (q + np.float16(13)).astype(np.float16)  # exp(13) is 442413
    out, vjp = flurka_numba.kernel_attention_vjp(q, k, v, feature_map=EXPONENTIAL, backend="emulate")
    wanted, wanted_vjp = flurka_numba.reference.kernel_attention_vjp(q, k, v, feature_map=EXPONENTIAL)
    np.testing.assert_allclose(out, wanted, atol=2e-3)
    for got, right in zip(vjp(v[:, :, :20])[:3], wanted_vjp(v[:, :, :20])[:3], strict=True):
        np.testing.assert_allclose(got, right, atol=4e-3 * np.abs(right).max())


def test_the_sum_of_256_keys_of_400():
    q, k, v = (np.full((1, 1, n, 32), x, np.float16) for n, x in ((64, 1), (256, 400), (256, 1)))
    np.testing.assert_array_equal(flurka_numba.kernel_attention(q, k, v, backend="emulate"), 1.0)
