"""torch.func: grad, vjp and vmap in any order, in graphs too; what has no derivative says so."""

import pytest

import splat_numba as splat
from splat_numba.bridges.torch.names import mask_name
from splat_numba.errors import ArgumentError, ArgumentTypeError
from tests.integrations.torch.ways import MASK, assert_same, compiled, eager_gradients, inputs, torch

DOUT = torch.linspace(-1, 1, 2 * 4 * 24 * 16).reshape(2, 4, 24, 16)
func = torch.func


def loss(q, k, v):
    return (splat.attention(q, k, v, MASK) * DOUT).sum()


def maybe_compiled(function, compiling):
    return compiled(function) if compiling else function


@pytest.mark.parametrize("compiling", [False, True])
def test_grad(compiling):
    """In a graph this gave zeros, in silence, without allow_in_graph."""
    found = maybe_compiled(func.grad(loss, argnums=(0, 1, 2)), compiling)(*inputs())
    assert_same(found, eager_gradients(*inputs(), DOUT))


def mapped():
    q, k, v = inputs()
    return torch.stack([q, q * 2, q * 0.5]), k, v


@pytest.mark.parametrize("compiling", [False, True])
def test_vmap_of_grad(compiling):
    whole = func.vmap(func.grad(loss, argnums=(0, 1, 2)), in_dims=(0, None, None))
    q, k, v = mapped()
    found = maybe_compiled(whole, compiling)(q, k, v)
    for number in range(3):
        assert_same([one[number] for one in found], eager_gradients(q[number], k, v, DOUT))


@pytest.mark.parametrize("compiling", [False, True])
def test_grad_of_vmap(compiling):
    q, k, v = mapped()

    def total(q, k, v):
        return func.vmap(loss, in_dims=(0, None, None))(q, k, v).sum()

    found = maybe_compiled(func.grad(total, argnums=(0, 1, 2)), compiling)(q, k, v)
    each = [eager_gradients(one, k, v, DOUT) for one in q]
    assert torch.equal(found[0], torch.stack([one[0] for one in each]))
    for at in (1, 2):  # summed over the mapped entries in PyTorch's order
        torch.testing.assert_close(found[at], sum(one[at] for one in each))


def by_operator(q, k, v):
    """As an exported program calls it."""
    return (
        torch.ops.splat_numba.attention(q, k, v, mask_name(MASK), None, "bhsd", None, "auto", None, False)[0] * DOUT
    ).sum()


@pytest.mark.parametrize("run", [loss, by_operator])
def test_grad_of_a_vmap_over_all_arrays(run):
    """Where every array is mapped, none says within the vmap that it is differentiated."""
    arrays = [torch.stack([one, one * 2]) for one in inputs()]
    found = func.grad(lambda *x: func.vmap(run)(*x).sum(), argnums=(0, 1, 2))(*arrays)
    for number in range(2):
        assert_same([one[number] for one in found], eager_gradients(*[one[number] for one in arrays], DOUT))
    assert_same(func.grad(run, argnums=(0, 1, 2))(*inputs()), eager_gradients(*inputs(), DOUT))


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("axes", [2, 3, 4])
def test_the_mapped_axis_joins_the_batch(axes, layout):
    shape = (2, 2, 12, 16) if layout == "bhsd" else (2, 12, 2, 16)
    x = torch.linspace(-2, 2, 3 * 768).reshape(3, *shape)
    x = x if axes == 4 else x[:, 0] if axes == 3 else x[:, 0, 0] if layout == "bhsd" else x[:, 0, :, 0]

    def run(x):
        return splat.attention(x, x, x, MASK, layout=layout, return_lse=True)

    each = [run(one) for one in x]
    assert_same(func.vmap(run)(x), map(torch.stack, zip(*each, strict=True)))
    slope = func.grad(lambda x: run(x)[0].square().sum() + run(x)[1].sum())
    assert torch.equal(func.vmap(slope)(x), torch.stack([slope(one) for one in x]))
    moved = func.vmap(run, in_dims=-1, out_dims=1)(x.movedim(0, -1))
    assert_same([one.movedim(1, 0) for one in moved], func.vmap(run)(x))


def test_vmaps_nest():
    x = torch.linspace(-2, 2, 2 * 3 * 2 * 12 * 16).reshape(2, 3, 2, 12, 16)
    found = func.vmap(func.vmap(lambda x: splat.attention(x, x, x, MASK)))(x)
    assert torch.equal(found, torch.stack([splat.attention(one, one, one, MASK) for one in x]))


def test_one_call_serves_a_vmap(monkeypatch):
    from splat_numba.executors.cpu.executor import CpuExecutor

    calls, attend = [], CpuExecutor.attend
    monkeypatch.setattr(CpuExecutor, "attend", lambda *given: (calls.append(given[2].shape), attend(*given))[1])
    func.vmap(lambda q, k, v: splat.attention(q, k, v, MASK), in_dims=(0, None, None))(*mapped())
    assert calls == [(6, 4, 24, 16)]


def test_key_lengths_are_mapped():
    q, k, v = inputs()
    lengths = torch.tensor([[20, 7], [3, 24]])
    found = func.vmap(lambda n: splat.attention(q, k, v, MASK, kv_lengths=n))(lengths)
    assert_same(found, [splat.attention(q, k, v, MASK, kv_lengths=one) for one in lengths])
    with pytest.raises(ArgumentError) as caught:
        func.vmap(lambda q, n: splat.attention(q, q, q, MASK, kv_lengths=n))(q, lengths[0])
    assert str(caught.value) == "kv_lengths needs a batch axis, got q with 3 axes. Give q[None], k[None], v[None]."


def test_jacrev():
    q, k, v = (one[:1, :1, :4] for one in inputs())
    found = func.jacrev(lambda q: splat.attention(q, k, v, MASK).sum(-1))(q)
    for row in range(4):
        dout = torch.zeros(1, 1, 4, 16)
        dout[:, :, row] = 1
        assert torch.equal(found[0, 0, row], eager_gradients(q, k, v, dout)[0])


def test_functionalize():
    q, k, v = inputs()
    found = func.functionalize(lambda q: splat.attention(q, k, v, MASK))(q)
    assert torch.equal(found, splat.attention(q, k, v, MASK))


NO_TANGENTS = (
    "q, k and v wanted without tangents, got torch.func.jvp, jacfwd, hessian or a dual tensor: attention has no "
    "derivative in forward mode. Use reverse mode: torch.func.vjp, grad or jacrev."
)
NO_SECOND = (
    "dout wanted without a graph, got a derivative of attention's gradients (create_graph=True, or grad of grad): "
    "they have none. Detach them, or use torch.nn.functional.scaled_dot_product_attention with SDPBackend.MATH."
)


def grad_in_vmap_in_jvp(q, k, v):
    slope = func.vmap(lambda q: func.grad(loss)(q, k, v))
    func.jvp(slope, (q[None],), (q[None],))


def create_graph(q, k, v):
    (slope,) = torch.autograd.grad(loss(q.requires_grad_(), k, v), q, create_graph=True)
    slope.sum().backward()


def dual(q, k, v):
    with torch.autograd.forward_ad.dual_level():
        splat.attention(torch.autograd.forward_ad.make_dual(q, q), k.requires_grad_(), v, MASK)


REFUSED = {
    "jvp": (lambda *x: func.jvp(loss, x, x), NO_TANGENTS),
    "jvp of vmap": (lambda *x: func.jvp(func.vmap(loss), *[tuple(one[None] for one in x)] * 2), NO_TANGENTS),
    "jvp of vmap of grad": (grad_in_vmap_in_jvp, NO_TANGENTS),
    "jvp of the operator": (lambda *x: func.jvp(by_operator, x, x), NO_TANGENTS),
    "hessian": (func.hessian(loss), NO_TANGENTS),
    "grad of grad": (lambda *x: func.grad(lambda q: func.grad(loss)(q, *x[1:]).sum())(x[0]), NO_SECOND),
    "create_graph": (create_graph, NO_SECOND),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_derivative_says_so(name):
    run, message = REFUSED[name]
    with pytest.raises(ArgumentError) as caught:
        run(*inputs())
    assert str(caught.value) == message


def test_dual_tensors_are_refused():
    with pytest.raises(ArgumentError, match=r"wanted without (a tangent|tangents)"):
        dual(*inputs())


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_a_tensor_without_numbers_beside_others_is_refused(name):
    """PyTorch asks for the results without numbers then, and took memory that nobody had written for them."""
    arrays = dict(zip("qkv", inputs(), strict=True))
    arrays[name] = arrays[name].to("meta")
    if name == "q":
        assert func.vmap(splat.attention, in_dims=(0, 0, 0, None))(*arrays.values(), MASK).is_meta
        return
    with pytest.raises(ArgumentTypeError, match=f"^{name} wanted as a tensor of numbers in memory, got one on device"):
        func.vmap(splat.attention, in_dims=(0, 0, 0, None))(*arrays.values(), MASK)


def test_create_graph_alone_changes_nothing():
    q, k, v = inputs()
    (found,) = torch.autograd.grad(loss(q.requires_grad_(), k, v), q, create_graph=True)
    assert torch.equal(found, eager_gradients(q, k, v, DOUT)[0])
