"""NumPy arrays after they were copied to the GPU."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from splat_numba.runtime.cuda.arrays import GpuArray
from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.frameworks.framework import Framework
from splat_numba.runtime.cuda.memory import DeviceArray


class _Copied(Framework):
    """Arrays in memory of ours."""

    def describe(self, name: str, array: DeviceArray) -> GpuArray:
        return GpuArray(array.pointer, array.shape, array.strides, array.dtype, array.device.ordinal, "numpy")

    def keys(self, arrays: Sequence[DeviceArray]) -> tuple[list[int], Hashable]:
        return [one.pointer for one in arrays], tuple((one.shape, one.dtype, one.device.ordinal) for one in arrays)

    def address(self, array: DeviceArray) -> int:
        return array.pointer

    def empty(self, shape: tuple[int, ...], dtype: str, like: DeviceArray) -> DeviceArray:
        return DeviceArray(like.device, shape, dtype)

    def side_by_side(self, shape: tuple[int, int, int, int], dtype: str, like: DeviceArray) -> None:
        return None

    def stream(self, arrays: Sequence[DeviceArray], ordinal: int) -> int:
        return device(ordinal).stream

    def finish(self, stream: int) -> None:
        pass


OURS: Framework = _Copied()
