"""Arrays of any framework as NumPy views, and results back as the caller's kind. No copies.

Kernels see (batch, heads, seq, dim) at any strides. float16 and bfloat16 are seen as uint16, because Numba has no
16-bit floats on CPUs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.runtime.jax_arrays import check_jax, on_cpu, to_jax
from splat_numba.runtime.tensors import check_tensor, dtype_name, refuse_negated

DLPACK_HOST = (1, 3, 11)  # the CPU's memory, and what CUDA and ROCm have pinned of it
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


# Of every framework's classes those that are arrays have this attribute: modules have other classes, too.
_MARKS = {"torch": "requires_grad", "jax": "devices", "jaxlib": "devices", "cupy": "__cuda_array_interface__"}


def kind_of(array: Any) -> str:
    """The framework whose array this is, or an object of a class derived from its, by its module's first name."""
    kind: Any = type(array)
    return _kind_of_class(kind)


@lru_cache(maxsize=1024)
def _kind_of_class(kind: Any) -> str:
    for one in kind.__mro__:
        root = str(one.__module__).partition(".")[0]
        if root in _MARKS and hasattr(kind, _MARKS[root]):
            return "jax" if root == "jaxlib" else root
    root = str(kind.__module__).partition(".")[0]
    return "" if root in _MARKS else root


def on_gpu(array: Any) -> bool:
    """Whether ``array`` is in the memory of an NVIDIA GPU, as a framework's array says."""
    if array is None or isinstance(array, np.ndarray):
        return False
    kind = type(array)  # asked instead of the array: objects of torch.fx have every attribute
    if hasattr(kind, "is_cuda"):  # PyTorch's own, and the fastest
        return bool(array.is_cuda)
    if hasattr(kind, "__dlpack_device__"):
        return _dlpack_device(array) in DLPACK_GPU
    try:
        return bool(kind_of(array)) and hasattr(array, "__cuda_array_interface__")
    except Exception:  # noqa: BLE001 - an object of the caller's may raise anything; whoever imports it refuses it
        return False


def _dlpack_device(array: Any) -> int:
    """Where an array says that it is, 0 where it does not: deleted, sharded, a tracer. Whoever imports it says why."""
    try:
        return int(array.__dlpack_device__()[0])
    except Exception:  # noqa: BLE001 - a class of the caller's may raise anything
        return 0


def import_array(name: str, array: Any) -> Array:
    """A NumPy view of ``array``, a NumPy array or a CPU array of a framework that speaks DLPack.

    A tensor whose numbers are still to be negated is copied. Raises ArgumentError for arrays that are more than
    numbers, such as masked, traced or differentiated ones, ArgumentTypeError for other objects and dtypes, BackendError
    for arrays on another device.
    """
    if isinstance(array, np.ndarray):
        if type(array) is not np.ndarray:
            check_unmasked(name, array)
            array = np.asarray(array)  # of another subclass, such as matrix, the plain array
        return _numpy_array(name, array, "numpy")
    kind = kind_of(array)
    if kind == "torch":
        return _from_torch(name, array)
    if kind == "jax":
        return _from_jax(name, array)
    return _from_dlpack(name, array, kind)


def import_out(out: Any, name: str = "out") -> Array:
    """As import_array, for an array that results are written to: it must show them."""
    if kind_of(out) == "torch":
        check_tensor(name, out)
        if out.is_neg():
            refuse_negated(name)
    return import_array(name, out)


def check_readable(name: str, array: Any) -> None:
    """Raise ArgumentError, ArgumentTypeError for an array of NumPy, PyTorch or JAX that is more than numbers."""
    kind = kind_of(array)
    if isinstance(array, np.ndarray):
        check_unmasked(name, array)
    elif kind == "torch":
        check_tensor(name, array)
    elif kind == "jax":
        check_jax(name, array)


def host_numbers(name: str, given: Any) -> NDArray[Any]:
    """What NumPy makes of a sequence or an array in CPU memory. Raises ArgumentError, ArgumentTypeError."""
    check_readable(name, given)
    try:
        return np.asarray(given)
    except Exception as error:
        raise ArgumentTypeError(
            f"{name} wanted as numbers in CPU memory, got {type(given).__name__}, of which NumPy says: {error}. "
            "Convert it to a list or a NumPy array."
        ) from error


def check_unmasked(name: str, array: Any) -> None:
    """Raise ArgumentError for a masked array of NumPy's, whose mask nothing here would look at."""
    if isinstance(array, np.ma.MaskedArray):
        raise ArgumentError(
            f"{name} wanted as a plain array, got a masked one, whose mask would be lost. Give {name}.filled(0), or "
            f"{name}.data for all of its numbers."
        )


def _refuse_object(name: str, array: Any) -> NoReturn:
    raise ArgumentTypeError(
        f"{name} wanted as an array (NumPy, or anything with DLPack), got {type(array).__name__}. "
        f"Convert it, for example with np.asarray({name}, dtype=np.float32)."
    )


def _refuse_device(name: str, where: str = "an array on another device") -> NoReturn:
    raise BackendError(f"{name} wanted in CPU memory for backend 'cpu', got {where}. Copy it first.")


def _from_torch(name: str, tensor: Any) -> Array:
    check_tensor(name, tensor)
    if not tensor.is_cpu:
        _refuse_device(name)
    dtype = dtype_name(tensor.dtype)
    if dtype not in ITEMSIZE:
        raise ArgumentTypeError(
            f"{name} wanted as {', '.join(ITEMSIZE)}, got {dtype}. Convert it, for example with {name}.float()."
        )
    numbers = tensor.detach() if tensor.requires_grad else tensor  # grad mode is off
    numbers = numbers.resolve_neg() if numbers.is_neg() else numbers
    if dtype == "bfloat16":  # NumPy has it not
        return Array(numbers.view(sys.modules["torch"].int16).numpy().view(np.uint16), dtype, "torch")
    return _numpy_array(name, numbers.numpy(), "torch")  # pinned memory, too; a quarter of from_dlpack's time


def _from_jax(name: str, array: Any) -> Array:
    check_jax(name, array)
    if not on_cpu(array):
        _refuse_device(name)
    if str(array.dtype) == "bfloat16":
        return Array(np.asarray(array).view(np.uint16), "bfloat16", "jax")
    return _numpy_array(name, np.asarray(array), "jax")


def _from_dlpack(name: str, array: Any, kind: str) -> Array:
    if not (hasattr(type(array), "__dlpack__") and hasattr(type(array), "__dlpack_device__")):
        _refuse_object(name, array)
    device = _dlpack_device(array)
    if device and device not in DLPACK_HOST:
        _refuse_device(name)
    try:
        numbers = np.from_dlpack(array)
    except Exception as error:
        raise ArgumentTypeError(
            f"{name} wanted as an array that NumPy can view by DLPack, got {type(array).__name__}, whose DLPack says: "
            f"{type(error).__name__}: {error}. Convert it, for example with np.asarray({name}, dtype=np.float32)."
        ) from error
    return _numpy_array(name, numbers, kind)


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
    whole = all([stride % array.itemsize == 0 for stride in array.strides])  # noqa: C419 - half a generator's time
    if not whole:
        raise ArgumentError(f"{name} wanted with strides of whole elements, got {array.strides}. Copy it with .copy().")
    if not array.flags.aligned:
        raise ArgumentError(
            f"{name} wanted at an address of whole elements, a multiple of {array.dtype.alignment} bytes, "
            f"got one {array.ctypes.data % array.dtype.alignment} bytes past. Copy it with .copy()."
        )
    return Array(array.view(np.uint16) if ITEMSIZE[dtype] == 2 else array, dtype, kind)


def export_array(bits: NDArray[Any], dtype: str, like: Any) -> Any:
    """``bits`` as an array of the same framework as ``like``, sharing memory; NumPy's where that has no from_dlpack."""
    if isinstance(like, np.ndarray):
        return bits if ITEMSIZE[dtype] != 2 else bits.view(_half_dtype(dtype, like))
    kind = kind_of(like)
    if kind == "torch":
        torch = sys.modules["torch"]
        if dtype == "bfloat16":
            return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(bits.view(np.float16) if dtype == "float16" else bits)
    if kind == "jax":
        return to_jax(bits.view(_half_dtype(dtype, like)) if ITEMSIZE[dtype] == 2 else bits, like)
    numbers = bits.view(np.float16) if dtype == "float16" else bits
    namespace: Any = like.__array_namespace__() if hasattr(type(like), "__array_namespace__") else sys.modules.get(kind)
    return namespace.from_dlpack(numbers) if hasattr(namespace, "from_dlpack") else numbers


def _half_dtype(dtype: str, like: Any) -> np.dtype[Any]:
    return np.dtype(np.float16) if dtype == "float16" else np.dtype(like.dtype)  # only the input knows ml_dtypes'


def empty(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """A fresh array for results, 16-bit ones as uint16."""
    return np.empty(shape, np.uint16 if ITEMSIZE[dtype] == 2 else dtype)


def check_out(out: NDArray[Any], others: dict[str, NDArray[Any]], argument: str = "out") -> None:
    """Raise ArgumentError if results cannot be written to ``out`` without harm. others: by name, what is in use."""
    if not out.flags.writeable:
        raise ArgumentError(
            f"{argument} wanted writeable, got a read-only array. "
            f"Give a fresh array, or set {argument}.flags.writeable."
        )
    if overlaps_itself(out.shape, out.strides, out.itemsize):
        raise ArgumentError(
            f"{argument} wanted with a place for every number, got strides {out.strides}. Give a fresh array."
        )
    for name, array in others.items():
        if _overlap(out, array):
            raise ArgumentError(
                f"{argument} wanted apart from the inputs, got memory that {name} uses. Give a fresh array."
            )


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # NumPy's stub knows -1 and 0 only
    except np.exceptions.TooHardError:
        return np.may_share_memory(a, b)


def overlaps_itself(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether two indices may mean one place: some axis steps less than the smaller axes together reach."""
    if 0 in shape:  # no index means any place; NumPy 2.4 gives such arrays strides of 0
        return False
    reach = itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(strides, shape, strict=True)):
        if size > 1:
            if stride < reach:
                return True
            reach += stride * (size - 1)
    return False
