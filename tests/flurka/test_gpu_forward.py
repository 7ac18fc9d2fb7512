"""Forward calls on a GPU, against the oracle: arrays of every framework, strides, streams, graphs."""

import numpy as np
import pytest
from hypothesis import given, seed, settings

import flurka_numba
from tests.flurka.strategies import Case, cases
from tests.flurka.test_sm90_forward import ELEMENTWISE, OPERAND, USUAL, WIDE, check

pytestmark = pytest.mark.gpu
LONG = Case(dtype="bfloat16", batch=2, heads=4, seq_q=1000, seq_kv=3000, rank=256, head_dim=64, value_dim=64)


@pytest.mark.parametrize("part", range(16))  # parts run side by side: most of the time goes into compiling
def test_every_case_agrees_with_the_oracle(part):
    @seed(part)
    @settings(max_examples=8, database=None, derandomize=False)
    @given(cases(maps=ELEMENTWISE, dtypes=tuple(OPERAND)))
    def agrees(case):
        check(case, backend="cuda")

    agrees()


@pytest.mark.parametrize("changes", WIDE.values(), ids=WIDE)
def test_each_way_of_dividing_the_work(changes):
    check(LONG.but(**changes) if "seq_kv" not in changes else USUAL.but(**changes), backend="cuda")


@pytest.mark.parametrize("method", ["flurka", "kernel", "low_rank"])
@pytest.mark.parametrize("dtype", OPERAND)
def test_long_sequences(method, dtype):
    check(LONG.but(method=method, dtype=dtype, kv_lengths=(3000, 1234)), backend="cuda")


def torch_arrays(case, layout="bhsd"):
    torch = pytest.importorskip("torch")
    found = {}
    for name, array in case.arrays().items():
        one = torch.from_numpy(array.astype(np.float32)).cuda().to(getattr(torch, case.dtype))
        if layout == "bshd" and name in "qkv":
            one = one.transpose(1, 2).contiguous().transpose(1, 2)
        found[name] = one
    return torch, found


def wanted(case):
    return case.wanted_vjp()[0]


def close(got, case):
    right = wanted(case)
    return np.abs(got.float().cpu().numpy() - right).max() <= 0.02 * np.abs(right).max()


@pytest.mark.parametrize("method", ["flurka", "kernel", "low_rank"])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("head_dim", [64, 20])
def test_torch_arrays_at_any_strides(method, layout, head_dim):
    case = LONG.but(method=method, head_dim=head_dim, value_dim=head_dim)
    torch, arrays = torch_arrays(case, layout)
    got = getattr(flurka_numba, {"flurka": "attention"}.get(method, f"{method}_attention"))(**arrays)
    assert got.is_cuda
    assert close(got, case)
    out = torch.full_like(got, torch.nan)
    again = getattr(flurka_numba, {"flurka": "attention"}.get(method, f"{method}_attention"))(**arrays, out=out)
    assert again is out
    assert torch.equal(out, got)  # the same inputs give the same bits


@pytest.mark.parametrize("kind", ["host", "int32", "int64"])
def test_key_lengths_of_host_and_device(kind):
    case = LONG.but(kv_lengths=(3000, 1234))
    torch, arrays = torch_arrays(case)
    lengths = np.array(case.kv_lengths)
    if kind != "host":
        lengths = torch.tensor(lengths, dtype=getattr(torch, kind), device="cuda")
    for name in "kv":
        arrays[name][1, :, 1234:] = torch.nan
    assert close(flurka_numba.attention(**arrays, kv_lengths=lengths), case)


def test_nothing_is_written_around_out():
    torch, arrays = torch_arrays(LONG.but(seq_q=777))
    buffer = torch.full((2, 4, 779, 64), 7.0, device="cuda", dtype=torch.bfloat16)
    flurka_numba.attention(**arrays, out=buffer[:, :, 1:-1])
    assert bool((buffer[:, :, [0, -1]] == 7).all())
    assert bool(torch.isfinite(buffer).all())


def test_a_graph_replays_new_values_while_its_stream_goes_on():
    case = LONG.but(method="kernel", seq_kv=9000)
    torch, arrays = torch_arrays(case)
    first = flurka_numba.kernel_attention(**arrays)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = flurka_numba.kernel_attention(**arrays)
    arrays["v"].mul_(2)
    graph.replay()
    again = flurka_numba.kernel_attention(**arrays)
    torch.cuda.synchronize()
    assert torch.equal(out, again)
    assert not torch.equal(out, first)


def test_cupy_and_jax_arrays():
    cupy = pytest.importorskip("cupy")
    case = LONG.but(dtype="float16")
    arrays = {name: cupy.asarray(one) for name, one in case.arrays().items()}
    got = flurka_numba.attention(**arrays)
    assert isinstance(got, cupy.ndarray)
    right = wanted(case)
    assert np.abs(cupy.asnumpy(got) - right).max() <= 0.01 * np.abs(right).max()
    jax = pytest.importorskip("jax")
    arrays = {name: jax.numpy.asarray(one) for name, one in case.arrays().items()}
    assert np.abs(np.asarray(flurka_numba.attention(**arrays)) - right).max() <= 0.01 * np.abs(right).max()


@pytest.mark.parametrize("method", ["flurka", "kernel"])
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_agree_with_the_oracle(method, batch):
    case = LONG.but(method=method, batch=batch, seq_q=700, seq_kv=900, heads=2)
    _, arrays = torch_arrays(case, "bshd")
    torch = pytest.importorskip("torch")
    name = {"flurka": "attention_vjp", "kernel": "kernel_attention_vjp"}[method]
    out, vjp = getattr(flurka_numba, name)(**arrays)
    dout = torch.from_numpy(case.dout().astype(np.float32)).cuda().to(out.dtype)
    first, second = vjp(dout), vjp(dout)
    right_out, pull = case.wanted_vjp()
    for got, again, right in zip((out, *first), (out, *second), (right_out, *pull(case.dout())), strict=True):
        if got is None:
            assert right is None
            continue
        assert torch.equal(got, again)  # deterministic
        assert np.abs(got.float().cpu().numpy() - right).max() <= 0.03 * np.abs(right).max()
