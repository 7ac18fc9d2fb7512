"""PyTorch's tensors, asked directly, which takes a microsecond."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from operator import methodcaller
from typing import Any

from splat_numba.runtime.cuda.arrays import GpuArray, contiguous_strides
from splat_numba.runtime.cuda.frameworks.framework import Framework
from splat_numba.runtime.tensors import check_tensor, dtype_name, is_recorded, likeness, maker, refuse_negated


class _PyTorch:
    """Tensors in GPU memory."""

    def describe(self, name: str, array: Any) -> GpuArray:
        check_tensor(name, array)
        if array.is_neg():
            refuse_negated(name)
        size = array.element_size()
        strides = tuple(step * size for step in array.stride())
        dtype = dtype_name(array.dtype)
        return GpuArray(array.data_ptr(), tuple(array.shape), strides, dtype, array.device.index, "torch")

    def keys(self, arrays: Sequence[Any]) -> tuple[list[int], Hashable]:
        if is_recorded():
            for array in arrays:
                check_tensor("array", array)
        recorded = sys.modules["torch"].is_grad_enabled()
        places = [array.data_ptr() for array in arrays]
        return places, (
            0 in places,  # of an empty tensor, or of one without memory, whose sizes may be those of an earlier one
            *[
                (array.shape, array.stride(), array.dtype, array.get_device(), array.is_neg(),
                 recorded and array.requires_grad)
                for array in arrays
            ],
        )  # fmt: skip

    def likeness(self, arrays: Sequence[Any]) -> Callable[[Sequence[Any]], list[int] | None] | None:
        return likeness(arrays)

    address = staticmethod(methodcaller("data_ptr"))  # no function of Python's: calls ask it of each of their results

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        # 1.0 us; torch.empty() and new_empty() take 1.4, as they try another signature of theirs first.
        torch = sys.modules["torch"]
        return torch.empty_strided(shape, _steps(shape), dtype=getattr(torch, dtype), device=like.device)

    def maker(self, shape: tuple[int, ...], dtype: str, like: Any) -> Callable[[Any], Any]:
        return maker(shape, _steps(shape), getattr(sys.modules["torch"], dtype), like.device)

    def side_by_side(self, shape: tuple[int, int, int, int], dtype: str, like: Any) -> Any:
        torch, (_, heads, rows, dim) = sys.modules["torch"], shape
        steps = rows * heads * dim, dim, heads * dim, 1
        return torch.empty_strided(shape, steps, dtype=getattr(torch, dtype), device=like.device)

    def stream(self, arrays: Sequence[Any], ordinal: int) -> int:
        # torch.cuda.current_stream() makes an object; this is what Triton's launcher asks.
        return int(sys.modules["torch"]._C._cuda_getCurrentRawStream(ordinal))  # noqa: SLF001

    def finish(self, stream: int) -> None:
        pass


@lru_cache(maxsize=1024)
def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements of a tensor in C order, as PyTorch has them: an empty axis counts as one element."""
    return contiguous_strides(tuple(max(size, 1) for size in shape), 1)


TORCH: Framework = _PyTorch()
