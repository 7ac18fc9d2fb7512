"""Whose GPU arrays are whose, and an array of a call as its framework describes it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NoReturn

import numpy as np

from splat_numba.errors import ArgumentTypeError, BackendError, SplatError
from splat_numba.runtime.arrays import check_readable, kind_of, on_gpu
from splat_numba.runtime.cuda.arrays import GpuArray, check_real, check_whole_elements
from splat_numba.runtime.cuda.frameworks.copied import OURS
from splat_numba.runtime.cuda.frameworks.framework import Framework
from splat_numba.runtime.cuda.frameworks.interface import CUPY, NUMBA
from splat_numba.runtime.cuda.frameworks.jax_buffers import JAX
from splat_numba.runtime.cuda.frameworks.pytorch import TORCH
from splat_numba.runtime.cuda.memory import DeviceArray


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
