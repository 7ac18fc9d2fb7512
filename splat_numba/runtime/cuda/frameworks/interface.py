"""Arrays with the CUDA array interface: CuPy's, Numba's, and those of packages that get results from Numba."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from splat_numba.errors import ArgumentError
from splat_numba.runtime.cuda.arrays import GpuArray, contiguous_strides
from splat_numba.runtime.cuda.device import device, device_of_pointer
from splat_numba.runtime.cuda.driver import ask, driver
from splat_numba.runtime.cuda.frameworks.framework import Framework
from splat_numba.settings import current


class _Interface(Framework):
    """Any package's, which get results from Numba. The interface has no bfloat16."""

    kind = "numba"

    def describe(self, name: str, array: Any) -> GpuArray:
        facts = array.__cuda_array_interface__
        if facts.get("mask") is not None:
            raise ArgumentError(f"{name} wanted without a mask of its own, got one. Give the plain array.")
        pointer, read_only = facts["data"]
        shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
        strides = facts.get("strides")
        steps = tuple(strides) if strides is not None else contiguous_strides(shape, dtype.itemsize)
        ordinal = self.ordinal(array, int(pointer))
        return GpuArray(int(pointer), shape, steps, dtype.name, ordinal, self.kind, bool(read_only))

    def ordinal(self, array: Any, pointer: int) -> int:
        return device_of_pointer(pointer)

    def keys(self, arrays: Sequence[Any]) -> tuple[list[int], Hashable]:
        found = [self.describe("array", array) for array in arrays]
        return [one.pointer for one in found], tuple(
            (one.shape, one.strides, one.dtype, one.device, one.read_only) for one in found
        )

    def address(self, array: Any) -> int:
        return int(array.__cuda_array_interface__["data"][0])

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """Of the package that compiles, whoever's ``like`` is: the other one may be missing, or not work here."""
        from splat_numba.runtime.cuda.compilers.compiler import chosen

        pointer, _ = like.__cuda_array_interface__["data"]
        with device(self.ordinal(like, int(pointer))).current():
            return chosen(current().cuda_compiler).dialect().cuda.device_array(shape, np.dtype(dtype))

    def side_by_side(self, shape: tuple[int, int, int, int], dtype: str, like: Any) -> Any:
        return None

    def stream(self, arrays: Sequence[Any], ordinal: int) -> int:
        """The default stream, once the streams that the arrays name are done."""
        for array in arrays:
            named = array.__cuda_array_interface__.get("stream")
            if named is not None and int(named) > 1:  # 1 is the default stream itself
                ask(driver().cuStreamSynchronize, int(named))
        return 0

    def finish(self, stream: int) -> None:
        pass


class _CuPy(_Interface):
    """CuPy's, which know their device, and get results from CuPy."""

    kind = "cupy"

    def ordinal(self, array: Any, pointer: int) -> int:
        return int(array.device.id)

    def keys(self, arrays: Sequence[Any]) -> tuple[list[int], Hashable]:
        return [array.data.ptr for array in arrays], tuple(
            [(array.shape, array.strides, array.dtype, array.device.id) for array in arrays]
        )

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        with like.device:
            return sys.modules["cupy"].empty(shape, dtype)

    def side_by_side(self, shape: tuple[int, int, int, int], dtype: str, like: Any) -> Any:
        batch, heads, rows, dim = shape
        return self.empty((batch, rows, heads, dim), dtype, like).swapaxes(1, 2)

    def stream(self, arrays: Sequence[Any], ordinal: int) -> int:
        return int(sys.modules["cupy"].cuda.get_current_stream(ordinal).ptr)


NUMBA: Framework = _Interface()
CUPY: Framework = _CuPy()
