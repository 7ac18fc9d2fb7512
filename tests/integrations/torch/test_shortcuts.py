"""Calls of the operators past PyTorch's dispatcher: the launches of any other call, and nothing where one watches."""

# ruff: noqa: F401, F811, ARG001 - fixtures are imported, and asked for by name

import pytest

import splat_numba as splat
from splat_numba.executors.gpu import alike
from splat_numba.executors.gpu import backward as gpu_backward
from splat_numba.executors.gpu import call as gpu_call
from tests.integrations.torch.gpu_calls import MASK, SHAPE, functional, given, kernels
from tests.integrations.torch.ways import assert_same, compiled, inputs
from tests.runtime.fake_cuda import fake
from tests.runtime.fake_torch_gpu import torch_gpu

torch = pytest.importorskip("torch")
OPTIONS = "window(64)", None, "bhsd", None, "cuda", None


def forward(q, k, v):
    return torch.ops.splat_numba.attention.default(q, k, v, *OPTIONS, False)


def back(dout, q, k, v, out, lse, dlse=None, wanted=(True, True, True)):
    return torch.ops.splat_numba.attention_backward.default(dout, q, k, v, out, lse, dlse, *OPTIONS, list(wanted))


def both(given):
    *plain, dout = given
    return back(dout, *plain, *forward(*plain))


@pytest.fixture
def known(torch_gpu, given, monkeypatch):
    """The driver, after calls of both operators; no later call may look anything up."""
    both(given)
    torch_gpu.launches.clear()

    def refused(*_):
        raise AssertionError

    for module in (gpu_call, gpu_backward):
        monkeypatch.setattr(module, "_look_up", refused)
    return torch_gpu


@pytest.fixture
def wanted(torch_gpu, given):
    functional(given)
    return kernels(torch_gpu)


def test_a_call_like_an_earlier_one_launches_the_same(wanted, known, given):
    found = both([one.clone() for one in given])
    assert kernels(known) == wanted
    assert [(one.shape, one.dtype, one.is_contiguous()) for one in found] == [(SHAPE, given[0].dtype, True)] * 3
    out, lse = forward(*given[:3])
    assert (out.shape, lse.shape, lse.dtype) == (SHAPE, SHAPE[:3], torch.float32)


def test_a_graph_s_calls_are_short(torch_gpu, given, wanted, monkeypatch):
    run = compiled(lambda q, k, v: splat.attention(q, k, v, MASK, backend="cuda"))
    *plain, dout = given
    leaves = [one.detach().requires_grad_() for one in plain]
    for _ in range(2):
        torch.autograd.grad(run(*leaves), leaves, dout)
        assert kernels(torch_gpu) == wanted
    monkeypatch.setattr(alike.Alike, "find", None)
    torch.autograd.grad(run(*leaves), leaves, dout)
    assert kernels(torch_gpu) == wanted


def cut(one):
    return one[:, :1]


def turned(one):
    return one.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("change", [cut, turned])
def test_other_arrays_are_looked_up(torch_gpu, given, change):
    both(given)
    *plain, _ = (change(one) for one in given)
    torch_gpu.launches.clear()
    splat.attention(*plain, MASK, backend="cuda", return_lse=True)
    expected = kernels(torch_gpu)
    out, _ = forward(*plain)
    assert kernels(torch_gpu) == expected
    assert out.shape == plain[0].shape


def test_other_gradients_are_looked_up(torch_gpu, given):
    both(given)
    *plain, dout = given
    out, lse = forward(*plain)
    torch_gpu.launches.clear()
    dq, dk, dv = back(dout, *plain, out, lse, wanted=(True, False, True))
    assert (dq.shape, dk.shape, dv.shape) == (SHAPE, (0,), SHAPE)
    with_level = back(dout, *plain, out, lse, torch.ones_like(lse))
    again = back(dout, *plain, out, lse, torch.ones_like(lse))
    assert [one.shape for one in with_level] == [one.shape for one in again] == [SHAPE] * 3


def test_tensors_that_are_recorded_are_differentiated(torch_gpu, given):
    both(given)
    leaves = [one.detach().requires_grad_() for one in given[:3]]
    out, _ = forward(*leaves)
    assert [one.shape for one in torch.autograd.grad(out, leaves, given[3])] == [SHAPE] * 3
    with torch.no_grad():
        assert forward(*leaves)[0].grad_fn is None


def test_modes_and_profilers_see_the_operator(torch_gpu, given):
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function, _types, arguments=(), options=None):
            seen.append(function)
            return function(*arguments, **(options or {}))

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, function, _types, arguments=(), options=None):
            seen.append(function)
            return function(*arguments, **(options or {}))

    forward(*given[:3])
    for mode in (Functions, Operators):
        with mode():
            forward(*given[:3])
        assert torch.ops.splat_numba.attention.default in seen
        seen.clear()
    with torch.autograd.profiler.profile(use_kineto=False) as profile:
        forward(*given[:3])
    assert "splat_numba::attention" in {one.name for one in profile.function_events}


def test_a_vmap_is_not_taken_for_a_call(torch_gpu, given):
    *plain, _ = given
    forward(*plain)
    out, _ = torch.func.vmap(forward)(*(torch.stack([one, one]) for one in plain))
    assert out.shape == (2, *SHAPE)


def test_a_cpu_has_none():
    given = inputs()
    options = "causal()", None, "bhsd", None, "cpu", None, False
    first, second = (torch.ops.splat_numba.attention.default(*given, *options) for _ in range(2))
    assert_same(first, second)
