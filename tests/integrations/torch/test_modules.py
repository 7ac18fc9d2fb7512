"""Modules around attention: what they compute, save, show and refuse."""

import copy
import pickle

import pytest

import splat_numba as splat
from splat_numba.errors import ArgumentError
from tests.integrations.torch.ways import MASK, assert_same, compiled, inputs, torch

modules = pytest.importorskip("splat_numba.integrations.torch")


def test_sparse_attention_is_attention():
    q, k, v = inputs()
    assert torch.equal(modules.SparseAttention(MASK)(q, k, v), splat.attention(q, k, v, MASK))
    turned = [one.transpose(1, 2) for one in (q, k, v)]
    found = modules.SparseAttention(MASK, scale=0.3, layout="bshd")(*turned, kv_lengths=torch.tensor([20, 7]))
    assert torch.equal(found, splat.attention(*turned, MASK, scale=0.3, layout="bshd", kv_lengths=[20, 7]))


def test_what_modules_show():
    assert repr(modules.SparseAttention(MASK)) == "SparseAttention(window(5, 0) | sinks(2))"
    stored = splat.ACSR.from_pattern(MASK, 24, 24)
    per_head = modules.SparseAttention([MASK, stored.to_dense()], scale=0.5, layout="bshd")
    assert repr(per_head) == (
        "SparseAttention([window(5, 0) | sinks(2), a stored mask of 24 x 24, 165 pairs kept], scale=0.5, layout='bshd')"
    )
    whole = repr(modules.SparseSelfAttention(32, 4, MASK, num_kv_heads=2))
    assert "embed_dim=32, num_heads=4, num_kv_heads=2" in whole
    assert "(attention): SparseAttention(window(5, 0) | sinks(2), layout='bshd')" in whole


def self_attention(**options):
    torch.manual_seed(0)
    return modules.SparseSelfAttention(32, 4, MASK, **options)


def dense(module, x):
    """What PyTorch's own attention makes of the module's parameters."""
    q, k, v = (
        project(x).unflatten(-1, (-1, 8)).transpose(-3, -2) for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    mask = torch.from_numpy(splat.ACSR.from_pattern(MASK, 24, 24).to_dense())
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    return module.out_proj(out.transpose(-3, -2).flatten(-2))


@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 2, "bias": False}])
def test_self_attention_and_its_gradients_are_dense_attention_s(options):
    module, x = self_attention(**options), torch.randn(2, 24, 32)
    assert module.training
    found, wanted = module(x), dense(module, x)
    torch.testing.assert_close(found, wanted)
    dout = torch.randn(2, 24, 32)
    parameters = list(module.parameters())
    pairs = zip(
        torch.autograd.grad(found, parameters, dout), torch.autograd.grad(wanted, parameters, dout), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(x[0]), wanted[0])
    assert torch.equal(compiled(module)(x), found)


def test_padding_is_not_attended_to():
    module, x = self_attention(), torch.randn(2, 24, 32)
    changed = x.clone()
    changed[1, 7:] = 99.0
    lengths = torch.tensor([24, 7])
    assert torch.equal(module(x, lengths)[1, :7], module(changed, lengths)[1, :7])


def test_state_goes_round():
    module, other = self_attention(), modules.SparseSelfAttention(32, 4, MASK)
    x = torch.randn(2, 24, 32)
    assert not torch.equal(module(x), other(x))
    assert other.load_state_dict(module.state_dict()) == ([], [])
    assert torch.equal(module(x), other(x))
    assert list(module.state_dict()) == [
        f"{name}_proj.{part}" for name in ("q", "k", "v", "out") for part in ("weight", "bias")
    ]
    assert modules.SparseAttention(MASK).state_dict() == {}
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301 - our own
        assert torch.equal(module(x), again(x))


def test_parameters_are_trained_in_a_graph_as_outside():
    module, x = self_attention(), torch.randn(2, 24, 32)
    slopes = [torch.autograd.grad(run(x).square().sum(), module.parameters()) for run in (module, compiled(module))]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)
    functional = torch.func.grad(lambda p: torch.func.functional_call(module, p, (x,)).square().sum())
    assert_same(functional(dict(module.named_parameters())).values(), slopes[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_heads": 5},
            "num_heads wanted as a divisor of embed_dim 32, got 5. Choose another number.",
        ),
        (
            {"num_kv_heads": 3},
            "num_kv_heads wanted with a number of heads that divides num_heads 4, got 3. Check axes and ",
        ),
        ({"num_heads": 0}, "num_heads wanted >= 1, got 0. Give at least 1."),
        ({"mask": 3}, "mask wanted as "),
        ({"bias": "no"}, "bias wanted as True or False, got 'no' of type str. Give a bool."),
        (
            {"dropout": 0.1},
            "dropout wanted left out, because SparseSelfAttention has no such argument. This version has no",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ArgumentError) as caught:
        modules.SparseSelfAttention(**{"embed_dim": 32, "num_heads": 4, "mask": MASK} | options)
    assert str(caught.value).startswith(message)
