"""FLuRKA's functions and module under torch.compile, torch.func and modes: the bits of eager mode."""

import json

import pytest

import flurka_numba
from flurka_numba import FeatureMap
from flurka_numba.bridges.torch.names import map_name, named_map
from flurka_numba.feature_maps import relu
from splat_numba.errors import ArgumentError
from tests.integrations.torch.ways import NEW, assert_same, compiled, for_new, torch

modules = pytest.importorskip("splat_numba.integrations.torch")
LENGTHS = [12, 7]
METHODS = {
    "attention": flurka_numba.attention,
    "low_rank": flurka_numba.low_rank_attention,
    "kernel": flurka_numba.kernel_attention,
}


def tokens(*leading):
    """q, k and v."""
    return [torch.randn(*leading, 2, 12, 8) for _ in range(3)]


def operands(name):
    torch.manual_seed(1)
    made = tokens(2)
    return made if name == "kernel" else [*made, torch.randn(4, 12) / 4, torch.randn(4, 12) / 4]


def slopes(run, given, dout):
    leaves = [one.detach().clone().requires_grad_() for one in given]
    return torch.autograd.grad(run(*leaves), leaves, dout)


@pytest.mark.parametrize("name", METHODS)
def test_in_graphs_and_under_torch_func(name):
    given, dout = operands(name), torch.randn(2, 2, 12, 8)

    def run(*arrays):
        return METHODS[name](*arrays, kv_lengths=LENGTHS)

    wanted = slopes(run, given, dout)
    graph = compiled(lambda *arrays: run(*arrays) * 1)
    assert torch.equal(graph(*given), run(*given))
    assert_same(slopes(graph, given, dout), wanted)
    slope = torch.func.grad(lambda *arrays: (run(*arrays) * dout).sum(), argnums=tuple(range(len(given))))
    assert_same(slope(*given), wanted)
    assert_same(compiled(slope)(*given), wanted)  # without allow_in_graph zeros, in silence: pytorch#193279


def test_random_rows_and_gradients_that_are_not_wanted():
    q, k, v = operands("kernel")
    omega = flurka_numba.draw_orthogonal_features(8, 8, seed=0)

    def run(q):
        return flurka_numba.kernel_attention(q, k, v, feature_map="rfa", omega=omega)

    assert_same(slopes(compiled(run), [q], torch.ones(2, 2, 12, 8)), slopes(run, [q], torch.ones(2, 2, 12, 8)))


SOFT = FeatureMap("soft", lambda x: x * x + 0.5, "x * x + 0.5")


@for_new
def test_a_formula_stands_in_a_graph_as_text():
    q, k, v = operands("kernel")

    def run(q, k, v):
        return flurka_numba.kernel_attention(q, k, v, feature_map=SOFT)

    graphs = []
    found = compiled(run, backend=lambda graph, _: graphs.append(graph) or graph)(q, k, v)
    assert torch.equal(found, run(q, k, v))
    assert map_name(SOFT) in graphs[0].code.replace('\\"', '"')
    assert json.loads(map_name(SOFT))[1:3] == ["soft", "x * x + 0.5"]
    for one in (SOFT, relu(0.25)):
        again = named_map(map_name(one))
        assert again == one
        assert again.function(torch.ones(3).numpy()) == pytest.approx(one.function(torch.ones(3).numpy()))


def test_mapped_axes_join_the_batch_or_are_taken_one_by_one():
    _, _, _, proj_k, proj_v = operands("attention")
    q, k, v = tokens(3, 2)

    def one_by_one(run, *arrays):
        return [
            torch.stack(several) for several in zip(*(run(*entry) for entry in zip(*arrays, strict=True)), strict=True)
        ]

    def run(q, k, v):
        return (flurka_numba.attention(q, k, v, proj_k, proj_v, kv_lengths=LENGTHS),)

    assert_same(torch.func.vmap(run)(q, k, v), one_by_one(run, q, k, v))
    shared = torch.func.vmap(run, in_dims=(2, None, None))(q.movedim(0, 2), k[0], v[0])
    assert_same(shared, [torch.stack([run(entry, k[0], v[0])[0] for entry in q])])

    def slope(q, proj):
        return torch.func.grad(lambda q, proj: flurka_numba.attention(q, q, q, proj).sum(), argnums=(0, 1))(q, proj)

    each = [slope(entry, proj_k) for entry in q]
    found = torch.func.vmap(slope, in_dims=(0, None))(q, proj_k)
    for at in (0, 1):
        torch.testing.assert_close(found[at], torch.stack([one[at] for one in each]))
    own = torch.stack([proj_k, proj_k * 2, proj_v])
    assert_same(torch.func.vmap(slope)(q, own), one_by_one(slope, q, own))
    inner = torch.func.vmap(torch.func.grad(lambda q: flurka_numba.kernel_attention(q, q, q).sum()))
    assert_same(
        [inner(q)],
        [torch.stack([torch.func.grad(lambda q: flurka_numba.kernel_attention(q, q, q).sum())(x) for x in q])],
    )


def test_autocast_casts_what_has_gradients():
    given = operands("attention")
    low = [one.bfloat16() for one in given]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flurka_numba.attention(*given), flurka_numba.attention(*low))


def test_opcheck_and_operators_called_by_themselves():
    given = operands("attention")
    dout = torch.ones(2, 2, 12, 8)
    options = None, torch.tensor(LENGTHS), "flurka", "elu", None, None, "auto", None
    operators = torch.ops.flurka_numba
    torch.library.opcheck(operators.attention.default, (*given, *options))
    arguments = dout, *given, *options, [True, False, True, True, False]
    torch.library.opcheck(operators.attention_backward.default, arguments)
    wanted = slopes(lambda *x: flurka_numba.attention(*x, kv_lengths=LENGTHS), given, dout)
    assert_same(slopes(lambda *x: operators.attention(*x, *options), given, dout), wanted)


def made(feature_map="elu"):
    torch.manual_seed(0)
    return (
        modules.FlurkaAttention(16, 2, 12, 4, feature_map=feature_map),
        torch.randn(2, 12, 16),
        torch.randn(2, 12, 16),
    )


@pytest.mark.parametrize("feature_map", ["elu", "rfa"])
def test_the_module_is_one_operator_of_a_graph(feature_map):
    module, x, dout = made(feature_map)
    parameters = list(module.parameters())
    wanted, graph = module(x), compiled(module)
    assert torch.equal(graph(x), wanted)
    found = torch.autograd.grad(graph(x), parameters, dout)
    assert_same(found, torch.autograd.grad(wanted, parameters, dout))


def test_the_module_under_torch_func():
    module, x, dout = made()
    names = {name: one.detach() for name, one in module.named_parameters()}

    def loss(names, x, dout):
        return (torch.func.functional_call(module, names, (x,)) * dout).sum()

    wanted = torch.autograd.grad(module(x), list(module.parameters()), dout)
    for run in (torch.func.grad(loss), compiled(torch.func.grad(loss))):
        torch.testing.assert_close(tuple(run(names, x, dout).values()), wanted)  # matmul rounds by its operands' places
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(names, x, dout)
    torch.testing.assert_close(tuple(one.sum(0) for one in each.values()), wanted)


def test_the_module_s_operators_pass_opcheck():
    module, x, dout = made()
    arguments = x, *(one.detach() for one in module.parameters()), None, 2, "elu"
    torch.library.opcheck(torch.ops.flurka_numba.layer.default, arguments)
    arguments = dout, *arguments, [True, True, False, True, True, False, True]
    torch.library.opcheck(torch.ops.flurka_numba.layer_backward.default, arguments)


def test_what_has_no_derivative_says_so_and_what_stands_outside_is_named():
    given = operands("kernel")

    def run(*arrays):
        return flurka_numba.kernel_attention(*arrays).sum()

    with pytest.raises(ArgumentError, match=r"^dout wanted without a graph, got a derivative of FLuRKA's gradients"):
        torch.func.grad(lambda q: torch.func.grad(run)(q, *given[1:]).sum())(given[0])
    with pytest.raises(ArgumentError, match=r"^q, k, v and projections wanted without tangents"):
        torch.func.jvp(run, tuple(given), tuple(given))
    module, x, _ = made()
    with pytest.raises(ArgumentError, match=r"^q, k, v and projections wanted without tangents"):
        torch.func.jvp(torch.func.vmap(module), (x,), (x,))
    omega = torch.randn(8, 8, requires_grad=True)
    with pytest.raises(ArgumentError, match=r"^omega wanted without requires_grad"):
        torch.func.grad(lambda q: flurka_numba.kernel_attention(q, q, q, feature_map="rfa", omega=omega).sum())(
            given[0]
        )
    room = torch.empty(2, 2, 12, 8)
    with pytest.raises(ArgumentError, match=r"^out wanted left out where PyTorch records, traces"):
        torch.func.grad(lambda q: flurka_numba.kernel_attention(q, *given[1:], out=room).sum())(given[0])
    if NEW:
        with pytest.raises(torch._dynamo.exc.Unsupported, match="out wanted left out in a graph"):
            compiled(lambda q: flurka_numba.kernel_attention(q, *given[1:], out=room))(given[0])
    compiled(lambda q: flurka_numba.kernel_attention(q, *given[1:], out=room) * 2, fullgraph=False)(given[0])
    assert torch.equal(room, flurka_numba.kernel_attention(*given))
