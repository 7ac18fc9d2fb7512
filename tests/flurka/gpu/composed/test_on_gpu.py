"""Float32 arithmetic on a GPU, forward and gradients, against the oracle: every framework, strides, graphs."""

import numpy as np
import pytest
from hypothesis import given, seed, settings

import flurka_numba
from tests.flurka.agreement import check_gradients
from tests.flurka.gpu.test_forward import torch_arrays
from tests.flurka.strategies import Case, cases
from tests.profiles import by_place

pytestmark = pytest.mark.gpu
USUAL = Case(batch=2, heads=2, seq_q=150, seq_kv=300, rank=70, head_dim=40, value_dim=24, rows=48)
LONG = Case(batch=2, heads=4, seq_q=1000, seq_kv=3000, rank=256, head_dim=64, value_dim=64, rows=64)
KINDS = [
    ("flurka", "elu"), ("flurka", "favor"), ("flurka", "rfa"), ("low_rank", "elu"), ("kernel", "softplus"),
    ("kernel", "favor"), ("kernel", "rfa"),
]  # fmt: skip
PRECISION = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}  # of the largest number
VJP = {
    "flurka": flurka_numba.attention_vjp,
    "low_rank": flurka_numba.low_rank_attention_vjp,
    "kernel": flurka_numba.kernel_attention_vjp,
}
FORWARD = {
    "flurka": flurka_numba.attention,
    "low_rank": flurka_numba.low_rank_attention,
    "kernel": flurka_numba.kernel_attention,
}


@pytest.mark.parametrize("part", range(12))  # parts run side by side: most of the time goes into compiling
def test_every_float32_case_agrees_with_the_oracle(part):
    @seed(part)
    @settings(max_examples=3, database=None, derandomize=False)
    @given(cases(dtypes=("float32",)))
    def agrees(case):
        check_gradients(case, backend="cuda")

    agrees()


def to_numpy(array):
    if array is None or isinstance(array, np.ndarray):
        return array
    if hasattr(array, "get"):
        return array.get()
    return array.float().cpu().numpy() if hasattr(array, "cpu") else np.asarray(array).astype(np.float32)


def agree(case, found, right):
    for got, wanted in zip(map(to_numpy, found), right, strict=True):
        assert (got is None) == (wanted is None)
        if wanted is not None:
            assert got.shape == wanted.shape
            assert np.abs(got - wanted).max() <= PRECISION[case.dtype] * np.abs(wanted).max()


def check(case, arrays, move, **options):
    """Out and gradients of arrays on a GPU; move: one more there."""
    out, vjp = VJP[case.method](**arrays, **case.options(), **options)
    dout = move(case.dout())
    first, second = vjp(dout), vjp(dout)
    right, pull = case.wanted_vjp()
    agree(case, (out, *first), (right, *pull(case.dout())))
    for one, again in zip(first, second, strict=True):
        assert one is None or np.array_equal(to_numpy(one), to_numpy(again))  # deterministic
    return out, first


def check_torch(case, layout="bhsd", **options):
    torch, arrays = torch_arrays(case, layout)
    to_gpu = lambda one: torch.from_numpy(one.astype(np.float32)).cuda().to(getattr(torch, case.dtype))  # noqa: E731
    return check(case, arrays, to_gpu, **options)


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_torch_arrays(method, phi):
    case = LONG.but(method=method, feature_map=phi, kv_lengths=(3000, 1234))
    out, gradients = check_torch(case, "bshd")
    assert out.is_cuda
    assert all(one is None or one.is_contiguous() for one in gradients)


@pytest.mark.parametrize("changes", [{"per_head": True}, {"shared": True}, {"head_dim": 33, "value_dim": 7}])
@pytest.mark.parametrize("method", ["flurka", "low_rank"])
def test_projections_of_heads_shared_ones_and_odd_dims(method, changes):
    check_torch(USUAL.but(method=method, **changes))


HALVES = {
    "low rank": {"method": "low_rank", "kv_lengths": (300, 123)},
    "favor": {"feature_map": "favor"},
    "rfa of tokens": {"method": "kernel", "feature_map": "rfa", "kv_lengths": (300, 123)},
    "key lengths with projections": {"kv_lengths": (300, 123)},
    "wide heads": {"method": "kernel", "head_dim": 256, "value_dim": 100},
    "wide heads, odd": {"head_dim": 255, "value_dim": 255, "shared": True},
}


@pytest.mark.parametrize(("name", "dtype"), by_place(HALVES, ["float16", "bfloat16"]))
def test_16_bit_gradients_that_tensor_cores_have_not(name, dtype):
    check_torch(USUAL.but(**{"dtype": dtype, "head_dim": 64, "value_dim": 64, "rows": 64, **HALVES[name]}), "bshd")


def test_more_features_than_a_multiprocessor_holds():
    case = USUAL.but(dtype="bfloat16", feature_map="favor", rows=400, head_dim=64, value_dim=64)
    check_torch(case)
    arrays = torch_arrays(case)[1]
    agree(case, [flurka_numba.attention(**arrays, feature_map="favor")], [case.wanted_vjp()[0]])


@pytest.mark.parametrize(("kind", "dtype"), by_place(KINDS, ["float32", "float16"]), ids=str)
def test_numpy_cupy_and_jax_arrays(kind, dtype):
    method, phi = kind
    case = USUAL.but(method=method, feature_map=phi, dtype=dtype, value_dim=20)
    arrays = case.arrays()
    out, vjp = case.run_vjp(arrays, backend="cuda")
    assert isinstance(out, np.ndarray)
    right, pull = case.wanted_vjp()
    agree(case, (out, *vjp(case.dout())), (right, *pull(case.dout())))
    try:
        import cupy
    except ImportError:
        pass
    else:
        check(case, {name: cupy.asarray(one) for name, one in arrays.items()}, cupy.asarray)
    jax = pytest.importorskip("jax")
    check(case, {name: jax.numpy.asarray(one) for name, one in arrays.items()}, jax.numpy.asarray)


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_out_at_any_strides(method, phi):
    case = USUAL.but(method=method, feature_map=phi)
    torch, arrays = torch_arrays(case)
    got = FORWARD[method](**arrays, **case.options())
    agree(case, [got], [case.wanted_vjp()[0]])
    for buffer, step in ((torch.full((2, 2, 152, 24), 7.0, device="cuda"), 1),
                         (torch.full((2, 2, 152, 48), 7.0, device="cuda"), 2)):  # fmt: skip
        out = buffer[:, :, 1:-1, ::step]
        assert FORWARD[method](**arrays, **case.options(), out=out) is out
        assert torch.equal(out, got)
        assert bool((buffer[:, :, [0, -1]] == 7).all())
        assert step == 1 or bool((buffer[..., 1::2] == 7).all())


@pytest.mark.parametrize(("method", "phi"), [("flurka", "favor"), ("low_rank", "elu"), ("kernel", "elu")])
def test_a_graph_replays_new_values(method, phi):
    case = USUAL.but(method=method, feature_map=phi, kv_lengths=(300, 123))
    torch, arrays = torch_arrays(case)
    dout = torch.from_numpy(case.dout()).cuda()
    _, vjp = VJP[method](**arrays, **case.options())
    vjp(dout)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, vjp = VJP[method](**arrays, **case.options())
        gradients = vjp(dout)
    for one in (arrays["v"], dout):
        one.mul_(2)
    graph.replay()
    torch.cuda.synchronize()
    right, vjp = VJP[method](**arrays, **case.options())
    for got, wanted in zip((out, *gradients), (right, *vjp(dout)), strict=True):
        assert (got is None) == (wanted is None)
        assert got is None or torch.equal(got, wanted)
