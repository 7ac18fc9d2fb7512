"""Large and small numbers in float32 on the emulator; cpu/test_range.py and gpu/test_range.py have the others."""

from functools import partial

import numpy as np
import pytest

import flurka_numba
from flurka_numba.gpu.composed import attention as composed_attention
from flurka_numba.gpu.composed import plan as gpu_composed_plan
from tests.flurka.far_numbers import FAR, check_far


@pytest.mark.parametrize(("method", "phi", "size"), FAR)
def test_products_beyond_float32(method, phi, size):
    check_far(method, phi, size, "emulate")


@pytest.mark.parametrize(("method", "phi"), [("kernel", "relu"), ("low_rank", "elu")])
def test_every_head_has_its_own_power_of_two(method, phi, monkeypatch):
    monkeypatch.setattr(gpu_composed_plan, "LEAST_ROWS", 4)
    monkeypatch.setattr(composed_attention, "composed_plan", partial(gpu_composed_plan.composed_plan, largest=128))
    check_far(method, phi, (1e30, 1e-5), "emulate", batch=2)


def test_large_values_leave_room_for_long_queries():
    rng = np.random.default_rng(0)
    q, k, v = (rng.uniform(0.5, 1.0, (1, 1, 4, 8)).astype(np.float32) for _ in range(3))
    far = np.float32(1e30)
    out = flurka_numba.kernel_attention(q * far, k, v * far, backend="emulate")
    np.testing.assert_allclose(out, flurka_numba.reference.kernel_attention(q * far, k, v * far), rtol=1e-6)


def test_sums_beyond_float32_are_nan_and_not_zeros():
    q, k = (np.full((1, 1, 4, 8), x, np.float32) for x in (1.0, 1e38))
    assert np.isnan(flurka_numba.kernel_attention(q, k, 1e-3 * q, backend="emulate")).all()


def test_a_scale_of_0_averages_any_scores():
    q = np.full((1, 1, 4, 8), 1e30, np.float32)
    q[..., ::2] = -1e30
    proj = np.eye(3, 4, dtype=np.float32)
    out = flurka_numba.low_rank_attention(q, q, np.ones_like(q), proj, scale=0.0, backend="emulate")
    np.testing.assert_allclose(out, 1.0, rtol=1e-6)
