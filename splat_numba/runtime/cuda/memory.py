"""Device memory of our own: small immutable tables, and arrays that came from NumPy."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.driver import ask, driver

WORD_BYTES = 4  # arrays end at whole words: 16-bit numbers are read, and packed ones written, in pairs


@contextmanager
def undisturbed() -> Iterator[None]:
    """Allow allocations and waits on our own stream while some stream of this process is being captured."""
    cu = driver()
    before = ask(cu.cuThreadExchangeStreamCaptureMode, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
    try:
        yield
    finally:
        ask(cu.cuThreadExchangeStreamCaptureMode, before)


@dataclass(frozen=True, slots=True)
class Memory:
    """Raw memory of one device. What write() returns from is there for every stream, captured or not."""

    device: Device

    def allocate(self, nbytes: int) -> int:
        """The address of fresh memory, aligned to 256 bytes."""
        with self.device.current(), undisturbed():
            return int(ask(driver().cuMemAlloc, max(nbytes, 1)))

    def free(self, address: int) -> None:
        """Give memory back; waits for the device."""
        with self.device.current(), undisturbed():
            ask(driver().cuMemFree, address)

    def write(self, address: int, data: NDArray[Any]) -> None:
        """Copy a contiguous array there, on a stream of our own, and wait for it."""
        cu = driver()
        with self.device.current(), undisturbed():
            ask(cu.cuMemcpyHtoDAsync, address, data.ctypes.data, data.nbytes, self.device.stream)
            ask(cu.cuStreamSynchronize, self.device.stream)

    def wait(self) -> None:
        """Wait for all work of the device."""
        with self.device.current():
            ask(driver().cuCtxSynchronize)


class Upload:
    """An immutable array in device memory, freed with this object."""

    def __init__(self, memory: Memory, data: NDArray[Any]) -> None:
        data = np.ascontiguousarray(data)
        self.address = memory.allocate(data.nbytes)
        self._finalizer = weakref.finalize(self, memory.free, self.address)
        self._finalizer.atexit = False  # the driver frees everything then, and may be gone already
        if data.nbytes:
            memory.write(self.address, data)


class DeviceArray:
    """An array in device memory, in the order of our own stream; what NumPy arrays are copied to. row: the numbers that
    a row of the last axis takes up, where it is padded.
    """

    is_cuda = True  # as runtime.arrays.on_gpu asks

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: str, row: int | None = None) -> None:
        size = ITEMSIZE.get(dtype) or np.dtype(dtype).itemsize
        stored = (*shape[:-1], shape[-1] if row is None else row)
        self.device = device
        self.shape = shape
        self.dtype = dtype
        self.strides = tuple(int(np.prod(stored[axis + 1 :], dtype=np.int64)) * size for axis in range(len(stored)))
        self.nbytes = int(np.prod(stored, dtype=np.int64)) * size
        whole = max(-(-self.nbytes // WORD_BYTES), 1) * WORD_BYTES
        with device.current():
            self.pointer = int(ask(driver().cuMemAllocAsync, whole, device.stream))
        self._finalizer = weakref.finalize(self, _free_in_order, device, self.pointer)
        self._finalizer.atexit = False

    def fill(self, data: NDArray[Any]) -> None:
        """Copy from a contiguous NumPy array."""
        with self.device.current():
            if data.nbytes:
                ask(driver().cuMemcpyHtoDAsync, self.pointer, data.ctypes.data, data.nbytes, self.device.stream)
                ask(driver().cuStreamSynchronize, self.device.stream)

    def read(self, data: NDArray[Any]) -> None:
        """Copy to a contiguous NumPy array and wait for it, and so for all work before."""
        with self.device.current():
            if data.nbytes:
                ask(driver().cuMemcpyDtoHAsync, data.ctypes.data, self.pointer, data.nbytes, self.device.stream)
            ask(driver().cuStreamSynchronize, self.device.stream)


def _free_in_order(device: Device, pointer: int) -> None:
    with device.current():
        ask(driver().cuMemFreeAsync, pointer, device.stream)


@cache
def memory(device: Device) -> Memory:
    """The memory of a device."""
    return Memory(device)
