"""JAX's arrays: which of them are numbers in one place, and results as fresh ones. JAX is never imported here."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError


def is_traced(*arrays: Any) -> bool:
    """Whether JAX is at work on one of the arguments: under jit, grad, vmap and other transforms. 0.5 us at most."""
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "core"):  # another thread may be importing it
        return False
    return any(isinstance(one, jax.core.Tracer) for one in arrays)


def check_jax(name: str, array: Any, *, one_device: bool = True) -> None:
    """Raise ArgumentError, ArgumentTypeError, BackendError for what is no array of numbers in one place."""
    jax = sys.modules["jax"]
    if isinstance(array, jax.core.Tracer):
        raise ArgumentError(
            f"{name} wanted as an array, got JAX's {type(array).__name__}: jit, grad, vmap and other transforms see "
            "into splat_numba.attention and flurka_numba's functions without _vjp. Call this outside them, or within "
            "jit by jax.pure_callback; instead of vmap give a batch axis."
        )
    if not isinstance(array, jax.Array) or not hasattr(array, "__dlpack__"):
        raise ArgumentTypeError(f"{name} wanted as an array of numbers, got JAX's {type(array).__name__}. Convert it.")
    if array.is_deleted():
        raise ArgumentError(
            f"{name} wanted with its numbers, got a deleted array of JAX. Give one that still has them."
        )
    if one_device and len(array.devices()) != 1:
        raise BackendError(
            f"{name} wanted on one device, got one sharded over {len(array.devices())}. Gather it, for example with "
            f"jax.device_put({name}, jax.devices()[0])."
        )


def on_cpu(array: Any) -> bool:
    """Whether a checked array is in CPU memory."""
    return platform_of(array) == "cpu"


def platform_of(array: Any) -> str:
    """Where a checked array is, in JAX's word."""
    return str(next(iter(array.devices())).platform)


def to_jax(numbers: NDArray[Any], like: Any) -> Any:
    """An array where ``like`` is. float64 stays what it is outside x64 mode, too, where JAX makes float32 of it."""
    jax = sys.modules["jax"]
    with jax.default_device(next(iter(like.devices()))):
        if numbers.dtype != np.float64 or jax.config.jax_enable_x64:
            return jax.numpy.asarray(numbers)
        with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
            return jax.numpy.asarray(numbers)
