"""`sddmm`, `softmax`, `spmm` and their gradients on a GPU against the oracle: dtypes, frameworks, strides."""

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import splat_numba as splat
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits
from splat_numba.testing import lengths, masks
from tests.gpu.device_views import DeviceView, back
from tests.ops import test_packed as products
from tests.ops import test_packed_gradients as gradients
from tests.ops.packed_cases import MIXED, Case, stored, views
from tests.profiles import EXPLORING, by_place, draws

pytestmark = pytest.mark.gpu
ON_GPU = {"backend": "cuda"}
TYPES = ("float32", "float64", "float16", "bfloat16")
RNG = np.random.default_rng(11)


def random_graph(rows, columns):
    """Rows of any length, a few of them of most columns, and rows of none."""
    density = RNG.choice([0.0, 0.01, 0.03, 0.9], rows, p=[0.1, 0.5, 0.38, 0.02])
    return ACSR.from_dense(RNG.random((rows, columns)) < density[:, None])


HUBS = np.isin(np.arange(60), (3, 41))[:, None] | (RNG.random((60, 20_000)) < 0.001)
MASKS = {
    "window": ACSR.from_pattern(splat.window(60, 40), 333, 301),
    "causal": ACSR.from_pattern(splat.causal(), 301, 301),
    "dilated": ACSR.from_pattern(splat.dilated(20, 4), 300, 300),
    "mixed": ACSR.from_pattern(MIXED, 301, 257),
    "graph": random_graph(401, 399),
    "hubs": ACSR.from_dense(HUBS),  # rows in parts
    "shifted": ACSR.from_pattern(
        splat.window(150, 91), 333, 401
    ),  # tiles of which rows keep all, at every place of a chunk
}
DIMS = ((1, 1), (20, 12), (33, 17), (64, 64), (80, 72), (128, 128), (256, 250))
fuzzed = settings(
    max_examples=draws(25), deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


def check(case, scale=1.0):
    products.check_sddmm(case, scale, **ON_GPU)
    products.check_softmax(case, **ON_GPU)
    products.check_spmm(case, **ON_GPU)
    products.check_transposed(case, **ON_GPU)


def check_gradients(case, scale=1.0):
    gradients.check_sddmm(case, scale, **ON_GPU)
    gradients.check_softmax(case, **ON_GPU)
    gradients.check_spmm(case, **ON_GPU)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", MASKS)
def test_every_dtype_and_mask(name, dtype):
    case = Case(MASKS[name], dtype, 2, 4, 2, 64, 64)
    check(case, 0.125)
    check_gradients(case, 0.125)


@pytest.mark.parametrize("name", MASKS)
def test_blocks_of_128_rows(monkeypatch, name):
    """Which small calls do not get. Of three heads, as no other test: plans are kept with the mask."""
    monkeypatch.setattr(TiledTraits, "sizes", property(lambda self: (128,) if self.dim <= 64 else (64,)))
    for dim in (64, 33):
        check(Case(MASKS[name], "float16", 2, 3, 3, dim, dim), 0.3)


@pytest.mark.parametrize(("dims", "dtype"), by_place(DIMS, TYPES), ids=str)
def test_every_dim(dims, dtype):
    for name in ("mixed", "graph"):
        check(Case(MASKS[name], dtype, 1, 2, 1, *dims))


@fuzzed
@given(st.data())
def test_any_case(data):
    seq_q, seq_kv = data.draw(lengths(300)), data.draw(lengths(300))
    acsr = stored(data.draw(masks(seq_q, seq_kv)), seq_q, seq_kv)
    heads_kv, group = data.draw(st.sampled_from([(1, 1), (1, 3), (2, 2), (3, 1)]))
    dims = data.draw(st.sampled_from(DIMS)) if not EXPLORING else [data.draw(st.integers(1, 140)) for _ in range(2)]
    batch = data.draw(st.sampled_from([None, 0, 1, 3]))
    case = Case(acsr, data.draw(st.sampled_from(TYPES)), batch, heads_kv * group, heads_kv, *dims)
    (check_gradients if data.draw(st.booleans()) else check)(case, data.draw(st.sampled_from([1.0, -0.3, 0.0])))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_arrays_with_the_cuda_array_interface_and_any_strides(dtype):
    """Bits do not depend on strides, but for softmax's sums: their order follows chunks of 16 bytes in memory."""
    acsr = MASKS["mixed"]
    q, k, v, values = Case(acsr, dtype, 1, 2, 1, 20, 20).arrays()
    scores, weights, out = (
        splat.sddmm(q, k, acsr, **ON_GPU), splat.softmax(values, acsr, **ON_GPU), splat.spmm(values, v, acsr, **ON_GPU)
    )  # fmt: skip
    seen = [dict(views(x)) for x in (q, k, v, values)]
    for name in seen[0]:
        a, b, c, d = (DeviceView(root(one[name]), one[name]) for one in seen)
        assert_array_equal(back(splat.sddmm(a, b, acsr)), scores, err_msg=name)
        assert_array_equal(back(splat.spmm(d, c, acsr)), out, err_msg=name)
        assert_allclose(back(splat.softmax(d, acsr)), weights, rtol=8 * np.finfo(dtype).eps, err_msg=name)


def root(view):
    """The array that a view's numbers are in."""
    while view.base is not None:
        view = view.base
    return view


def test_the_same_call_gives_the_same_bits():
    case = Case(MASKS["graph"], "float32", 2, 4, 2, 64, 64)
    q, k, v, values = case.arrays()
    dout = gradients.gradient_of(np.empty((2, 4, 401, 64), np.float32))
    _, vjp = splat.spmm_vjp(values, v, case.acsr, **ON_GPU)
    _, pull = splat.sddmm_vjp(q, k, case.acsr, **ON_GPU)
    first = *vjp(dout), *pull(values)
    for _ in range(5):
        for one, other in zip((*vjp(dout), *pull(values)), first, strict=True):
            assert_array_equal(one, other)


def torch_given(dtype="float32"):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch without a GPU")
    torch.manual_seed(0)
    acsr = MASKS["window"]
    make = partial(torch.randn, device="cuda", dtype=getattr(torch, dtype))
    return torch, acsr, make(2, 4, 333, 64), make(2, 2, 301, 64), make(2, 2, 301, 64)


@pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS")  # PyTorch's, of its engine's own thread
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_torch_on_the_current_stream(dtype):
    """Compared with attention in float32 and gradients by PyTorch's own engine on the dense mask."""
    torch, acsr, q, k, v = torch_given(dtype)
    kept = torch.from_numpy(acsr.to_dense()).cuda()
    with torch.cuda.stream(torch.cuda.Stream()):
        values, pull = splat.sddmm_vjp(q, k, acsr, scale=0.125)
        weights, back_to_values = splat.softmax_vjp(values, acsr)
        out, back_to_weights = splat.spmm_vjp(weights, v, acsr)
        dout = torch.ones_like(out) * torch.linspace(-1, 1, 64, device="cuda").to(out.dtype)
        dweights, dv = back_to_weights(dout)
        dq, dk = pull(back_to_values(dweights))
        torch.cuda.current_stream().synchronize()
    assert (values.device, values.dtype, out.shape) == (q.device, q.dtype, (2, 4, 333, 64))
    leaves = [one.double().requires_grad_() for one in (q, k, v)]
    k_all, v_all = (one.repeat_interleave(2, dim=1) for one in leaves[1:])
    scores = (leaves[0] @ k_all.mT * 0.125).masked_fill(~kept, -torch.inf)
    weights = torch.where(kept.any(-1, keepdim=True), scores, 0.0).softmax(-1) * kept
    wanted = weights @ v_all
    slopes = torch.autograd.grad(wanted, leaves, dout.double())
    bound = 2e-5 if dtype == "float32" else 4e-2
    for got, right in zip((out, dq, dk, dv), (wanted.detach(), *slopes), strict=True):
        assert (got.double() - right).abs().max() <= bound * max(1.0, float(right.abs().max()))


def test_torch_captures_a_graph():
    torch, acsr, q, k, v = torch_given()

    def run():
        return splat.spmm(splat.softmax(splat.sddmm(q, k, acsr), acsr), v, acsr)

    wanted = run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run()
    q.mul_(2)
    changed = run()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(got, changed)
    assert not torch.equal(got, wanted)


def test_cupy():
    cupy = pytest.importorskip("cupy")
    acsr = MASKS["mixed"]
    q, k, v, values = Case(acsr, "float32", 1, 2, 1, 20, 20).arrays()
    got = splat.spmm(cupy.asarray(values), cupy.asarray(v), acsr)
    assert isinstance(got, cupy.ndarray)
    assert_array_equal(cupy.asnumpy(got), splat.spmm(values, v, acsr, **ON_GPU))
    scores = splat.sddmm(cupy.asarray(q), cupy.asarray(k), acsr)
    assert_array_equal(cupy.asnumpy(scores), splat.sddmm(q, k, acsr, **ON_GPU))


def test_jax():
    jax = pytest.importorskip("jax")
    try:
        gpu = jax.devices("cuda")[0]
    except RuntimeError:
        pytest.skip("jax without a GPU")
    acsr = MASKS["mixed"]
    q, k, v, values = Case(acsr, "float32", 1, 2, 1, 20, 20).arrays()
    a, b, c, d = (jax.device_put(x, gpu) for x in (q, k, v, values))
    assert_array_equal(np.asarray(splat.sddmm(a, b, acsr)), splat.sddmm(q, k, acsr, **ON_GPU))
    dvalues, dv = splat.spmm_vjp(d, c, acsr)[1](a)
    for got, wanted in zip((dvalues, dv), splat.spmm_vjp(values, v, acsr, **ON_GPU)[1](q), strict=True):
        assert_array_equal(np.asarray(got), wanted)


def test_long_rows_and_many_heads():
    """Rows of thousands of pairs; more items than a wave of blocks."""
    acsr = ACSR.from_pattern(splat.causal(), 3000, 3000)
    case = Case(acsr, "float32", 1, 2, 1, 16, 16)
    products.check_softmax(case, **ON_GPU)
    products.check_spmm(case, **ON_GPU)
    products.check_transposed(case, **ON_GPU)
    check(Case(MASKS["window"], "float16", 16, 12, 12, 64, 64))
