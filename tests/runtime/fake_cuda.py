"""As much of the CUDA driver, of a GPU and of its arrays as the launcher asks for: addresses, and a log of calls."""

# ruff: noqa: N802 - the driver names its functions

import ctypes
import enum
from types import SimpleNamespace

import numpy as np
import pytest

from splat_numba.gen.targets.gpu.copying import ENTRY as COPY
from splat_numba.runtime.cuda import (
    build,
    code,
    copies,
    device,
    driver,
    frameworks,
    launch,
    memory,
    ready,
    tables,
    tensor_map,
)
from splat_numba.runtime.cuda.compilers.compiler import chosen
from tests.runtime.fake_native import NativeDriver


class Status(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_NO_DEVICE = 100


class FakeDriver:
    """Functions return (status, results) as cuda.bindings does. ``memory``: bytes written, by address."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major",
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor",
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="multiprocessors",
    )
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL="ordinal")
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)
    CUtensorMapDataType = SimpleNamespace(
        CU_TENSOR_MAP_DATA_TYPE_BFLOAT16=9, CU_TENSOR_MAP_DATA_TYPE_FLOAT16=6, CU_TENSOR_MAP_DATA_TYPE_FLOAT32=7
    )
    CUtensorMapInterleave = SimpleNamespace(CU_TENSOR_MAP_INTERLEAVE_NONE=0)
    CUtensorMapSwizzle = SimpleNamespace(CU_TENSOR_MAP_SWIZZLE_NONE=0, CU_TENSOR_MAP_SWIZZLE_128B=3)
    CUtensorMapL2promotion = SimpleNamespace(CU_TENSOR_MAP_L2_PROMOTION_L2_256B=3)
    CUtensorMapFloatOOBfill = SimpleNamespace(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE=0)
    cuuint64_t = cuuint32_t = int

    def __init__(self, capability=(9, 0), count=1, status=Status.CUDA_SUCCESS):
        self.capability, self.count, self.status = capability, count, status
        self.memory = {}
        self.freed = []
        self.launches = []
        self.copies = []  # launches of the text that copies
        self.maps = []
        self.capturing = False
        self.contexts = [0]
        self.mode = 0
        self.clock = 0.0  # seconds of the GPU: events take a microsecond, and whoever fakes work may add to it
        self.events = []
        self._next = 1 << 20
        self.built = {}  # texts and entries, by what stands for their machine code
        self.native = NativeDriver(self)
        self.functions = []  # those of the handles 4242, 4243 and so on

    def CUresult(self, status):
        """The code of a function that was called in C's way; what it raised is raised here."""
        raised, self.native.raised = self.native.raised, None
        if raised is not None:
            raise raised
        return SimpleNamespace(name="CUDA_ERROR_LAUNCH_FAILED", value=status)

    def cuInit(self, _):
        return (self.status,)

    def cuDeviceGetCount(self):
        return Status.CUDA_SUCCESS, self.count

    def cuDeviceGet(self, ordinal):
        return Status.CUDA_SUCCESS, ordinal

    def cuDeviceGetName(self, _size, _device):
        return Status.CUDA_SUCCESS, b"NVIDIA Fake\0\0\0"

    def cuDeviceGetAttribute(self, which, _device):
        values = {"major": self.capability[0], "minor": self.capability[1], "multiprocessors": 132}
        return Status.CUDA_SUCCESS, values[which]

    def cuDevicePrimaryCtxRetain(self, handle):
        return Status.CUDA_SUCCESS, 77 + handle

    def cuCtxGetCurrent(self):
        return Status.CUDA_SUCCESS, self.contexts[-1]

    def cuCtxPushCurrent(self, context):
        self.contexts.append(context)
        return (Status.CUDA_SUCCESS,)

    def cuCtxPopCurrent(self):
        return Status.CUDA_SUCCESS, self.contexts.pop()

    def cuCtxSynchronize(self):
        return (Status.CUDA_SUCCESS,)

    def cuStreamCreate(self, _flags):
        return Status.CUDA_SUCCESS, 555

    def cuStreamSynchronize(self, stream):
        assert not self.capturing or self.mode == 2
        self.synchronised = stream
        return (Status.CUDA_SUCCESS,)

    def cuStreamIsCapturing(self, _stream):
        return Status.CUDA_SUCCESS, int(self.capturing)

    def cuThreadExchangeStreamCaptureMode(self, mode):
        before, self.mode = self.mode, mode
        return Status.CUDA_SUCCESS, before

    def cuMemAlloc(self, nbytes):
        assert self.contexts[-1], "no context is current"
        assert not self.capturing or self.mode == 2
        address, self._next = self._next, self._next + -(-nbytes // 256) * 256
        self.memory[address] = bytes(nbytes)
        return Status.CUDA_SUCCESS, address

    def cuMemAllocAsync(self, nbytes, _stream):
        return self.cuMemAlloc(nbytes)

    def cuMemFree(self, address):
        self.freed.append(address)
        return (Status.CUDA_SUCCESS,)

    def cuMemFreeAsync(self, address, _stream):
        return self.cuMemFree(address)

    def cuMemcpyHtoDAsync(self, target, source, nbytes, _stream):
        self.memory[target] = ctypes.string_at(source, nbytes)
        return (Status.CUDA_SUCCESS,)

    def cuMemcpyDtoHAsync(self, target, source, nbytes, _stream):
        ctypes.memmove(target, self.memory[source].ljust(nbytes, b"\0"), nbytes)
        return (Status.CUDA_SUCCESS,)

    def cuMemsetD8Async(self, _target, _value, _nbytes, _stream):
        return (Status.CUDA_SUCCESS,)

    def cuEventCreate(self, _flags):
        self.events.append(None)
        return Status.CUDA_SUCCESS, len(self.events) - 1

    def cuEventRecord(self, event, _stream):
        self.clock += 1e-6
        self.events[event] = self.clock
        return (Status.CUDA_SUCCESS,)

    def cuEventSynchronize(self, event):
        assert self.events[event] is not None
        return (Status.CUDA_SUCCESS,)

    def cuEventElapsedTime(self, start, end):
        return Status.CUDA_SUCCESS, (self.events[end] - self.events[start]) * 1e3

    def cuEventDestroy(self, event):
        self.events[event] = None
        return (Status.CUDA_SUCCESS,)

    def cuPointerGetAttribute(self, _which, pointer):
        return Status.CUDA_SUCCESS, pointer >> 40

    def cuLibraryLoadData(self, code, *_):
        return Status.CUDA_SUCCESS, code

    def build(self, source, entry, _settings):
        """Instead of runtime.cuda.build's: nothing is compiled."""
        made = f"{entry}\n{source.text}".encode()
        self.built[made] = source.text, entry
        report = build.Report(entry.name, 0, 0, entry.shared_bytes, (), "")
        return build.Cubin(source, entry, None, made, report, cached=False, compiler=chosen(None))

    def cuLibraryGetKernel(self, library, _name):
        self.functions.append(self.built[library])
        return Status.CUDA_SUCCESS, 4241 + len(self.functions)

    def text_and_entry(self, function):
        """What a handle stands for."""
        return self.functions[function - 4242]

    def cuKernelSetAttribute(self, _which, value, _kernel, _device):
        self.shared = value
        return (Status.CUDA_SUCCESS,)

    def cuTensorMapEncodeTiled(self, *arguments):
        self.maps.append(arguments)
        return Status.CUDA_SUCCESS, SimpleNamespace(opaque=[len(self.maps)] * 16)

    def cuLaunchKernel(self, function, *arguments):
        *sizes, shared, stream, places, _ = arguments
        _, entry = self.text_and_entry(function)
        assert (sizes[3], shared) == (entry.threads, entry.shared_bytes)
        values = packed_values(places, entry.parameters)
        record = {"function": function, "sizes": tuple(sizes), "shared": shared, "stream": stream}
        self.note(entry, SimpleNamespace(**record, **values))
        return (Status.CUDA_SUCCESS,)

    def note(self, entry, launched):
        """Keep a launch."""
        (self.copies if entry.name == COPY else self.launches).append(launched)


def packed_values(places, parameters):
    """The parameters of a launch by name, from the addresses that the driver is given."""
    pointers = (ctypes.c_void_p * len(parameters)).from_address(places)
    return {
        name: launch._TYPES[kind].from_address(place).value
        for (name, kind), place in zip(parameters, pointers, strict=True)
    }


CACHES = (driver.driver, device.device, memory.memory, tables.pool, tables.counters, tables.spare, launch.load,
          launch._library, code.cubin_for, copies._ready)  # fmt: skip


def install(monkeypatch, fake):
    """Let the runtime find ``fake`` instead of the driver."""
    monkeypatch.setattr(driver, "import_module", lambda _: fake)
    monkeypatch.setattr(build, "build", fake.build)
    for module in (launch, tensor_map):
        monkeypatch.setattr(module, "addresses", fake.native.addresses)
    forget()
    return fake


def forget():
    for one in CACHES:
        one.cache_clear()
    tables._uploads.clear()
    ready._captured.clear()


@pytest.fixture
def fake(monkeypatch):
    """A GPU that is there."""
    yield install(monkeypatch, FakeDriver())
    forget()


class GpuMemory:
    """An array of no framework, with the CUDA array interface; nothing is at its address."""

    def __init__(self, shape, dtype="float16", pointer=1 << 30, strides=None, read_only=False, **more):
        facts = {"data": (pointer, read_only), "shape": shape, "typestr": np.dtype(dtype).str, "version": 3}
        self.__cuda_array_interface__ = {**facts, "strides": strides, **more}
        self.shape = shape

    def __getitem__(self, index):
        """A view."""
        facts = self.__cuda_array_interface__
        dtype, (pointer, read_only) = np.dtype(facts["typestr"]), facts["data"]
        steps = facts["strides"] or np.cumprod([dtype.itemsize, *self.shape[:0:-1]])[::-1].tolist()
        whole = np.lib.stride_tricks.as_strided(np.empty(1, dtype), self.shape, steps)
        view = whole[index]
        offset = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        return GpuMemory(view.shape, dtype, pointer + offset, view.strides, read_only)


@pytest.fixture
def fresh(monkeypatch):
    """What calls allocate, in their order, instead of Numba's arrays."""
    made = []

    def empty(_self, shape, dtype, _like):
        made.append(GpuMemory(shape, dtype, pointer=(1 << 34) + (len(made) << 24)))
        return made[-1]

    monkeypatch.setattr(type(frameworks.NUMBA), "empty", empty)
    return made
