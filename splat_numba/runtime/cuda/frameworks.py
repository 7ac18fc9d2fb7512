"""Whose GPU arrays are whose: what each framework says of its arrays, where it runs its work, and fresh arrays of it.

PyTorch is asked directly, which takes a microsecond; CuPy and Numba by the CUDA array interface; JAX by its buffer.
Others need the CUDA array interface, and get results from Numba.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from operator import methodcaller
from typing import Any, NoReturn, Protocol

import numpy as np

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError, SplatError
from splat_numba.runtime.arrays import check_readable, kind_of, on_gpu
from splat_numba.runtime.cuda.arrays import GpuArray, check_real, check_whole_elements, contiguous_strides
from splat_numba.runtime.cuda.device import device, device_of_pointer
from splat_numba.runtime.cuda.driver import ask, driver
from splat_numba.runtime.cuda.memory import DeviceArray
from splat_numba.runtime.jax_arrays import check_jax
from splat_numba.runtime.tensors import check_tensor, dtype_name, is_recorded, likeness, maker, refuse_negated
from splat_numba.settings import current


class Framework(Protocol):
    """What a framework's arrays are to us. ``like`` is always one of its own arrays."""

    def describe(self, name: str, array: Any) -> GpuArray:
        """Address, shape and strides. Raises ArgumentError for an array that may not be read this way."""

    def keys(self, arrays: Sequence[Any]) -> tuple[list[int], Hashable]:
        """Addresses, and everything else that describe() depends on, as fast as may be: every call asks."""

    def likeness(self, arrays: Sequence[Any]) -> Callable[[Sequence[Any]], list[int] | None] | None:
        """A faster keys() for arrays as these: their addresses, None for others. None where there is none."""

    def address(self, array: Any) -> int:
        """Of a fresh array."""

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """A fresh contiguous array on the device of ``like``."""

    def maker(self, shape: tuple[int, ...], dtype: str, like: Any) -> Callable[[Any], Any]:
        """What empty() does with this shape and dtype on this device, for calls that do it again and again. Its
        argument is an array there.
        """

    def side_by_side(self, shape: tuple[int, int, int, int], dtype: str, like: Any) -> Any:
        """A fresh array (batch, heads, rows, dim), stored as (batch, rows, heads, dim); None where views are copies."""

    def stream(self, arrays: Sequence[Any], ordinal: int) -> int:
        """The handle of the stream that work on these arrays belongs to."""

    def finish(self, stream: int) -> None:
        """Make results safe to use, where the framework does not know the stream."""


def framework_of(array: Any) -> Framework | None:
    """The framework that an array belongs to; None for what is no GPU array of any."""
    try:
        return _FRAMEWORKS[type(array)]
    except KeyError:
        kind = "ours" if isinstance(array, DeviceArray) else kind_of(array)
        by_kind: dict[str, Framework] = {"torch": TORCH, "cupy": CUPY, "jax": JAX, "ours": OURS}
        found = by_kind.get(kind)
        if found is None and kind and hasattr(array, "__cuda_array_interface__"):  # a tensor with a gradient has none
            found = NUMBA
        _FRAMEWORKS[type(array)] = found
        return found


_FRAMEWORKS: dict[type, Framework | None] = {}


def known_framework(name: str, array: Any) -> Framework:
    """The framework of a GPU array. Raises BackendError for one on the CPU, ArgumentTypeError for unknown kinds."""
    found = framework_of(array)
    if found is None or (found is not OURS and not on_gpu(array)):
        _refuse_elsewhere(name, array)
    return found


def known_keys(arrays: Sequence[Any], framework: Framework) -> tuple[list[int], Hashable] | None:
    """Framework.keys(); None where some array is another framework's or cannot be read, which the checks then name."""
    known = _FRAMEWORKS.get
    for one in arrays:
        if known(type(one)) is not framework and framework_of(one) is not framework:
            return None
    try:
        return framework.keys(arrays)
    except (SplatError, RuntimeError):  # RuntimeError: of PyTorch and JAX, for what has no memory
        return None


def _refuse_elsewhere(name: str, array: Any) -> NoReturn:
    check_readable(name, array)
    if on_gpu(array):
        raise ArgumentTypeError(
            f"{name} wanted as an array of PyTorch, CuPy, JAX or one with the CUDA array interface, got "
            f"{type(array).__module__}.{type(array).__name__}. Convert it, for example with torch.from_dlpack({name})."
        )
    kind = "a NumPy array" if isinstance(array, np.ndarray) else f"one of type {type(array).__name__} elsewhere"
    raise BackendError(
        f"{name} wanted in GPU memory for backend 'cuda', got {kind}. Copy it there, or give q, k and v as NumPy "
        "arrays, which are copied there and back."
    )


def describe(name: str, array: Any, framework: Framework, first: str = "q") -> GpuArray:
    """An array of the same framework as the call's ``first``. Raises ArgumentTypeError for another's, BackendError for
    one on the CPU.
    """
    if known_framework(name, array) is not framework:
        raise ArgumentTypeError(
            f"{name} wanted as an array of the framework of {first}, got "
            f"{type(array).__module__}.{type(array).__name__}. Convert it with that framework's from_dlpack."
        )
    return framework.describe(name, array)


def describe_operand(name: str, array: Any, framework: Framework, first: str = "q") -> GpuArray:
    """An operand on a GPU. Raises ArgumentError, ArgumentTypeError, BackendError for what kernels cannot read."""
    found = describe(name, array, framework, first)
    check_real(name, found.dtype)
    check_whole_elements(name, found)
    return found


class _Makers:
    """What has nothing to prepare."""

    def likeness(self, _arrays: Sequence[Any]) -> None:
        return None

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        raise NotImplementedError

    def maker(self, shape: tuple[int, ...], dtype: str, _like: Any) -> Callable[[Any], Any]:
        return lambda like: self.empty(shape, dtype, like)


class _Torch:
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


class _Interface(_Makers):
    """Arrays with the CUDA array interface, which has no bfloat16."""

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


class _Jax(_Makers):
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


class _Ours(_Makers):
    """NumPy arrays after they were copied to the GPU."""

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


@lru_cache(maxsize=1024)
def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements of a tensor in C order, as PyTorch has them: an empty axis counts as one element."""
    return contiguous_strides(tuple(max(size, 1) for size in shape), 1)


TORCH: Framework = _Torch()
NUMBA: Framework = _Interface()
CUPY: Framework = _CuPy()
JAX: Framework = _Jax()
OURS: Framework = _Ours()
