"""attention inside JAX: an operation that its transforms know, run by XLA through machine code on the CPU.

JAX is imported here, so that only those who have its arrays import this. What a transform sees: `custom_vjp` with the
residuals q, k, v, out and lse; within it `custom_vmap`, which makes a mapped axis part of the batch; within that
`custom_partitioning`, which leaves parts of the batch and of the heads where they are; and then a foreign function
call, whose target is a program of `executors.xla_programs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from splat_numba.arguments.layouts import bhsd_axes
from splat_numba.arguments.masks import Mask, split_heads, store_mask
from splat_numba.arguments.options import check_kv_lengths, check_lengths_kind, check_scale
from splat_numba.arguments.results import result_shape
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.executors.jax_manual import differ, made_alike, result_type
from splat_numba.executors.jax_sharding import BACKWARD, FORWARD, Split, partitioned
from splat_numba.executors.operands import check_operands
from splat_numba.executors.xla_programs import backward_call, forward_call
from splat_numba.gen.problem import ITEMSIZE, Problem
from splat_numba.runtime.device import cores
from splat_numba.runtime.jax_arrays import check_jax, is_traced, on_cpu
from splat_numba.runtime.xla.register import target_of
from splat_numba.settings import Settings, current

TARGET = "splat_numba_cpu_attention"
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


def attend(recipe: Any, q: Any, k: Any, v: Any, kv_lengths: Any, return_lse: bool) -> Any:
    """splat_numba.attention on JAX's arrays, tracers among them: out, or (out, lse). recipe: a kernel.Given, whose mask
    may be dense.

    Raises ArgumentError, ArgumentTypeError, BackendError, PatternError, FormatError.
    """
    given = {"q": q, "k": k, "v": v}
    described = {name: _described(name, one) for name, one in given.items()}
    problem = check_operands(described, recipe.layout)
    check_scale(recipe.scale, problem.head_dim, problem.dtype)
    axes = len(described["q"].shape)
    lengths = () if kv_lengths is None else (_lengths(kv_lengths, problem, axes),)
    layout = recipe.layout if axes > 2 else "bhsd"
    fixed = replace(recipe, mask=_fixed(recipe.mask, problem), layout=layout)
    arrays = [jnp.asarray(one)[(None,) * (4 - axes)] for one in given.values()]
    try:
        out, lse = _operator(fixed)(*made_alike([*arrays, *lengths]))
    except TypeError as error:
        if "forward-mode" in str(error):
            raise ArgumentError(NO_FORWARD_MODE) from error
        raise
    out = out.reshape(result_shape(described["q"], problem))
    return (out, lse[(0,) * (4 - axes)]) if return_lse else out


@lru_cache(maxsize=512)
def _operator(recipe: Any) -> Any:
    """(q, k, v) or (q, k, v, kv_lengths int32) -> (out, lse), of four axes in the recipe's layout, lse of three."""
    forward = _folded(partial(_split, partial(_forward, recipe), recipe, FORWARD))
    backward = _folded(partial(_split, partial(_backward, recipe), recipe, BACKWARD))
    forward_once, backward_once = _undifferentiable(forward), _undifferentiable(backward)

    @jax.custom_vjp
    def splat_attention(*arrays: Any) -> Any:
        return forward(*arrays)

    def keep(*arrays: Any) -> Any:
        out, lse = forward_once(*arrays)
        return (out, lse), (arrays, out, lse)

    def back(kept: Any, gradients: Any) -> Any:
        arrays, out, lse = kept
        dq, dk, dv = backward_once(*arrays, out, lse, *gradients)
        return (dq, dk, dv, *(None for _ in arrays[3:]))  # lengths have no gradient

    splat_attention.defvjp(keep, back)
    return jax.jit(splat_attention)  # so that equal layers of a model are traced once, and a call outside jit is cheap


def _folded(run: Callable[..., Any]) -> Any:
    """A function of arrays with a batch axis in front, of which a mapped axis becomes a part."""
    folded = custom_vmap(run)

    @folded.def_vmap
    def fold(axis_size: int, mapped: Any, *arrays: Any) -> Any:
        whole = [
            one if of_call else jnp.broadcast_to(one, (axis_size, *one.shape))
            for one, of_call in zip(arrays, mapped, strict=True)
        ]
        batch = whole[0].shape[1]
        results = folded(*(one.reshape(axis_size * batch, *one.shape[2:]) for one in whole))
        return tuple(one.reshape(axis_size, batch, *one.shape[1:]) for one in results), (True,) * len(results)

    return folded


def _undifferentiable(run: Callable[..., Any]) -> Any:
    """The function, with a reason where its derivative is asked for."""
    guarded = jax.custom_jvp(run)

    @guarded.defjvp
    def refuse(*_given: Any) -> Any:
        raise ArgumentError(NO_SECOND)

    return guarded


def _split(run: Callable[..., Any], recipe: Any, names: Any, *arrays: Any) -> Any:
    """Let JAX's partitioner run the function on parts of the arrays, where devices have parts and it looks for them."""
    if differ(arrays):  # within shard_map they are parts already
        return run(*arrays)
    given, made = names
    if len(arrays) > len(given):
        given = (*given[:3], "kv_lengths", *given[3:])
    alike = not isinstance(recipe.mask, tuple)
    return partitioned(run, Split(given, made, recipe.layout, _problem(recipe, *arrays[:3]), alike))(*arrays)


def _forward(recipe: Any, *arrays: Any) -> Any:
    q, _, v, *lengths = arrays
    problem = _problem(recipe, *arrays[:3])
    name, scratch = _target(forward_call, TARGET, recipe, problem, bool(lengths), current())
    kinds = [((*q.shape[:3], v.shape[3]), q.dtype), (_level(problem), problem.compute_dtype), *scratch]
    return _called(name, kinds, arrays)[:2]


def _backward(recipe: Any, *arrays: Any) -> Any:
    problem = _problem(recipe, *arrays[:3])
    name, scratch = _target(backward_call, f"{TARGET}_backward", recipe, problem, len(arrays) == 8, current())
    return _called(name, [*((one.shape, one.dtype) for one in arrays[:3]), *scratch], arrays)[:3]


def _called(name: str, kinds: Any, arrays: Any) -> Any:
    """The results of a foreign function call."""
    types = [result_type(shape, dtype, arrays) for shape, dtype in kinds]
    return tuple(jax.ffi.ffi_call(name, types)(*arrays))


@lru_cache(maxsize=512)
def _target(
    make: Callable[..., Any], label: str, recipe: Any, problem: Problem, ragged: bool, settings: Settings
) -> tuple[str, list[Any]]:
    """XLA's name of the program for these sizes, and the result that is its scratch memory, if it wants any."""
    threads = settings.threads or cores()
    scale = check_scale(recipe.scale, problem.head_dim, problem.dtype)
    call = make(recipe, problem, scale, settings, threads, ragged=ragged)
    name = target_of(label, call.program, settings, threads)
    return name, [((call.scratch,), np.uint8)] if call.scratch else []


def _problem(recipe: Any, q: Any, k: Any, v: Any) -> Problem:
    sizes = [bhsd_axes(one.shape, recipe.layout, 1) for one in (q, k, v)]
    (batch, heads_q, seq_q, head_dim), (_, heads_kv, seq_kv, _), (*_, value_dim) = sizes
    return Problem(seq_q, seq_kv, head_dim, value_dim, str(q.dtype), batch, heads_q, heads_kv)


def _level(problem: Problem) -> tuple[int, int, int]:
    return problem.batch, problem.heads_q, problem.seq_q


def _described(name: str, array: Any) -> Traced:
    """An argument's shape and dtype. Raises ArgumentError, ArgumentTypeError, BackendError for what has none."""
    if not isinstance(array, (np.ndarray, jax.Array)) or isinstance(array, np.ma.MaskedArray):
        raise ArgumentTypeError(
            f"{name} wanted as an array of JAX or NumPy, got {type(array).__name__}. Convert it with "
            f"jax.numpy.asarray({name})."
        )
    if isinstance(array, jax.Array) and not is_traced(array):
        check_jax(name, array, one_device=False)
        if not on_cpu(array):
            raise BackendError(
                f"{name} wanted in CPU memory, the only one of this operation in this version, "
                f"got an array on {next(iter(array.devices())).platform}. Copy it with jax.device_put."
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


def _lengths(kv_lengths: Any, problem: Problem, axes: int) -> Any:
    """Key lengths as int32. Those that are known are checked here, and others when they are read."""
    if not is_traced(kv_lengths):
        return jnp.asarray(check_kv_lengths(kv_lengths, problem, axes), jnp.int32)
    integers = jnp.issubdtype(kv_lengths.dtype, jnp.integer)
    check_lengths_kind(tuple(kv_lengths.shape), str(kv_lengths.dtype), bool(integers), problem, axes)
    if jnp.iinfo(kv_lengths.dtype).max > jnp.iinfo(jnp.int32).max:  # wider ones must not wrap into range
        kv_lengths = jnp.minimum(kv_lengths, problem.seq_kv + 1)
        if jnp.issubdtype(kv_lengths.dtype, jnp.signedinteger):
            kv_lengths = jnp.maximum(kv_lengths, -1)
    return kv_lengths.astype(jnp.int32)


def _fixed(mask: Mask, problem: Problem) -> Any:
    """The mask as values that can be compared: a Pattern or an ACSR, or a tuple of them, one a query head."""
    several = isinstance(mask, (list, tuple))
    for number, one in enumerate(mask if isinstance(mask, (list, tuple)) else [mask]):
        if is_traced(one):
            name = f"mask[{number}]" if several else "mask"
            raise ArgumentError(
                f"{name} wanted known while JAX traces, got its {type(one).__name__}: a kernel is made for the mask. "
                "Give a Pattern, an ACSR or a NumPy array, by a closure or static_argnums."
            )
    if not several:
        return store_mask(mask, problem.seq_q, problem.seq_kv)
    by_head = {
        head: stored
        for stored, heads in split_heads(mask, problem.heads_q, problem.seq_q, problem.seq_kv)
        for head in heads
    }
    return tuple(by_head[head] for head in sorted(by_head))
