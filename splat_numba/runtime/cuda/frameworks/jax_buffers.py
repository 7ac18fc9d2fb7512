"""JAX's arrays outside its transforms, by the address of their buffer."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import Any

from splat_numba.runtime.cuda.arrays import GpuArray, contiguous_strides
from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.driver import ask, driver
from splat_numba.runtime.cuda.frameworks.framework import Framework
from splat_numba.runtime.jax_arrays import check_jax


class _Jax(Framework):
    """JAX has no stream to share: its inputs are waited for, and so is the kernel."""

    def describe(self, name: str, array: Any) -> GpuArray:
        check_jax(name, array)
        ordinal = int(array.__dlpack_device__()[1])
        shape, dtype = tuple(array.shape), array.dtype
        strides = contiguous_strides(shape, dtype.itemsize)
        return GpuArray(int(array.unsafe_buffer_pointer()), shape, strides, dtype.name, ordinal, "jax")

    def keys(self, arrays: Sequence[Any]) -> tuple[list[int], Hashable]:
        found = [self.describe("array", array) for array in arrays]
        return [one.pointer for one in found], tuple((one.shape, one.dtype, one.device) for one in found)

    def address(self, array: Any) -> int:
        return int(array.unsafe_buffer_pointer())

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        fresh = sys.modules["jax"].numpy.empty(shape, dtype, device=next(iter(like.devices())))
        return fresh.block_until_ready()  # JAX fills it with zeros, in an order that is not ours

    def side_by_side(self, shape: tuple[int, int, int, int], dtype: str, like: Any) -> Any:
        return None

    def stream(self, arrays: Sequence[Any], ordinal: int) -> int:
        sys.modules["jax"].block_until_ready(list(arrays))
        return device(ordinal).stream

    def finish(self, stream: int) -> None:
        ask(driver().cuStreamSynchronize, stream)


JAX: Framework = _Jax()
