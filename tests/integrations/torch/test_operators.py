"""torch.ops.splat_numba: what PyTorch's own checks say of the operators, what traces make of them, and masks' names."""

import pytest

import splat_numba as splat
from splat_numba.bridges.torch import names
from splat_numba.errors import ArgumentError
from tests.integrations.torch.ways import MASK, NEW, assert_same, eager_gradients, inputs, torch

OPTIONS = repr(MASK), None, "bhsd", None, "auto", None


@pytest.fixture(scope="module")
def operators():
    import splat_numba.integrations.torch  # noqa: F401 - which defines them

    return torch.ops.splat_numba


def test_opcheck(operators):
    q, k, v = inputs()
    out, lse = splat.attention(q, k, v, MASK, return_lse=True)
    torch.library.opcheck(operators.attention.default, (q, k, v, *OPTIONS, False))
    for dlse in (None, lse):
        arguments = out, q, k, v, out, lse, dlse, *OPTIONS, [True, False, True]
        torch.library.opcheck(operators.attention_backward.default, arguments)
    given = [one.requires_grad_() for one in inputs()]
    torch.library.opcheck(operators.attention.default, (*given, *OPTIONS, False))


def test_operators_called_by_themselves_are_differentiated(operators):
    given = [one.requires_grad_() for one in inputs()]
    dout = torch.ones(2, 4, 24, 16)
    out, _ = operators.attention(*given, *OPTIONS, False)
    assert_same(torch.autograd.grad(out, given, dout), eager_gradients(*given, dout))


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("axes", [2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_fakes_are_what_is_returned(operators, axes, layout, dtype):
    shape = {2: (5, 8), 3: (2, 5, 8), 4: (3, 2, 5, 8)}[axes]
    shape = shape if layout == "bhsd" or axes == 2 else (*shape[:-3], 5, 2, 8)
    from splat_numba.bridges.torch import fakes

    q, v = torch.ones(shape, dtype=dtype), torch.ones((*shape[:-1], 4), dtype=dtype)
    options = "causal()", None, layout, None, "auto", None, False
    for real, fake in zip(operators.attention(q, q, v, *options), fakes.attend(q, q, v, *options), strict=True):
        assert (real.shape, real.dtype, real.stride()) == (fake.shape, fake.dtype, fake.stride())


def test_make_fx_sees_both_operators():
    from torch.fx.experimental.proxy_tensor import make_fx

    def slopes(q, k, v):
        return torch.autograd.grad(splat.attention(q, k, v, MASK).sum(), (q, k, v))

    given = [one.requires_grad_() for one in inputs()]
    graph = make_fx(slopes, tracing_mode="symbolic")(*given)
    assert "splat_numba.attention.default(" in graph.code
    assert "splat_numba.attention_backward.default(" in graph.code
    for found, wanted in zip(graph(*given), slopes(*given), strict=True):
        assert torch.equal(found, wanted)


class Attending(torch.nn.Module):
    """One call, for torch.export."""

    def forward(self, q, k, v):
        return splat.attention(q, k, v, MASK)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs_hold_the_operator(strict):
    program = torch.export.export(Attending(), tuple(inputs()), strict=strict)
    assert torch.equal(program.module()(*inputs()), splat.attention(*inputs(), MASK))
    given = [one.requires_grad_() for one in inputs()]
    dout = torch.ones(2, 4, 24, 16)
    assert_same(torch.autograd.grad(program.module()(*given), given, dout), eager_gradients(*given, dout))


def test_names_are_read_back():
    stored = splat.ACSR.from_pattern(MASK, 24, 24)
    assert names.mask_name(MASK) == "window(5, 0) | sinks(2)"
    assert names.named(names.mask_name(MASK)) == MASK
    assert names.named(names.mask_name(stored)) == stored
    equal = splat.from_dense(stored.to_dense())
    assert names.mask_name(equal) == names.mask_name(stored.to_dense())
    assert names.named(names.mask_name([MASK])) == (MASK,)
    assert names.named(names.mask_name([MASK, stored])) == (MASK, stored)
    long = splat.documents((1,) * 4000)
    assert names.mask_name(long).startswith("mask:")
    assert names.named(names.mask_name(long)) is long


def test_kernels_of_equal_recipes_share_a_name():
    sizes = {"seq_q": 24, "seq_kv": 24, "head_dim": 16, "dtype": "float32"}
    one, other, scaled = (splat.compile(MASK, **sizes, scale=scale) for scale in (None, None, 0.5))
    assert names.keep(one) == names.keep(other) != names.keep(scaled)
    assert names.named(names.keep(one)).scale == one.scale


def test_a_hash_of_another_process_is_refused():
    with pytest.raises(ArgumentError) as caught:
        names.named("mask:0123")
    assert str(caught.value) == (
        "mask wanted as a pattern, or as a stored mask or kernel of this process, got the hash 'mask:0123' of another. "
        "Call splat_numba.attention with the mask itself, or export the graph with a Pattern."
    )


@pytest.mark.skipif(not NEW, reason="Dynamo holds no objects before PyTorch 2.13")
def test_saved_programs_run_in_another_process(tmp_path):
    from tests.import_layers import python

    program = torch.export.export(Attending(), tuple(inputs()))
    torch.export.save(program, tmp_path / "program.pt2")
    code = f"""
import torch, splat_numba as splat, splat_numba.integrations.torch
from tests.integrations.torch.ways import MASK, inputs
program = torch.export.load({str(tmp_path / "program.pt2")!r})
print(torch.equal(program.module()(*inputs()), splat.attention(*inputs(), MASK)))
"""
    assert python(code).splitlines()[-1] == "True"
