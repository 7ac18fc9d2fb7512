"""Gradients by every way through PyTorch, against the float64 oracle under the project's tolerance rule."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import splat_numba as splat
from splat_numba.testing import Problem, check_gradients, problems
from tests.integrations.torch.ways import MASK, NEW, WAYS, assert_same, eager_gradients, inputs, torch
from tests.ops.test_gradients import stored_masks
from tests.profiles import draws

STORED = np.random.default_rng(3).random((24, 24)) < 0.3
PROBLEMS = {
    "grouped heads": Problem(24, 24, MASK, batch=2, heads_q=4, heads_kv=2),
    "key lengths": Problem(24, 24, MASK, "bfloat16", batch=2, heads_q=4, heads_kv=2, layout="bshd", kv_lengths=(24, 7)),
    "a stored mask": Problem(24, 24, splat.from_dense(STORED), "float64", heads_q=2, scale=0.3),
    "a mask a head": Problem(24, 24, [MASK, splat.from_dense(STORED)], batch=1, heads_q=2),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_of_out_and_lse_are_the_oracle_s(name, way):
    if "graph" in way and "mask" in name and not NEW:
        pytest.skip("Dynamo holds no stored masks before PyTorch 2.13")
    check_gradients(PROBLEMS[name], attention_vjp=WAYS[way])


@pytest.mark.parametrize("way", ["eager", "func"])
@settings(max_examples=draws(15), suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(dtypes=["float32"], mask=stored_masks))
def test_drawn_problems(way, problem):
    check_gradients(replace(problem, head_dim=16, value_dim=None), attention_vjp=WAYS[way])


@pytest.mark.parametrize("way", ["eager", "graph", "func"])
def test_lse_may_have_no_gradient(way):
    check_gradients(PROBLEMS["grouped heads"], attention_vjp=WAYS[way], with_dlse=False)


def test_lse_alone_may_have_one():
    given = [one.requires_grad_() for one in inputs()]
    lse = splat.attention(*given, MASK, return_lse=True)[1]
    found = torch.autograd.grad(lse.sum(), given[:2])
    out, whole, vjp = splat.attention_vjp(*(one.detach() for one in given), MASK, return_lse=True)
    assert_same(found, vjp(torch.zeros_like(out), torch.ones_like(whole))[:2])


@pytest.mark.parametrize("alone", range(3))
def test_gradients_that_nobody_wants_are_not_made(alone, monkeypatch):
    from splat_numba.executors.cpu.executor import CpuExecutor

    asked, backward = [], CpuExecutor.backward
    monkeypatch.setattr(
        CpuExecutor, "backward", lambda self, recipe, call: (asked.append(call.frozen), backward(self, recipe, call))[1]
    )
    given = inputs()
    given[alone].requires_grad_()
    out = splat.attention(*given, MASK)
    out.backward(torch.ones_like(out))
    assert asked == [frozenset("qkv") - {"qkv"[alone]}]
    assert torch.equal(given[alone].grad, eager_gradients(*given, torch.ones_like(out))[alone])


def test_a_kernel_is_differentiated():
    given = [one.requires_grad_() for one in inputs()]
    kernel = splat.compile(MASK, seq_q=24, seq_kv=24, head_dim=16, dtype="float32")
    found = torch.autograd.grad(kernel(*given).sum(), given)
    assert_same(found, eager_gradients(*given, torch.ones(2, 4, 24, 16)))


def test_parameters_are_taken_in_eval_without_no_grad():
    q, k, v = inputs()
    out = splat.attention(torch.nn.Parameter(q), k, v, MASK)
    assert out.requires_grad
    assert torch.equal(out, splat.attention(q, k, v, MASK))
    with torch.no_grad():
        assert not splat.attention(torch.nn.Parameter(q), k, v, MASK).requires_grad


def test_changed_inputs_are_noticed():
    q, k, v = inputs()
    out = splat.attention(q.requires_grad_(), k, v, MASK)
    k += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_what_is_no_tensor_is_remembered_as_it_was():
    given = [one.requires_grad_() for one in inputs()]
    mask, lengths, dout = STORED.copy(), np.array([20, 7]), torch.ones(2, 4, 24, 16)
    out = splat.attention(*given, mask, kv_lengths=lengths)
    mask[:], lengths[:] = True, 24
    assert_same(torch.autograd.grad(out, given, dout), eager_gradients(*given, dout, STORED, kv_lengths=[20, 7]))
    lengths = torch.tensor([20, 7])
    out = splat.attention(*given, mask, kv_lengths=lengths)
    lengths += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_gradients_of_many_at_once():
    given = [one.requires_grad_() for one in inputs()]
    out = splat.attention(*given, MASK)
    douts = torch.stack([torch.ones_like(out), torch.linspace(-1, 1, out.numel()).reshape(out.shape)])
    found = torch.autograd.grad(out, given, douts, is_grads_batched=True)
    for number, dout in enumerate(douts):
        assert_same([one[number] for one in found], eager_gradients(*given, dout))
