"""The CUDA driver with an emulated GPU behind it: the whole runtime runs as it is, and kernels run on NumPy."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch as emulate
from splat_numba.executors import plans
from splat_numba.executors.gpu import backward as gpu_backward
from splat_numba.executors.gpu import call as gpu_call
from splat_numba.executors.gpu import executor as gpu_kernel
from splat_numba.executors.gpu import packed as gpu_packed
from splat_numba.executors.gpu import parts as gpu_parts
from splat_numba.gen.schedules.tensor_map import TensorMapArguments
from tests.runtime.fake_cuda import FakeDriver, Status, forget, install, packed_values

MULTIPROCESSORS = 1  # so that blocks take several items each


class EmulatedDriver(FakeDriver):
    """``late``: copies land as late as can be; ``change``: what is done to a kernel's text before it runs."""

    def __init__(self, late=False, change=lambda text: text):
        super().__init__()
        self.device_memory = GlobalMemory()
        self.late, self.change = late, change
        self.described = []

    def cuDeviceGetAttribute(self, which, device):  # noqa: N802
        if which == "multiprocessors":
            return Status.CUDA_SUCCESS, MULTIPROCESSORS
        return super().cuDeviceGetAttribute(which, device)

    def cuMemAlloc(self, nbytes):  # noqa: N802
        return Status.CUDA_SUCCESS, self.device_memory.allocate(nbytes)

    def cuMemcpyHtoDAsync(self, target, source, nbytes, _stream):  # noqa: N802
        self.device_memory.read(target, nbytes)[...] = np.frombuffer(ctypes.string_at(source, nbytes), np.uint8)
        return (Status.CUDA_SUCCESS,)

    def cuMemcpyDtoHAsync(self, target, source, nbytes, _stream):  # noqa: N802
        data = self.device_memory.read(source, nbytes).tobytes()
        ctypes.memmove(target, data, nbytes)
        return (Status.CUDA_SUCCESS,)

    def cuTensorMapEncodeTiled(self, kind, _axes, pointer, sizes, strides, box, *options):  # noqa: N802
        dtype = "float32" if kind == self.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_FLOAT32 else "float16"
        one = TensorMapArguments(dtype, pointer, tuple(sizes), tuple(strides), tuple(box))
        assert (options[2] != 0) == one.swizzled
        self.described.append(one)
        return Status.CUDA_SUCCESS, SimpleNamespace(opaque=[len(self.described) - 1] * 16)

    def cuLaunchKernel(self, function, grid, _y, _z, threads, *rest):  # noqa: N802
        places = rest[-2]
        text, entry = self.text_and_entry(function)
        assert (threads, rest[2]) == (entry.threads, entry.shared_bytes)
        values = packed_values(places, entry.parameters)
        emulate(self.change(text), "kernel", entry, values, self.device_memory, self.described, grid=grid,
                late=self.late)  # fmt: skip
        return (Status.CUDA_SUCCESS,)


def emulated(monkeypatch, **options):
    """Install an emulated GPU."""
    forget_emulated()
    return install(monkeypatch, EmulatedDriver(**options))


@pytest.fixture(params=[False, True], ids=["copies at once", "copies late"])
def gpu(request, monkeypatch):
    yield emulated(monkeypatch, late=request.param)
    forget_emulated()


def forget_emulated():
    gpu_kernel._planned.cache_clear()
    plans.plan_for.cache_clear()
    gpu_parts.backward_plan_for.cache_clear()
    gpu_call._ready.clear()
    gpu_backward._ready.clear()
    for one in gpu_packed._states.values():
        one.ready.clear()
    forget()
