"""Arguments that are on a GPU, of both packages: arrays as tensors of a schedule, and key lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from splat_numba.arguments.layouts import bhsd_axes
from splat_numba.arguments.options import Lengths, check_kv_lengths, check_lengths_kind
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.runtime.arrays import on_gpu
from splat_numba.runtime.cuda.arrays import GpuArray, check_device
from splat_numba.runtime.cuda.copies import place_as, place_host
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import Framework, describe
from splat_numba.settings import Settings


def tensor_of(name: str, array: GpuArray, layout: str = "bhsd") -> Tensor:
    """Sizes and strides as (batch, heads, seq, dim), in a buffer of that name; axes that are missing have one place."""
    sizes, strides = bhsd_axes(array.shape, layout, 1), bhsd_axes(array.strides, layout, 0)
    return Tensor(sizes, strides, array.dtype, name)


def check_call_lengths(kv_lengths: Any, problem: Lengths, axes: int, framework: Framework) -> None:
    """Key lengths of the host are checked in full, those on a GPU by shape and dtype: their values are not read.

    axes: of the caller's q. Raises ArgumentError, ArgumentTypeError.
    """
    if on_gpu(kv_lengths):
        _describe_lengths(kv_lengths, problem, axes, framework)
    else:
        check_kv_lengths(kv_lengths, problem, axes)


def _describe_lengths(kv_lengths: Any, problem: Lengths, axes: int, framework: Framework) -> GpuArray:
    """Those on a GPU, int32 or int64 (batch,). Raises as check_call_lengths()."""
    found = describe("kv_lengths", kv_lengths, framework)
    check_lengths_kind(found.shape, found.dtype, found.dtype in ("int32", "int64"), problem, axes)
    return found


def place_lengths(
    kv_lengths: Any, problem: Lengths, axes: int, gpu: Device, framework: Framework, like: Any, stream: int,
    settings: Settings,
) -> tuple[int, Any]:  # fmt: skip
    """The address of the key lengths as int32 on the device, and what keeps them there. Raises as the check, and
    BackendError for those on another GPU.

    settings: those of the call's kernels.
    """
    if not on_gpu(kv_lengths):
        words = check_kv_lengths(kv_lengths, problem, axes).astype(np.int32)
        return place_host("lengths", words, gpu, stream), None
    found = _describe_lengths(kv_lengths, problem, axes, framework)
    check_device("kv_lengths", found, gpu.ordinal)
    return place_as(found, "int32", kv_lengths, gpu, framework, like, stream, settings)
