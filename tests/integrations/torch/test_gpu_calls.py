"""What PyTorch's calls ask of a GPU, with a driver that only notes it: the launches, and nothing a second time."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by name

import pytest

import splat_numba as splat
from splat_numba import api
from splat_numba.executors.gpu import alike
from splat_numba.executors.gpu import backward as gpu_backward
from splat_numba.executors.gpu import call as gpu_call
from splat_numba.runtime import tensors
from splat_numba.runtime.cuda import ready
from tests.integrations.torch.gpu_calls import MASK, SHAPE, functional, given, kernels, slopes
from tests.runtime.fake_cuda import fake
from tests.runtime.fake_torch_gpu import torch_gpu

torch = pytest.importorskip("torch")


@pytest.fixture
def made(monkeypatch):
    """Names of calls that were checked and planned."""
    found = []
    for module in (gpu_call, gpu_backward):
        usual = module._make_ready

        def noted(*arguments, usual=usual, name=module.__name__):
            found.append(name.rpartition(".")[2])
            return usual(*arguments)

        monkeypatch.setattr(module, "_make_ready", noted)
    return found


def test_recorded_calls_launch_what_the_functional_form_does_and_plan_once(torch_gpu, given, made):
    functional(given)
    wanted = kernels(torch_gpu)
    assert len(wanted) > 2
    for _ in range(2):
        found = slopes(given)
        assert kernels(torch_gpu) == wanted
        assert [one.shape for one in found] == [SHAPE] * 3
    assert made == ["call", "backward"]


def test_the_operator_launches_the_same(torch_gpu, given):
    functional(given)
    wanted = kernels(torch_gpu)
    *plain, dout = given
    options = "window(64)", None, "bhsd", None, "cuda", None
    out, lse = torch.ops.splat_numba.attention(*plain, *options, False)
    torch.ops.splat_numba.attention_backward(dout, *plain, out, lse, None, *options, [True] * 3)
    assert kernels(torch_gpu) == wanted


def test_calls_like_earlier_ones_ask_for_nothing_twice_and_launch_the_same(torch_gpu, given, monkeypatch):
    slopes(given)
    wanted = kernels(torch_gpu)
    slopes(given)
    kernels(torch_gpu)

    def refused(*_):
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(alike, "known_keys", refused)
        slopes([one.clone() for one in given])
    assert kernels(torch_gpu) == wanted


def test_plain_calls_like_earlier_ones_ask_for_no_executor_and_launch_the_same(torch_gpu, given, monkeypatch):
    *plain, _ = given
    options = {"backend": "cuda"}
    usual, launched = [], []
    for more in ({}, {"return_lse": True}, {"scale": 0.5}):
        usual.append(splat.attention(*plain, MASK, **options, **more))
        launched.append(kernels(torch_gpu))

    def refused(*_):
        raise AssertionError

    monkeypatch.setattr(api, "choose_executor", refused)
    others = [one.clone() for one in plain]
    for more, before, wanted in zip(({}, {"return_lse": True}, {"scale": 0.5}), usual, launched, strict=True):
        found = splat.attention(*others, MASK, **options, **more)
        assert [one.lse != 0 for one in torch_gpu.launches] == ["return_lse" in more] * len(wanted)
        assert kernels(torch_gpu) == wanted
        assert type(found) is type(before)
    with pytest.raises(AssertionError):
        splat.attention(*plain, splat.window(63), **options)
    for changed in ({"scale": 0.25}, {"return_lse": 1}, {"kv_lengths": [256]}, {"layout": "bshd"}):
        with pytest.raises(AssertionError):
            splat.attention(*plain, MASK, **options, **changed)


def test_calls_of_many_lengths_are_all_known(torch_gpu, given, monkeypatch):  # noqa: ARG001 - the GPU
    lengths = [[one[:, :, :rows] for one in given[:3]] for rows in range(64, 256, 32)]
    for _ in range(2):
        for arrays in lengths:
            splat.attention(*[one.contiguous() for one in arrays], MASK, backend="cuda")
        monkeypatch.setattr(api, "choose_executor", None)


def test_an_option_that_is_only_equal_to_an_earlier_one_s_is_refused(torch_gpu, given):  # noqa: ARG001 - the GPU
    *plain, _ = given
    for right, wrong, name in ((True, 1, "return_lse"), (1.0, True, "scale")):
        splat.attention(*plain, MASK, backend="cuda", **{name: right})
        with pytest.raises(splat.SplatError, match=rf"^{name} wanted"):
            splat.attention(*plain, MASK, backend="cuda", **{name: wrong})


def test_a_pytorch_without_quick_answers_launches_the_same(torch_gpu, given, monkeypatch):
    slopes(given)
    wanted = kernels(torch_gpu)
    monkeypatch.setattr(tensors, "_guards", lambda _: None)
    for module in (gpu_call, gpu_backward):
        module._ready.clear()
    for _ in range(3):
        slopes(given)
        assert kernels(torch_gpu) == wanted


def test_a_call_like_earlier_ones_but_negated_is_refused(torch_gpu, given):  # noqa: ARG001 - the GPU
    *plain, _ = given
    for _ in range(3):
        splat.attention(*plain, MASK, backend="cuda")
    with pytest.raises(splat.ArgumentError, match=r"^k wanted with its numbers as they are in memory"):
        splat.attention(plain[0], plain[1]._neg_view(), plain[2], MASK, backend="cuda")


def test_gradients_are_written_where_the_kernels_write(torch_gpu, given):
    found = slopes(given)
    addresses = {value for one in torch_gpu.launches for value in vars(one).values() if isinstance(value, int)}
    assert {one.data_ptr() for one in found} <= addresses


def test_a_capture_keeps_what_its_graph_reads(torch_gpu, given):
    slopes(given)
    usual = kernels(torch_gpu)
    assert not ready._captured
    torch_gpu.capturing = True
    slopes(given)
    assert kernels(torch_gpu) == usual
    assert len(ready._captured) == 2


def test_saved_tensors_that_come_back_with_other_strides(torch_gpu, given, made):
    def turned(one):
        return one.transpose(1, 2).contiguous().transpose(1, 2) if one.dim() == 4 else one

    functional(given)
    torch_gpu.launches.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda one: one, turned):
        slopes(given)
    assert made == ["call", "backward", "backward"]


def test_what_was_copied_is_given_to_the_launches_after_it(torch_gpu, given):
    *plain, dout = given
    odd = torch.empty(SHAPE[1] * SHAPE[2] * SHAPE[3] + 1, dtype=torch.bfloat16)[1:].view(SHAPE)  # not at 16 bytes
    slopes([*plain, odd.copy_(dout)])
    (copy,) = torch_gpu.copies
    assert copy.source == odd.data_ptr()
    assert any(copy.target in vars(one).values() for one in torch_gpu.launches) or any(
        one[2] == copy.target for one in torch_gpu.maps
    )


@pytest.mark.parametrize("function", ["cuLaunchKernelEx", "cuStreamIsCapturing", "cuCtxGetCurrent"])
def test_what_the_driver_refuses_is_named_and_the_next_call_works(torch_gpu, given, function):
    slopes(given)
    kernels(torch_gpu)
    torch_gpu.native.refuse = function
    with pytest.raises(splat.BackendError, match=rf"^{function} wanted to succeed, got CUDA_ERROR_LAUNCH_FAILED"):
        slopes(given)
    torch_gpu.native.refuse = None
    slopes(given)
    assert torch_gpu.launches
