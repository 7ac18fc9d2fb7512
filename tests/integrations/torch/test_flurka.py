"""FlurkaAttention: FlurkaLayer's numbers and gradients, which are those of finite differences."""

import pytest

from flurka_numba import FlurkaLayer
from splat_numba.errors import ArgumentError
from tests.integrations.torch.ways import torch

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


def test_state_and_text_go_round():
    module = made(feature_map="rfa")
    other = modules.FlurkaAttention(16, 2, 12, 4, feature_map="rfa")
    assert other.load_state_dict(module.state_dict()) == ([], [])
    x = torch.randn(12, 16)
    torch.testing.assert_close(module(x), other(x))
    assert repr(module) == "FlurkaAttention(embed_dim=16, num_heads=2, seq=12, rank=4, feature_map='rfa')"
    assert "order" in module.explain()


def test_it_stands_outside_graphs_and_second_derivatives_raise():
    module, x = made(), torch.randn(12, 16)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(module, backend="eager")(x), module(x))
    (slope,) = torch.autograd.grad(module(x).sum(), module.w_q, create_graph=True)
    with pytest.raises(ArgumentError) as caught:
        slope.sum().backward()
    assert str(caught.value) == (
        "dout wanted without a graph, got a derivative of FlurkaAttention's gradients (create_graph=True): they have "
        "none. Detach them."
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArgumentError) as caught:
        modules.FlurkaAttention(16, 3, 12, 4)
    assert str(caught.value) == "num_heads wanted as a divisor of embed_dim 16, got 3. Choose another number."
    with pytest.raises(ArgumentError, match=r"^x wanted"):
        made()(torch.randn(13, 16))
