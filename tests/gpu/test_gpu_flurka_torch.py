"""FLuRKA on a GPU in PyTorch: compiled, transformed and captured, with the bits of eager calls."""

import pytest

import flurka_numba

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # of PyTorch, of parts of itself
METHODS = {
    "attention": flurka_numba.attention,
    "low_rank": flurka_numba.low_rank_attention,
    "kernel": flurka_numba.kernel_attention,
}
SHAPE, RANK = (2, 4, 300, 64), 64


def operands(name, dtype=torch.bfloat16):
    if not torch.cuda.is_available():
        pytest.skip("torch without a GPU")
    torch.manual_seed(0)
    made = [torch.randn(SHAPE, device="cuda", dtype=dtype) for _ in range(3)]
    more = [torch.randn(RANK, SHAPE[2], device="cuda", dtype=dtype) / 16 for _ in range(2)]
    return made if name == "kernel" else [*made, *more]


def slopes(run, given, dout):
    leaves = [one.detach().clone().requires_grad_() for one in given]
    return torch.autograd.grad(run(*leaves), leaves, dout)


def assert_same(found, wanted):
    for one, two in zip(found, wanted, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_graphs_and_transforms(name, dtype):
    torch._dynamo.reset()
    run, given = METHODS[name], operands(name, dtype)
    dout = torch.randn(SHAPE, device="cuda", dtype=dtype)
    wanted = slopes(run, given, dout)
    graph = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_same(slopes(graph, given, dout), wanted)
    with torch.no_grad():
        assert torch.equal(graph(*given), run(*given))
    slope = torch.func.grad(lambda *x: (run(*x) * dout).sum(), argnums=tuple(range(len(given))))
    assert_same(slope(*given), wanted)


def test_a_mapped_axis_joins_the_batch():
    q, k, v = operands("kernel")
    found = torch.func.vmap(flurka_numba.kernel_attention, in_dims=(0, None, None))(torch.stack([q, -q]), k, v)
    assert_same(found, [flurka_numba.kernel_attention(one, k, v) for one in (q, -q)])


@pytest.mark.parametrize("options", [{"backend": "aot_eager"}, {"mode": "reduce-overhead"}], ids=["traced", "captured"])
def test_the_module_is_compiled(options):
    if not torch.cuda.is_available():
        pytest.skip("torch without a GPU")
    from splat_numba.integrations.torch import FlurkaAttention

    torch._dynamo.reset()
    torch.manual_seed(0)
    module = FlurkaAttention(256, 4, SHAPE[2], RANK).cuda().bfloat16()
    run, parameters = torch.compile(module, fullgraph=True, **options), list(module.parameters())
    for _ in range(4):  # captured at the third
        x = torch.randn(2, SHAPE[2], 256, device="cuda", dtype=torch.bfloat16)
        wanted = torch.autograd.grad(module(x).float().square().sum(), parameters)
        found = torch.autograd.grad(run(x).float().square().sum(), parameters)
        for one, two in zip(found, wanted, strict=True):
            # The layer's own call does not round its queries, and its gradients' call does: another dout.
            assert (one - two).float().norm() <= 0.02 * two.float().norm()


def test_autocast():
    wide = operands("attention", torch.float32)
    with torch.autocast("cuda", torch.bfloat16):
        found = flurka_numba.attention(*wide)
    assert torch.equal(found, flurka_numba.attention(*(one.bfloat16() for one in wide)))


def test_forward_and_backward_are_captured():
    leaves = [one.requires_grad_() for one in operands("attention")]
    dout = torch.ones(SHAPE, device="cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.autograd.grad(flurka_numba.attention(*leaves), leaves, dout)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = torch.autograd.grad(flurka_numba.attention(*leaves), leaves, dout)
    with torch.no_grad():
        leaves[0].mul_(-1)
    graph.replay()
    torch.cuda.synchronize()
    assert_same(found, slopes(flurka_numba.attention, leaves, dout))
