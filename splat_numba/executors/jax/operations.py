"""What operations of JAX have in common here: what its transforms make of one, traced arguments, foreign calls.

JAX is imported here, so that only those who have its arrays import this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from splat_numba.arguments.options import check_kv_lengths, check_lengths_kind
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.executors.jax.manual import result_type
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.runtime.jax_arrays import check_jax, is_traced, platform_of
from splat_numba.runtime.xla.recorder import XlaCall
from splat_numba.runtime.xla.register import target_of
from splat_numba.settings import Settings

NO_FORWARD_MODE = (
    "q, k and v wanted without tangents: attention has no forward-mode derivative in JAX (jvp, jacfwd, linearize, "
    "hessian). Take first derivatives by grad, vjp or jacrev."
)
NO_SECOND = (
    "q, k and v wanted to be differentiated once, got a derivative of attention's gradient (grad of grad, hessian), "
    "which has none in this version. Take first derivatives by grad, vjp or jacrev."
)


@dataclass(frozen=True, slots=True)
class Traced:
    """An array as JAX knows it while it traces."""

    shape: tuple[int, ...]
    dtype: str


def operation(
    name: str, forward: Callable[..., Any], backward: Callable[..., Any], differentiated: int, *, keeps_results: bool
) -> Any:
    """A function of JAX's arrays that gives forward(*arrays), differentiable once, in reverse mode.

    backward: (*arrays, *results where they are kept, *gradients of the results) -> gradients of the first
    ``differentiated`` arrays; the others, such as lengths, have none. Both give tuples.
    """
    forward_once, backward_once = undifferentiable(forward, NO_SECOND), undifferentiable(backward, NO_SECOND)

    def run(*arrays: Any) -> Any:
        return forward(*arrays)

    def keep(*arrays: Any) -> Any:
        results = forward_once(*arrays)
        return results, (arrays, results if keeps_results else ())

    def back(kept: Any, gradients: Any) -> Any:
        arrays, results = kept
        found = backward_once(*arrays, *results, *gradients)
        return (*found, *(None for _ in arrays[differentiated:]))

    run.__name__ = name
    differentiable = jax.custom_vjp(run)
    differentiable.defvjp(keep, back)
    return jax.jit(differentiable)  # so that equal layers of a model are traced once, and a call outside jit is cheap


def undifferentiable(run: Callable[..., Any], reason: str) -> Any:
    """The function, with a reason where its derivative is asked for. Raises ArgumentError there."""
    guarded = jax.custom_jvp(run)

    @guarded.defjvp
    def refuse(*_given: Any) -> Any:
        raise ArgumentError(reason)

    return guarded


@contextmanager
def forward_mode_refused() -> Iterator[None]:
    """Raise ArgumentError, with the reason, where JAX finds that a derivative in forward mode is asked for."""
    try:
        yield
    except TypeError as error:
        if "forward-mode" in str(error):
            raise ArgumentError(NO_FORWARD_MODE) from error
        raise


def folded(run: Callable[..., Any], common: frozenset[int] = frozenset(), *, apart: bool = False) -> Any:
    """A function of arrays with a batch axis in front, of which a mapped axis becomes a part.

    common: places of arguments without a batch axis. Where one of them is mapped, entries are taken one by one, and so
    they are if ``apart``, since a result has no batch axis.
    """
    once = custom_vmap(run)

    @once.def_vmap
    def fold(axis_size: int, mapped: Any, *arrays: Any) -> Any:
        if apart or any(mapped[place] for place in common):
            return _one_by_one(once, mapped, arrays)
        whole = [
            one if of_call or place in common else jnp.broadcast_to(one, (axis_size, *one.shape))
            for place, (one, of_call) in enumerate(zip(arrays, mapped, strict=True))
        ]
        batch = whole[0].shape[1]
        results = once(
            *(
                one if place in common else one.reshape(axis_size * batch, *one.shape[2:])
                for place, one in enumerate(whole)
            )
        )
        return tuple(one.reshape(axis_size, batch, *one.shape[1:]) for one in results), (True,) * len(results)

    return once


def _one_by_one(once: Callable[..., Any], mapped: Any, arrays: Any) -> Any:
    """The results for each entry of the mapped axis, in a loop."""

    def of_entry(own: Any) -> Any:
        entries = iter(own)
        whole = (next(entries) if of_call else one for one, of_call in zip(arrays, mapped, strict=True))
        return once(*whole)

    own = [one for one, of_call in zip(arrays, mapped, strict=True) if of_call]
    results = jax.lax.map(of_entry, own)
    return results, (True,) * len(results)


def called(name: str, kinds: Any, arrays: Any) -> tuple[Any, ...]:
    """The results, of these shapes and dtypes, of a foreign function call."""
    types = [result_type(shape, dtype, arrays) for shape, dtype in kinds]
    return tuple(jax.ffi.ffi_call(name, types)(*arrays))


def registered(label: str, call: XlaCall, settings: Settings, threads: int) -> tuple[str, list[Any]]:
    """XLA's name of a program, and the result that is its scratch memory, if it wants any."""
    name = target_of(label, call.program, settings, threads)
    return name, [((call.scratch,), np.uint8)] if call.scratch else []


PLATFORMS = ("cpu", "gpu")  # as JAX's devices name them


def described(name: str, array: Any) -> Traced:
    """An argument's shape and dtype. Raises ArgumentError, ArgumentTypeError, BackendError for what has none."""
    if not isinstance(array, (np.ndarray, jax.Array)) or isinstance(array, np.ma.MaskedArray):
        raise ArgumentTypeError(
            f"{name} wanted as an array of JAX or NumPy, got {type(array).__name__}. Convert it with "
            f"jax.numpy.asarray({name})."
        )
    if isinstance(array, jax.Array) and not is_traced(array):
        check_jax(name, array, one_device=False)
        if (where := platform_of(array)) not in PLATFORMS:
            raise BackendError(
                f"{name} wanted in memory of a CPU or an NVIDIA GPU, got an array on {where}. Copy it with "
                "jax.device_put."
            )
    if not all(isinstance(size, int) for size in array.shape):
        raise ArgumentError(
            f"{name} wanted with known sizes, got shape {array.shape}. Export for sizes that are numbers."
        )
    dtype = str(array.dtype)
    if dtype not in ITEMSIZE:
        raise ArgumentTypeError(
            f"{name} wanted as {', '.join(ITEMSIZE)}, got {dtype}. "
            f"Convert it, for example with {name}.astype(jax.numpy.float32)."
        )
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise ArgumentTypeError(
            f"{name} wanted as a type that JAX keeps, got float64, which it makes float32 of. Convert {name} to "
            "float32, or set jax_enable_x64."
        )
    return Traced(tuple(array.shape), dtype)


def lengths_of(kv_lengths: Any, problem: Any, axes: int) -> Any:
    """Key lengths as int32. Those that are known are checked here, and others when they are read.

    problem: with batch and seq_kv; axes: of the caller's q.
    """
    if not is_traced(kv_lengths):
        return jnp.asarray(check_kv_lengths(kv_lengths, problem, axes), jnp.int32)
    integers = jnp.issubdtype(kv_lengths.dtype, jnp.integer)
    check_lengths_kind(tuple(kv_lengths.shape), str(kv_lengths.dtype), bool(integers), problem, axes)
    if jnp.iinfo(kv_lengths.dtype).max > jnp.iinfo(jnp.int32).max:  # wider ones must not wrap into range
        kv_lengths = jnp.minimum(kv_lengths, problem.seq_kv + 1)
        if jnp.issubdtype(kv_lengths.dtype, jnp.signedinteger):
            kv_lengths = jnp.maximum(kv_lengths, -1)
    return kv_lengths.astype(jnp.int32)
