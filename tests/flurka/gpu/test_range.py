"""On a GPU, forward and back, against float64: sums over 65,536 tokens in float16, and float32 far from 1."""

import numpy as np
import pytest

from tests.flurka.far_numbers import FAR, check_far
from tests.flurka.strategies import METHODS, Case
from tests.profiles import by_place

pytestmark = pytest.mark.gpu
LONG = Case(dtype="float16", seq_q=2000, seq_kv=65536, rank=256, head_dim=64, value_dim=64, heads=2, rows=64)


def near(got, wanted, share):
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=0, atol=share * np.abs(wanted).max())


@pytest.mark.parametrize(("phi", "method"), by_place(["elu", "relu", "favor", "rfa", "softplus"], ["flurka", "kernel"]))
def test_results(phi, method):
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


def adding_up(arrays, *names):
    """Rows of E and F that add up all tokens. The first slot is beyond -200,000 and 400,000, so that its features are
    0, and the second one of keys beyond 200,000; the others are around 1000.
    """
    for name in names:
        size = {"k": -4, "v": 8}[name]
        arrays[name] = (size * np.abs(arrays[name].astype(np.float32))).astype(np.float16)
        proj = arrays.get(f"proj_{name}", arrays["proj_k"])
        proj[...] = np.sign(proj)
        proj[0] = 1
    if "k" in names and "proj_v" in arrays:
        arrays["proj_k"][1] = -1


def in_range(wanted):
    with np.errstate(over="ignore"):
        return wanted.astype(np.float16).astype(np.float64)


def check_gradients(case, arrays, steep):
    """Of every argument, where they are within float16; to its resolution, and 1/128 of the largest of these, or of all
    1/512: what is small beside terms that cancel has their errors.
    """
    torch = pytest.importorskip("torch")
    dout = (steep * case.dout().astype(np.float32)).astype(np.float16)
    there = {name: torch.from_numpy(x).cuda() for name, x in arrays.items()}
    out, vjp = case.run_vjp(there, backend="cuda")
    wanted, wanted_vjp = case.wanted_vjp(arrays)
    found = (out, *vjp(torch.from_numpy(dout).cuda()))
    for got, right in zip(found, (wanted, *wanted_vjp(dout)), strict=True):
        if got is None:
            continue
        representable = in_range(right)
        largest = np.abs(representable[np.isfinite(representable)]).max()
        bound = max(2.0**-7 * largest, 2.0**-9 * np.abs(right).max()) + 2.0**-24
        kept = np.abs(right) + bound < 65504  # beyond, what is within the bound may be infinite
        assert kept.any()
        found_kept = got.cpu().numpy().astype(np.float64)[kept]
        np.testing.assert_allclose(found_kept, representable[kept], rtol=0, atol=bound)


@pytest.mark.parametrize(("phi", "names"), [("elu", "kv"), ("corners", "kv"), ("rfa", "kv"), ("favor", "v")])
def test_projections_whose_rows_add_up_all_tokens(phi, names):
    case = LONG.but(feature_map=phi)
    arrays = case.arrays()
    adding_up(arrays, *names)
    near(case.run(arrays, backend="cuda"), case.wanted_vjp(arrays)[0], 2.0**-7 if phi == "rfa" else 2.0**-9)


def test_low_rank_attention_to_sums_of_all_tokens():
    case = LONG.but(method="low_rank")
    arrays = case.arrays()
    adding_up(arrays, "k")
    arrays["q"] = (arrays["q"].astype(np.float32) * 2.0**-14).astype(np.float16)
    near(case.run(arrays, backend="cuda"), case.wanted_vjp(arrays)[0], 2.0**-7)


WAYS = {
    "one pass": {},
    "two passes": {"head_dim": 72, "value_dim": 80},
    "one projection": {"shared": True},
    "a formula": {"feature_map": "corners"},
}


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_gradients_of_projections_whose_rows_add_up_all_tokens(changes):
    case = LONG.but(**changes)
    arrays = case.arrays()
    adding_up(arrays, "k", "v")
    check_gradients(case, arrays, 1e-2)


@pytest.mark.parametrize(
    ("factors", "steep"),
    [
        ({"v": 1e-4, "proj_v": 1e-2}, 1e4),
        ({"k": 1e4, "proj_k": 1e-4, "v": 300, "proj_v": 30}, 0.1),
        ({"k": 3e-4, "proj_k": 3e3, "v": 1e-2, "proj_v": 1e3}, 1e-4),
    ],
    ids=["small values, large gradients", "large gradients of slots", "small gradients of slots"],
)
def test_gradients_of_large_and_tiny_numbers(factors, steep):
    case = LONG.but(seq_kv=8192)
    arrays = case.arrays()
    for name, factor in factors.items():
        arrays[name] = (arrays[name].astype(np.float32) * np.float32(factor)).astype(np.float16)
    check_gradients(case, arrays, steep)


@pytest.mark.parametrize(("method", "phi", "size"), FAR)
def test_float32_products_beyond_its_range(method, phi, size):
    check_far(method, phi, size, "cuda", seq_q=200, seq_kv=300, rank=70, head_dim=40, value_dim=24, heads=2)
