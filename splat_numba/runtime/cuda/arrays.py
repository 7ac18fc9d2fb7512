"""GPU arrays as addresses and strides, and what kernels ask of them. No copies here, and nothing of frameworks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.runtime.arrays import overlaps_itself
from splat_numba.runtime.cuda.overlap import share_elements


@dataclass(frozen=True, slots=True)
class GpuArray:
    """pointer: device address; shape; strides: bytes; dtype: its name; device: number; kind: the framework's name."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    device: int
    kind: str
    read_only: bool = False


def check_whole_elements(name: str, array: GpuArray) -> None:
    """Raise ArgumentError for numbers that are not where numbers of their size can be read."""
    size = ITEMSIZE[array.dtype]
    if any(stride % size for stride in array.strides):
        raise ArgumentError(f"{name} wanted with strides of whole elements, got {array.strides}. Copy it.")
    if past := array.pointer % size:
        raise ArgumentError(
            f"{name} wanted at an address of whole elements, a multiple of {size} bytes, got one {past} bytes past. "
            "Copy it."
        )


def check_real(name: str, dtype: str) -> None:
    """Raise ArgumentTypeError for other than floating-point numbers. Which of them a call takes is its target's."""
    if dtype not in ITEMSIZE:
        raise ArgumentTypeError(
            f"{name} wanted as float16, bfloat16, float32 or float64 for backend 'cuda', got {dtype}. "
            "Convert it, or give backend='cpu' with arrays there."
        )


def check_same_device(arrays: dict[str, GpuArray], name_of_first: str = "q") -> None:
    """Raise BackendError for operands on different GPUs."""
    for name, array in arrays.items():
        check_device(name, array, arrays[name_of_first].device, name_of_first)


def check_device(name: str, array: GpuArray, device: int, name_of_first: str = "q") -> None:
    """Raise BackendError for an array that is not on the GPU that the first one is on."""
    if array.device != device:
        raise BackendError(
            f"{name} wanted on GPU {device} as {name_of_first} is, got one on GPU {array.device}. Copy it there."
        )


def check_gpu_out(out: GpuArray, inputs: dict[str, GpuArray], argument: str = "out") -> None:
    """Raise ArgumentError if results cannot be written to ``out`` without harm: the rule of the CPU, on addresses."""
    if out.read_only:
        raise ArgumentError(f"{argument} wanted writeable, got a read-only array. Give a fresh array.")
    if overlaps_itself(out.shape, out.strides, ITEMSIZE[out.dtype]):
        raise ArgumentError(
            f"{argument} wanted with a place for every number, got strides {out.strides}. Give a fresh array."
        )
    for name, array in inputs.items():
        if share_elements(out.pointer, out.shape, out.strides, array.pointer, array.shape, array.strides):
            raise ArgumentError(
                f"{argument} wanted apart from the inputs, got memory that {name} uses. Give a fresh array."
            )


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array in C order."""
    steps = [itemsize]
    for size in reversed(shape[1:]):
        steps.append(steps[-1] * size)
    return tuple(reversed(steps))


def contiguous_array(shape: tuple[int, ...], dtype: str, device: int, pointer: int = 0, kind: str = "") -> GpuArray:
    """One in C order, at an address or as it will be made."""
    return GpuArray(pointer, shape, contiguous_strides(shape, ITEMSIZE[dtype]), dtype, device, kind)


Reach = tuple[int, int]


def reach_of(array: GpuArray) -> Reach:
    """Bytes from an array's address to its first byte, and past its last one."""
    if 0 in array.shape:
        return 0, 0
    steps = [step * (size - 1) for step, size in zip(array.strides, array.shape, strict=True)]
    return sum(step for step in steps if step < 0), sum(step for step in steps if step > 0) + ITEMSIZE[array.dtype]


def apart(addresses: Sequence[int], reach: Sequence[Reach]) -> bool:
    """Whether the bytes of the last array and those of the others are in separate ranges."""
    low, high = (addresses[-1] + end for end in reach[-1])
    for place, (first, last) in zip(addresses[:-1], reach[:-1], strict=True):
        if low < place + last and place + first < high:
            return False
    return True
