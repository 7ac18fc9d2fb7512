"""On a GPU: arrays of every framework, in place or copied, streams, graphs and devices. Skipped where there is none."""

import importlib

import ml_dtypes
import numpy as np
import pytest

import splat_numba as splat
from splat_numba.errors import ArgumentError
from splat_numba.testing import Problem, check_attention

pytestmark = pytest.mark.gpu
MASK = splat.window(70) | splat.sinks(3)


class Torch:
    name = "torch"

    def __init__(self):
        self.module = pytest.importorskip("torch")

    def to(self, array):
        bits = self.module.from_numpy(np.ascontiguousarray(array).view(np.int16)).cuda()
        return bits.view(getattr(self.module, array.dtype.name))

    def back(self, array):
        self.module.cuda.synchronize()
        if array.dtype == self.module.bfloat16:
            return array.cpu().view(self.module.int16).numpy().view(ml_dtypes.bfloat16)
        return array.cpu().numpy()


class CuPy:
    name = "cupy"

    def __init__(self):
        self.module = pytest.importorskip("cupy")

    def to(self, array):
        return self.module.asarray(array)

    def back(self, array):
        return self.module.asnumpy(array)


class Jax:
    name = "jax"

    def __init__(self):
        self.module = pytest.importorskip("jax")
        if self.module.default_backend() != "gpu":
            pytest.skip("JAX has no GPU here")

    def to(self, array):
        return self.module.numpy.asarray(array)

    def back(self, array):
        return np.asarray(array)


class Numba:
    name = "numba"

    def __init__(self):
        self.module = importlib.import_module("numba.cuda")

    def to(self, array):
        return self.module.to_device(np.ascontiguousarray(array))

    def back(self, array):
        return array.copy_to_host()


class NumPy:
    name = "numpy"

    def to(self, array):
        return array

    def back(self, array):
        return array


@pytest.fixture(params=[Torch, CuPy, Jax, Numba, NumPy], ids=lambda kind: kind.name)
def framework(request):
    return request.param()


@pytest.fixture
def torch():
    return Torch()


def served(framework, change=lambda array: array):
    """attention() on a framework's arrays, as an implementation for check_attention."""

    def attend(q, k, v, mask, *, return_lse, **options):
        arrays = (change(framework.to(array)) for array in (q, k, v))
        out, lse = splat.attention(*arrays, mask, return_lse=return_lse, backend="cuda", **options)
        return framework.back(out), framework.back(lse)

    return attend


def problems():
    yield Problem(200, 200, MASK, "float16", batch=2, heads_q=4, heads_kv=2, head_dim=64)
    yield Problem(200, 130, MASK, "bfloat16", batch=2, heads_q=2, head_dim=64, layout="bshd", kv_lengths=(0, 77))
    yield Problem(130, 200, MASK, "float16", head_dim=33, value_dim=17)
    yield Problem(130, 200, MASK, "float16", batch=1, heads_q=2, head_dim=64, scale=-0.3)
    yield Problem(130, 200, MASK, "float16", batch=1, heads_q=2, head_dim=64, scale=0.0)
    yield Problem(64, 0, splat.full(), "float16", batch=1, heads_q=2, head_dim=64)
    yield Problem(0, 64, splat.full(), "float16", batch=1, heads_q=2, head_dim=64)
    yield Problem(128, 128, [splat.causal(), MASK, splat.causal()], "float16", batch=2, heads_q=3, head_dim=64)
    yield Problem(256, 256, splat.sparse_transformer_strided(16), "bfloat16", batch=1, heads_q=2, head_dim=64)


@pytest.mark.parametrize("problem", list(problems()), ids=repr)
def test_every_framework_gets_the_right_numbers(framework, problem):
    if problem.dtype == "bfloat16" and framework.name in ("cupy", "numba"):
        pytest.skip("it has no bfloat16")
    for _ in range(2):  # made ready, then looked up
        check_attention(problem, attention=served(framework))


VIEWS = {
    "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "padded rows": lambda x: x.new_empty((*x.shape[:-1], 96))[..., :64].copy_(x),
    "misaligned": lambda x: x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x),
    "dims apart": lambda x: x.new_empty((*x.shape, 2))[..., 0].copy_(x),
    "transposed dims": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_in_place_or_copied(torch, name):
    problem = Problem(130, 200, MASK, "float16", batch=2, heads_q=2, head_dim=64)
    check_attention(problem, attention=served(torch, VIEWS[name]))


def test_broadcast_batch_and_heads(torch):
    q, k, v = Problem(130, 200, MASK, "float16", batch=2, heads_q=4, head_dim=64).arrays()
    q, k, v = torch.to(q), torch.to(k)[:1, :1], torch.to(v)[:1, :1]
    wide = [x.expand(2, 4, 200, 64) for x in (k, v)]
    wanted = splat.attention(q, *(x.contiguous() for x in wide), MASK)
    assert torch.module.equal(splat.attention(q, *wide, MASK), wanted)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_out_is_filled_and_nothing_beside_it(torch, step):
    q, k, v = map(torch.to, Problem(130, 200, MASK, "float16", batch=2, heads_q=2, head_dim=64).arrays())
    wanted = splat.attention(q, k, v, MASK)
    frame = torch.module.full((2, 4, 134, 64 * step), 7, dtype=q.dtype, device=q.device)
    out = frame[:, 1:3, 2:-2, ::step]
    assert splat.attention(q, k, v, MASK, out=out) is out
    assert torch.module.equal(out, wanted)
    out.fill_(7)
    assert bool((frame == 7).all())
    with pytest.raises(ArgumentError, match=r"^out wanted apart from the inputs, got memory that k uses"):
        splat.attention(q, k, v, MASK, out=k[:, :, :130])


def test_key_lengths_on_the_device(torch):
    q, k, v = map(torch.to, Problem(130, 200, MASK, "float16", batch=2, heads_q=2, head_dim=64).arrays())
    wanted = splat.attention(q, k, v, MASK, kv_lengths=[200, 31])
    for dtype in (torch.module.int32, torch.module.int64):
        lengths = torch.module.tensor([200, 31], dtype=dtype, device="cuda")
        assert torch.module.equal(splat.attention(q, k, v, MASK, kv_lengths=lengths), wanted)


def test_work_follows_the_current_stream(torch):
    q, k, v = map(torch.to, Problem(1024, 1024, MASK, "float16", batch=2, heads_q=4, head_dim=64).arrays())
    wanted = splat.attention(q, k, v, MASK)
    stream = torch.module.cuda.Stream()
    late = torch.module.zeros_like(q)
    torch.module.cuda.synchronize()
    with torch.module.cuda.stream(stream):
        torch.module.cuda._sleep(50_000_000)
        late.copy_(q)
        got = splat.attention(late, k, v, MASK)
    stream.synchronize()
    assert torch.module.equal(got, wanted)


@pytest.mark.parametrize("warm", [True, False])
def test_a_captured_graph_replays_on_new_contents(torch, warm):
    problem = Problem(300, 300, MASK, "float16", batch=1, heads_q=2, head_dim=64)
    q, k, v = map(torch.to, problem.arrays())
    out = torch.module.empty_like(q)
    kernel = splat.compile(MASK, seq_q=300, seq_kv=300, head_dim=64, heads_q=2, dtype="float16", backend="cuda")
    if warm:
        kernel(q, k, v, out=out)
    graph = torch.module.cuda.CUDAGraph()
    with torch.module.cuda.graph(graph):
        kernel(q, k, v, out=out)
    for number in range(3):
        q.copy_(torch.to(problem.arrays().q * number))
        graph.replay()
        assert torch.module.equal(out, kernel(q, k, v))


def test_a_kernel_serves_other_lengths_and_head_counts(torch):
    kernel = splat.compile(MASK, seq_q=200, seq_kv=200, head_dim=64, dtype="float16", backend="cuda")
    for seq_q, seq_kv, batch, heads in [(200, 200, 1, 1), (77, 300, 2, 4), (1, 1, 3, 2)]:
        q, k, v = map(
            torch.to, Problem(seq_q, seq_kv, MASK, "float16", batch=batch, heads_q=heads, head_dim=64).arrays()
        )
        assert torch.module.equal(kernel(q, k, v), splat.attention(q, k, v, MASK))
