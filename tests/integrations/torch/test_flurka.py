"""FlurkaAttention: FlurkaLayer's numbers and gradients, which are those of finite differences."""

import pytest

import flurka_numba
from flurka_numba import FlurkaLayer
from splat_numba.errors import ArgumentError
from tests.integrations.torch.ways import assert_same, torch

modules = pytest.importorskip("splat_numba.integrations.torch")
WEIGHTS = ("w_q", "w_k", "w_v", "w_o", "proj_k", "proj_v")


def made(**options):
    torch.manual_seed(0)
    return modules.FlurkaAttention(16, 2, 12, 4, **options)


@pytest.mark.parametrize("feature_map", ["elu", "rfa"])
def test_it_is_flurka_layer(feature_map):
    module, x, dout = made(feature_map=feature_map), torch.randn(2, 12, 16), torch.randn(2, 12, 16)
    weights = [getattr(module, name).detach() for name in WEIGHTS]
    layer = FlurkaLayer(*weights, heads=2, feature_map=feature_map, omega=module.omega)
    wanted, vjp = layer.vjp(x)
    found = module(x.requires_grad_())
    torch.testing.assert_close(found, wanted)  # products of matrices depend on where PyTorch puts its results
    slopes = torch.autograd.grad(found, [x, *(getattr(module, name) for name in WEIGHTS)], dout)
    gradients = vjp(dout)
    torch.testing.assert_close(slopes, tuple(gradients[name] for name in ("x", *WEIGHTS)))
    with torch.no_grad():
        torch.testing.assert_close(module(x), found)


def test_gradients_are_those_of_finite_differences():
    module, x = made().double(), torch.randn(12, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))
    run = torch.func.functional_call
    names = dict(module.named_parameters())
    assert torch.autograd.gradcheck(
        lambda *given: run(module, dict(zip(names, given, strict=True)), (x.detach(),)), tuple(names.values())
    )


def test_autocast_gives_what_cast_parameters_give():
    module, x, dout = made(feature_map="favor"), torch.randn(2, 12, 16), torch.randn(2, 12, 16).bfloat16()
    parameters = dict(module.named_parameters())
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x)
    slopes = torch.autograd.grad(found, list(parameters.values()), dout)
    low = made(feature_map="favor").bfloat16()
    wanted = low(x.bfloat16())
    gradients = torch.autograd.grad(wanted, list(low.parameters()), dout)
    assert (found.dtype, {one.dtype for one in slopes}) == (torch.bfloat16, {torch.float32})
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(slopes, tuple(one.float() for one in gradients))


METHODS = {
    "attention": (flurka_numba.attention, flurka_numba.attention_vjp, True),
    "low_rank": (flurka_numba.low_rank_attention, flurka_numba.low_rank_attention_vjp, True),
    "kernel": (flurka_numba.kernel_attention, flurka_numba.kernel_attention_vjp, False),
}


def operands(projected):
    torch.manual_seed(1)
    tokens = [torch.randn(2, 2, 12, 8) for _ in range(3)]
    return [*tokens, torch.randn(4, 12) / 4, torch.randn(4, 12) / 4] if projected else tokens


@pytest.mark.parametrize("name", METHODS)
def test_functions_are_differentiated(name):
    run, with_vjp, projected = METHODS[name]
    given, dout = operands(projected), torch.randn(2, 2, 12, 8)
    wanted, vjp = with_vjp(*given, kv_lengths=[12, 7])
    leaves = [one.requires_grad_() for one in given]
    found = run(*leaves, kv_lengths=[12, 7])
    assert torch.equal(found, wanted)
    assert_same(torch.autograd.grad(found, leaves, dout), vjp(dout)[: len(leaves)])
    with torch.no_grad():
        assert not run(*leaves).requires_grad


def test_a_projection_may_serve_both_and_some_gradients_may_not_be_wanted():
    q, k, v, proj, _ = operands(True)
    dout = torch.ones(2, 2, 12, 8)
    found = torch.autograd.grad(flurka_numba.attention(q, k, v, proj.requires_grad_()), proj, dout)
    wanted = flurka_numba.attention_vjp(q, k, v, proj.detach())[1](dout)
    assert torch.equal(found[0], wanted[3])


def test_what_functions_refuse_where_gradients_are_recorded():
    q, k, v = operands(False)
    with pytest.raises(ArgumentError, match=r"^out wanted left out where PyTorch records, traces"):
        flurka_numba.kernel_attention(q.requires_grad_(), k, v, out=torch.empty(2, 2, 12, 8))
    with pytest.raises(ArgumentError, match=r"^omega wanted without requires_grad while gradients are recorded"):
        flurka_numba.kernel_attention(q, k, v, feature_map="rfa", omega=torch.randn(8, 8, requires_grad=True))
    out = flurka_numba.kernel_attention(q, k, v)
    k += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(ArgumentError, match=r"wanted without (a tangent|tangents)"),
    ):
        flurka_numba.kernel_attention(torch.autograd.forward_ad.make_dual(q, q), k, v)


def test_state_and_text_go_round():
    module = made(feature_map="rfa")
    other = modules.FlurkaAttention(16, 2, 12, 4, feature_map="rfa")
    assert other.load_state_dict(module.state_dict()) == ([], [])
    x = torch.randn(12, 16)
    torch.testing.assert_close(module(x), other(x))
    assert repr(module) == "FlurkaAttention(embed_dim=16, num_heads=2, seq=12, rank=4, feature_map='rfa')"
    assert "order" in module.explain()


def test_second_derivatives_raise():
    module, x = made(), torch.randn(12, 16)
    (slope,) = torch.autograd.grad(module(x).sum(), module.w_q, create_graph=True)
    with pytest.raises(ArgumentError) as caught:
        slope.sum().backward()
    assert str(caught.value) == (
        "dout wanted without a graph, got a derivative of FLuRKA's gradients (create_graph=True): they have none. "
        "Detach them."
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArgumentError) as caught:
        modules.FlurkaAttention(16, 3, 12, 4)
    assert str(caught.value) == "num_heads wanted as a divisor of embed_dim 16, got 3. Choose another number."
    with pytest.raises(ArgumentError, match=r"^x wanted"):
        made()(torch.randn(13, 16))
    with pytest.raises(ArgumentError, match=r"^q wanted as a tensor of numbers in memory, got one on device 'meta'"):
        made().to("meta")(torch.randn(12, 16, device="meta"))  # which knows no autocast
