"""GPU arrays as addresses and strides, and what kernels ask of them. No copies here, and nothing of frameworks."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.gen.instructions import MATRIX_TYPE
from splat_numba.gen.problem import ITEMSIZE
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
    if any(stride % size for stride in array.strides) or array.pointer % size:
        raise ArgumentError(f"{name} wanted with strides of whole elements, got {array.strides}. Copy it.")


def check_operand_dtype(name: str, dtype: str) -> None:
    """Raise ArgumentTypeError for a dtype that the GPU's kernels cannot multiply."""
    if dtype not in MATRIX_TYPE:
        raise ArgumentTypeError(
            f"{name} wanted as float16 or bfloat16 for backend 'cuda', got {dtype}. "
            "Convert it, or give backend='cpu' with arrays there."
        )


def check_same_device(arrays: dict[str, GpuArray]) -> None:
    """Raise BackendError for operands on different GPUs."""
    first = arrays["q"]
    for name, array in arrays.items():
        if array.device != first.device:
            raise BackendError(
                f"{name} wanted on GPU {first.device} as q is, got one on GPU {array.device}. Copy it there."
            )


def check_gpu_out(out: GpuArray, inputs: dict[str, GpuArray]) -> None:
    """Raise ArgumentError if results cannot be written to ``out`` without harm: the rule of the CPU, on addresses."""
    if out.read_only:
        raise ArgumentError("out wanted writeable, got a read-only array. Give a fresh array.")
    if overlaps_itself(out.shape, out.strides, ITEMSIZE[out.dtype]):
        raise ArgumentError(f"out wanted with a place for every number, got strides {out.strides}. Give a fresh array.")
    for name, array in inputs.items():
        if share_elements(out.pointer, out.shape, out.strides, array.pointer, array.shape, array.strides):
            raise ArgumentError(f"out wanted apart from the inputs, got memory that {name} uses. Give a fresh array.")


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array in C order."""
    steps = [itemsize]
    for size in reversed(shape[1:]):
        steps.append(steps[-1] * size)
    return tuple(reversed(steps))
