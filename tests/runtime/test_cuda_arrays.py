"""GPU arrays as addresses and strides, without a GPU: frameworks are stood in for by what they show."""

# ruff: noqa: ARG001, F401, F811 - fixtures are imported, and asked for by name

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.runtime.arrays import on_gpu
from splat_numba.runtime.cuda import device
from splat_numba.runtime.cuda.arrays import GpuArray, check_gpu_out, check_same_device, contiguous_strides
from splat_numba.runtime.cuda.compilers.mlir import Mlir
from splat_numba.runtime.cuda.compilers.numba_cuda import NumbaCuda
from splat_numba.runtime.cuda.dialect import Dialect
from splat_numba.runtime.cuda.frameworks import NUMBA, TORCH, describe, describe_operand, framework_of
from tests.runtime.fake_cuda import GpuMemory, fake
from tests.runtime.fake_torch import Tensor, torch


@pytest.mark.parametrize("wanted", [Mlir, NumbaCuda])
def test_results_beside_numbas_arrays_are_of_the_compiler_that_is_asked_for(fake, monkeypatch, wanted):
    fake.count = 2
    for one in (Mlir, NumbaCuda):
        made = SimpleNamespace(device_array=lambda *given, name=one.name: (name, fake.contexts[-1], *given))
        monkeypatch.setattr(one, "dialect", lambda _, made=made: Dialect(made, None))
    monkeypatch.setenv("SPLAT_CUDA_COMPILER", wanted.name)
    for ordinal in (0, 1):  # fakes' pointers begin with it
        found = NUMBA.empty((2, 3), "float16", GpuMemory((2, 3), pointer=(ordinal << 40) + 4096))
        assert found == (wanted.name, device.device(ordinal).context, (2, 3), np.dtype("float16"))


def test_on_gpu_asks_without_touching_the_data(fake):
    class Managed:
        def __dlpack_device__(self):
            return 13, 0

    assert on_gpu(GpuMemory((3,)))
    assert on_gpu(Tensor())
    assert on_gpu(Managed())
    for other in (None, [1.0], np.zeros(3), np.float16(1)):
        assert not on_gpu(other)


def test_a_tensor(torch):
    found = describe_operand("q", Tensor(), framework_of(Tensor()))
    assert framework_of(Tensor()) is TORCH
    assert found == GpuArray(4096, (2, 3, 8, 16), (768, 256, 32, 2), "bfloat16", 1, "torch")


def test_a_tensor_is_looked_at_anew_and_let_go(torch):
    array = Tensor()
    describe("q", array, TORCH)
    array.requires_grad = True
    with pytest.raises(ArgumentError, match=r"^q wanted without requires_grad"):
        describe("q", array, TORCH)
    gone = weakref.ref(array)
    del array
    gc.collect()
    assert gone() is None


def test_the_cuda_array_interface(fake):
    assert describe("q", GpuMemory((2, 3, 4)), NUMBA) == GpuArray(1 << 30, (2, 3, 4), (24, 8, 2), "float16", 0, "numba")
    other = describe("q", GpuMemory((2, 3), "int64", 3 << 40, (8, 16), read_only=True), NUMBA)
    assert other == GpuArray(3 << 40, (2, 3), (8, 16), "int64", 3, "numba", read_only=True)
    assert NUMBA.stream([GpuMemory((3,), stream=None), GpuMemory((3,), stream=1)], 0) == 0
    NUMBA.stream([GpuMemory((3,), stream=99)], 0)
    assert fake.synchronised == 99


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: describe_operand("k", GpuMemory((2, 3), "int32"), NUMBA),
            ArgumentTypeError,
            "k wanted as float16, bfloat16, float32 or float64 for backend 'cuda', got int32. "
            "Convert it, or give backend='cpu' with arrays there.",
        ),
        (
            lambda: describe("k", np.zeros(3), TORCH),
            BackendError,
            "k wanted in GPU memory for backend 'cuda', got a NumPy array. Copy it there, or give q, k and v as NumPy "
            "arrays, which are copied there and back.",
        ),
        (
            lambda: describe("q", [1.0], NUMBA),
            BackendError,
            "q wanted in GPU memory for backend 'cuda', got one of type list elsewhere. Copy it there, or give q, k "
            "and v as NumPy arrays, which are copied there and back.",
        ),
        (
            lambda: describe("v", GpuMemory((3,)), TORCH),
            ArgumentTypeError,
            "v wanted as an array of the framework of q, got tests.runtime.fake_cuda.GpuMemory. "
            "Convert it with that framework's from_dlpack.",
        ),
        (
            lambda: describe_operand("q", GpuMemory((3,), pointer=4097), NUMBA),
            ArgumentError,
            "q wanted at an address of whole elements, a multiple of 2 bytes, got one 1 bytes past. Copy it.",
        ),
        (
            lambda: check_same_device({"q": here(0), "k": here(0), "v": here(1)}),
            BackendError,
            "v wanted on GPU 0 as q is, got one on GPU 1. Copy it there.",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(fake, call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def here(ordinal):
    return GpuArray(4096, (3,), (2,), "float16", ordinal, "torch")


def block(pointer, shape=(2, 8, 4), strides=None, read_only=False):
    return GpuArray(pointer, shape, strides or contiguous_strides(shape, 2), "float16", 0, "cupy", read_only)


def test_an_out_apart_from_the_inputs_is_taken():
    check_gpu_out(block(4096), {"q": block(4096 + 128), "k": block(4096 - 128)})
    check_gpu_out(block(4096, strides=(128, 16, 2)), {"q": block(4096 + 8, strides=(128, 16, 2))})  # interleaved
    check_gpu_out(block(0, (0, 3)), {"q": block(0, (0, 3))})


@pytest.mark.parametrize(
    ("out", "start"),
    [
        (block(4096), "out wanted apart from the inputs, got memory that q uses."),
        (block(4096 + 126), "out wanted apart from the inputs"),
        (block(9000, strides=(0, 8, 2)), "out wanted with a place for every number"),
        (block(9000, read_only=True), "out wanted writeable, got a read-only array."),
    ],
)
def test_an_out_that_cannot_be_written_without_harm_is_refused(out, start):
    with pytest.raises(ArgumentError) as caught:
        check_gpu_out(out, {"q": block(4096)})
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("shape", [(3,), (0,), (0, 4), (2, 0, 4), (5, 1, 3), (2, 3, 4, 8)])
def test_fresh_tensors_are_as_pytorch_makes_them(shape):
    torch = pytest.importorskip("torch")
    fresh, usual = TORCH.empty(shape, "bfloat16", torch.empty(1)), torch.empty(shape, dtype=torch.bfloat16)
    assert (fresh.shape, fresh.stride(), fresh.dtype) == (usual.shape, usual.stride(), usual.dtype)


@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (1, 4, 0, 8)])
def test_tensors_with_heads_side_by_side(shape):
    torch = pytest.importorskip("torch")
    found = TORCH.side_by_side(shape, "float16", torch.empty(1))
    assert (tuple(found.shape), found.dtype) == (shape, torch.float16)
    assert found.swapaxes(1, 2).is_contiguous()
