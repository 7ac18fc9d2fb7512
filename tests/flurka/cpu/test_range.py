"""Large and small numbers on the CPU, whose sums are float32."""

import numpy as np
import pytest

import flurka_numba
from flurka_numba import reference
from splat_numba.errors import ArgumentError
from tests.flurka.far_numbers import FAR, SMALL, check_far


@pytest.mark.parametrize("size", [1e-20, 1e19, 1e30])
def test_queries_and_keys_whose_products_are_beyond_float32(size):
    rng = np.random.default_rng(0)
    q, k, v = (rng.uniform(0.5, 1.0, (1, 2, 40, 16)).astype(np.float32) for _ in range(3))
    q, k = q * np.float32(size), k * np.float32(size)
    out, vjp = flurka_numba.kernel_attention_vjp(q, k, v, backend="cpu")
    wanted, wanted_vjp = reference.kernel_attention_vjp(q, k, v)
    np.testing.assert_allclose(out, wanted, rtol=2e-6)
    for got, right in list(zip(vjp(v)[1:3], wanted_vjp(v)[1:3], strict=True)):
        np.testing.assert_allclose(got, right, atol=1e-5 * np.abs(right).max())


def test_sums_beyond_float32_are_nan_and_not_zeros():
    q, k = (np.full((1, 2, 40, 16), x, np.float32) for x in (1.0, 1e38))
    assert np.isnan(flurka_numba.kernel_attention(q, k, q, backend="cpu")).all()


@pytest.mark.parametrize("scale", [2e38, -1e31, 0.0])
@pytest.mark.parametrize("backend", ["cpu", "emulate"])
def test_scales_with_which_scores_overflow(scale, backend):
    check_far("low_rank", "elu", 1e30 if scale == 0 else 1.0, backend, scale=scale)


def test_a_scale_that_no_float32_is_is_refused():
    with pytest.raises(ArgumentError, match=r"^scale wanted as 0 or of a magnitude .* float32 arrays, got 1e\+39"):
        SMALL.but(method="low_rank", scale=1e39).run(backend="cpu")


@pytest.mark.parametrize(("method", "phi", "size"), [one for one in FAR if one[1] == "rfa" or one[0] == "low_rank"])
def test_rows_whose_squares_and_products_are_beyond_float32(method, phi, size):
    check_far(method, phi, size, "cpu")
