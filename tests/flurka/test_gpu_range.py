"""On a GPU, forward and back, against float64: sums over 65,536 tokens in float16, and float32 far from 1."""

import numpy as np
import pytest

from tests.flurka.far_numbers import FAR, check_far
from tests.flurka.strategies import METHODS, Case

pytestmark = pytest.mark.gpu
LONG = Case(dtype="float16", seq_q=2000, seq_kv=65536, rank=256, head_dim=64, value_dim=64, heads=2, rows=64)


def near(got, wanted, share):
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=0, atol=share * np.abs(wanted).max())


@pytest.mark.parametrize("phi", ["elu", "relu", "favor", "rfa", "softplus"])
@pytest.mark.parametrize("method", ["flurka", "kernel"])
def test_results(method, phi):
    case = LONG.but(method=method, feature_map=phi)
    arrays = case.arrays()
    near(case.run(arrays, backend="cuda"), case.wanted_vjp(arrays)[0], 2.0**-7 if phi == "rfa" else 2.0**-9)


@pytest.mark.parametrize("method", METHODS)
def test_gradients(method):
    torch = pytest.importorskip("torch")
    case = LONG.but(method=method)
    arrays, dout = case.arrays(), case.dout()
    there = {name: torch.from_numpy(x).cuda() for name, x in arrays.items()}
    out, vjp = case.run_vjp(there, backend="cuda")
    wanted, wanted_vjp = case.wanted_vjp(arrays)
    near(out.cpu().numpy(), wanted, 2.0**-9)
    for got, right in zip(vjp(torch.from_numpy(dout).cuda()), wanted_vjp(dout), strict=True):
        if got is not None:
            near(got.cpu().numpy(), right, 2.0**-7)


def test_projections_whose_rows_add_up_all_tokens():
    case = LONG.but(seq_kv=65536)
    arrays = case.arrays()
    arrays["k"] = (4 * np.abs(arrays["k"].astype(np.float32))).astype(np.float16)
    arrays["proj_k"] = np.sign(arrays["proj_k"])
    arrays["proj_k"][0] = 1  # a slot beyond 200,000
    near(case.run(arrays, backend="cuda"), case.wanted_vjp(arrays)[0], 2.0**-9)


@pytest.mark.parametrize(("method", "phi", "size"), FAR)
def test_float32_products_beyond_its_range(method, phi, size):
    check_far(method, phi, size, "cuda", seq_q=200, seq_kv=300, rank=70, head_dim=40, value_dim=24, heads=2)
