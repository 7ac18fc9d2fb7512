"""PyTorch's tensors on a GPU, recorded, compiled, transformed and captured: the bits of the functional form."""

import pytest

import splat_numba as splat
from splat_numba.executors.gpu import backward as gpu_backward
from splat_numba.executors.gpu import call as gpu_call

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]  # of PyTorch, of parts of itself
MASK = splat.window(100, 0) | splat.sinks(4)
SHAPES = (2, 4, 300, 64), (2, 2, 300, 64), (2, 2, 300, 64)


@pytest.fixture
def given():
    if not torch.cuda.is_available():
        pytest.skip("torch without a GPU")
    torch.manual_seed(0)
    return [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in SHAPES]


def direct(q, k, v, dout, **options):
    """The gradients by attention_backward."""
    out, lse = splat.attention(q, k, v, MASK, return_lse=True, **options)
    return splat.attention_backward(dout, q, k, v, out, lse, MASK, **options)


def slopes(run, given, dout):
    leaves = [one.detach().clone().requires_grad_() for one in given]
    return torch.autograd.grad(run(*leaves), leaves, dout)


def assert_same(found, wanted):
    for one, two in zip(found, wanted, strict=True):
        assert torch.equal(one, two)


def attend(q, k, v):
    return splat.attention(q, k, v, MASK)


def test_autograd_on_the_engine_s_own_thread_and_the_current_stream(given):
    dout = torch.randn(SHAPES[0], device="cuda", dtype=torch.bfloat16)
    wanted = direct(*given, dout)
    assert_same(slopes(attend, given, dout), wanted)
    with torch.cuda.stream(torch.cuda.Stream()):
        found = slopes(attend, given, dout)
        torch.cuda.current_stream().synchronize()
    assert_same(found, wanted)


def test_recorded_calls_like_earlier_ones_look_nothing_up(given, monkeypatch):
    """What eager gradients know of earlier calls: the same bits for other numbers, on another stream too."""
    dout, other = (torch.randn(SHAPES[0], device="cuda", dtype=torch.bfloat16) for _ in range(2))
    changed = [one * 2 for one in given]
    wanted = direct(*changed, other)
    slopes(attend, given, dout)

    def refused(*_):
        raise AssertionError

    for module in (gpu_call, gpu_backward):
        monkeypatch.setattr(module, "_look_up", refused)
    assert_same(slopes(attend, changed, other), wanted)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = slopes(attend, changed, other)
    side.synchronize()
    assert_same(found, wanted)


def test_a_gradient_that_is_one_number_repeated(given):
    leaves = [one.requires_grad_() for one in given]
    attend(*leaves).sum().backward()
    assert_same([one.grad for one in leaves], direct(*(one.detach() for one in given), torch.ones_like(leaves[0])))


def test_key_lengths(given):
    lengths = torch.tensor([300, 77], device="cuda")
    dout = torch.ones_like(given[0])
    found = slopes(lambda *x: splat.attention(*x, MASK, kv_lengths=lengths), given, dout)
    assert_same(found, direct(*given, dout, kv_lengths=lengths))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_graphs(given, backend):
    torch._dynamo.reset()
    dout = torch.ones_like(given[0])
    run = torch.compile(attend, fullgraph=True, backend=backend)
    assert_same(slopes(run, given, dout), direct(*given, dout))
    with torch.no_grad():
        assert torch.equal(run(*given), attend(*given))


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # PyTorch captures nothing, to keep a pool of memory
def test_graphs_in_cuda_graphs(given):
    """Warmed up, captured and replayed; other arrays are copied to where the graph reads."""
    torch._dynamo.reset()
    run = torch.compile(attend, fullgraph=True, mode="reduce-overhead")
    dout = torch.ones_like(given[0])
    for factor in (1, 2, 3, 4, 5):
        arrays = [one * factor for one in given]
        torch.compiler.cudagraph_mark_step_begin()
        assert_same(slopes(run, arrays, dout), direct(*arrays, dout))


def test_an_address_that_no_call_had_before(given):
    wanted = attend(*given)
    room = torch.empty(given[0].numel() + 1024, device="cuda", dtype=torch.bfloat16)
    for start in range(0, 1024, 64):
        q = room[start : start + given[0].numel()].view(SHAPES[0]).copy_(given[0])
        assert torch.equal(attend(q, *given[1:]), wanted)


def test_transforms(given):
    slope = torch.func.grad(lambda *x: attend(*x).sum(), argnums=(0, 1, 2))
    assert_same(slope(*given), direct(*given, torch.ones_like(given[0])))
    q, k, v = given
    found = torch.func.vmap(attend, in_dims=(0, None, None))(torch.stack([q, q * 2]), k, v)
    assert_same(found, [attend(q, k, v), attend(q * 2, k, v)])


def test_autocast(given):
    wide = [one.float() for one in given]
    with torch.autocast("cuda", torch.bfloat16):
        assert torch.equal(attend(*wide), attend(*given))


def test_forward_and_backward_are_captured(given):
    leaves = [one.requires_grad_() for one in given]
    dout = torch.ones_like(given[0])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as PyTorch asks for: compile and allocate before the capture
        for _ in range(3):
            torch.autograd.grad(attend(*leaves), leaves, dout)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = torch.autograd.grad(attend(*leaves), leaves, dout)
    with torch.no_grad():
        leaves[0].mul_(2)
    graph.replay()
    torch.cuda.synchronize()
    assert_same(found, direct(*(one.detach() for one in leaves), dout))
