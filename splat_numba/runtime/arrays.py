"""Arrays of any framework as NumPy views, and results back as the caller's kind. No copies.

Kernels see (batch, heads, seq, dim) at any strides. float16 and bfloat16 are seen as uint16, because Numba has no
16-bit floats on CPUs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.gen.problem import ITEMSIZE

DLPACK_CPU = 1
DLPACK_GPU = (2, 13)  # CUDA, and CUDA managed memory


@dataclass(frozen=True, slots=True)
class Array:
    """bits: the numbers, 16-bit ones as uint16; dtype: their name; kind: the framework's module name."""

    bits: NDArray[Any]
    dtype: str
    kind: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape, as the caller laid it out."""
        return self.bits.shape


def on_gpu(array: Any) -> bool:
    """Whether ``array`` is in the memory of an NVIDIA GPU, as a framework's array says."""
    if array is None or isinstance(array, np.ndarray):
        return False
    if hasattr(array, "is_cuda"):  # PyTorch's own, and the fastest
        return bool(array.is_cuda)
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[0]) in DLPACK_GPU
    return hasattr(array, "__cuda_array_interface__")


def import_array(name: str, array: Any) -> Array:
    """A NumPy view of ``array``, a NumPy array or a CPU array of a framework that speaks DLPack.

    Raises ArgumentTypeError for other objects and dtypes, BackendError for arrays on another device.
    """
    kind = type(array).__module__.partition(".")[0]
    if isinstance(array, np.ndarray):
        return _numpy_array(name, array, "numpy")
    if not hasattr(array, "__dlpack__"):
        raise ArgumentTypeError(
            f"{name} wanted as an array (NumPy, or anything with DLPack), got {type(array).__name__}. "
            f"Convert it, for example with np.asarray({name}, dtype=np.float32)."
        )
    if int(array.__dlpack_device__()[0]) != DLPACK_CPU:
        raise BackendError(
            f"{name} wanted in CPU memory for backend 'cpu', got an array on another device. Copy it first."
        )
    if kind == "torch":
        check_no_autograd(name, array)
        if str(array.dtype) == "torch.bfloat16":  # DLPack has it, NumPy has not
            return Array(np.from_dlpack(array.view(sys.modules["torch"].int16)).view(np.uint16), "bfloat16", kind)
    if kind in ("jaxlib", "jax") and str(array.dtype) == "bfloat16":
        return Array(np.asarray(array).view(np.uint16), "bfloat16", "jax")
    return _numpy_array(name, np.from_dlpack(array), "jax" if kind == "jaxlib" else kind)


def check_no_autograd(name: str, tensor: Any) -> None:
    """Raise ArgumentError for a PyTorch tensor whose gradient autograd would look for in vain."""
    if tensor.requires_grad:
        raise ArgumentError(
            f"{name} wanted without requires_grad, since autograd does not see into this call. Give {name}.detach(); "
            "gradients come from flurka_numba's functions that end in _vjp."
        )


@cache
def _dtype_name(dtype: np.dtype[Any]) -> str | None:
    """The name of a dtype that kernels can read; NumPy builds a dtype's name anew each time, in 5 microseconds."""
    return dtype.name if dtype.isnative and dtype.name in ITEMSIZE else None


def _numpy_array(name: str, array: NDArray[Any], kind: str) -> Array:
    dtype = _dtype_name(array.dtype)
    if dtype is None:
        raise ArgumentTypeError(
            f"{name} wanted as {', '.join(ITEMSIZE)} in native byte order, got {array.dtype}. "
            f"Convert it, for example with {name}.astype(np.float32)."
        )
    if any(stride % array.itemsize for stride in array.strides) or not array.flags.aligned:
        raise ArgumentError(f"{name} wanted with strides of whole elements, got {array.strides}. Copy it with .copy().")
    return Array(array.view(np.uint16) if ITEMSIZE[dtype] == 2 else array, dtype, kind)


def export_array(bits: NDArray[Any], dtype: str, like: Any) -> Any:
    """``bits`` as an array of the same framework as ``like``, sharing memory."""
    if isinstance(like, np.ndarray):
        return bits if ITEMSIZE[dtype] != 2 else bits.view(_half_dtype(dtype, like))
    kind = type(like).__module__.partition(".")[0]
    if kind == "torch":
        torch = sys.modules["torch"]
        if dtype == "bfloat16":
            return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(bits.view(np.float16) if dtype == "float16" else bits)
    if kind in ("jax", "jaxlib"):
        numbers = bits.view(_half_dtype(dtype, like)) if ITEMSIZE[dtype] == 2 else bits
        return sys.modules["jax"].numpy.asarray(numbers)
    return sys.modules[kind].from_dlpack(bits.view(np.float16) if dtype == "float16" else bits)


def _half_dtype(dtype: str, like: Any) -> np.dtype[Any]:
    return np.dtype(np.float16) if dtype == "float16" else np.dtype(like.dtype)  # only the input knows ml_dtypes'


def narrow(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint16]:
    """float32 numbers rounded to the bits of a 16-bit type, to nearest, ties to even."""
    if dtype == "float16":
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(np.float16).view(np.uint16)
    word = values.view(np.uint32)
    rounded = word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))
    quiet = word | np.uint32(0x400000)
    return (np.where(np.isnan(values), quiet, rounded) >> np.uint32(16)).astype(np.uint16)


def empty(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """A fresh array for results, 16-bit ones as uint16."""
    return np.empty(shape, np.uint16 if ITEMSIZE[dtype] == 2 else dtype)


def check_out(out: NDArray[Any], inputs: dict[str, NDArray[Any]]) -> None:
    """Raise ArgumentError if results cannot be written to ``out`` without harm."""
    if not out.flags.writeable:
        raise ArgumentError(
            "out wanted writeable, got a read-only array. Give a fresh array, or set out.flags.writeable."
        )
    if overlaps_itself(out.shape, out.strides, out.itemsize):
        raise ArgumentError(f"out wanted with a place for every number, got strides {out.strides}. Give a fresh array.")
    for name, array in inputs.items():
        if _overlap(out, array):
            raise ArgumentError(f"out wanted apart from the inputs, got memory that {name} uses. Give a fresh array.")


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # NumPy's stub knows -1 and 0 only
    except np.exceptions.TooHardError:
        return np.may_share_memory(a, b)


def overlaps_itself(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether two indices may mean one place: some axis steps less than the smaller axes together reach."""
    reach = itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(strides, shape, strict=True)):
        if size > 1:
            if stride < reach:
                return True
            reach += stride * (size - 1)
    return False
