"""The arrays of a backward call on a CPU: what forward gave and its gradients, and where results go, checked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.layouts import to_bhsd, with_leading
from splat_numba.arguments.results import Written, check_fits, place_result, result_shape
from splat_numba.arguments.tokens import Described
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.gen.plans.backward import GRADIENTS
from splat_numba.gen.plans.problem import Problem
from splat_numba.plain import shown
from splat_numba.runtime.arrays import Array, check_out, import_array


def import_results(
    given: Mapping[str, Any], inputs: Mapping[str, Array], problem: Problem, layout: str
) -> tuple[dict[str, Array], dict[str, NDArray[Any]]]:
    """``given``: out, dout, lse and dlse, the last perhaps None, which means zeros. Returns them as arrays, and as
    views with axes (batch, heads, seq, dim), of lse and dlse the first three. Raises ArgumentError, ArgumentTypeError.
    """
    arrays, views = {}, {}
    shape = result_shape(inputs["q"], problem)
    for name in ("out", "dout"):
        arrays[name] = import_array(name, given[name])
        check_fits(name, arrays[name], shape, problem.dtype)
        views[name] = to_bhsd(arrays[name].bits, layout)
    levels = lse_shape(problem, len(shape))
    for name in ("lse", "dlse"):
        if given[name] is None:
            views[name] = _zeros(problem.lse_sizes, problem.compute_dtype)
            continue
        arrays[name] = import_array(name, given[name])
        check_level(name, arrays[name], levels, problem.compute_dtype)
        views[name] = with_leading(arrays[name].bits, 3)
    return arrays, views


@lru_cache(maxsize=64)
def _zeros(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """One zero for all places, which nobody can write to."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def lse_shape(problem: Problem, axes: int) -> tuple[int, ...]:
    """Of lse and its gradient, for a q with so many axes."""
    return problem.lse_sizes[4 - axes :]


def check_level(name: str, array: Described, shape: tuple[int, ...], dtype: str) -> None:
    """Raise unless ``array`` (lse or its gradient) has this shape and dtype."""
    if array.shape != shape:
        raise ArgumentError(f"{name} wanted of shape {shape}, (batch, heads_q, seq_q), got {array.shape}. Reshape it.")
    if array.dtype != dtype:
        raise ArgumentTypeError(f"{name} wanted as {dtype}, got {array.dtype}. Give it as attention() returns lse.")


def place_gradients(
    out_grads: Any, inputs: Mapping[str, Array], read: Mapping[str, Array], frozen: frozenset[str], dtype: str
) -> dict[str, Written]:
    """Where the gradients of ``inputs``, q, k and v, go, by name: of those that are not frozen. read: all arrays that
    the call reads. Raises ArgumentError, ArgumentTypeError.
    """
    targets = dict(zip(GRADIENTS, split_out_grads(out_grads), strict=True))
    found: dict[str, Written] = {}
    others: dict[str, NDArray[Any]] = {}
    for number, (name, array) in enumerate(inputs.items()):
        argument, target = f"out_grads[{number}]", targets[f"d{name}"]
        if name in frozen:
            if target is not None:
                refuse_frozen(argument, name)
            continue
        written = place_result(target, array.shape, dtype, read, argument)
        if target is not None:
            check_out(written.array.bits, others, argument)
            others[argument] = written.array.bits
        found[f"d{name}"] = written
    return found


def refuse_frozen(argument: str, name: str) -> NoReturn:
    """Raise for a target of a gradient that is not made."""
    raise ArgumentError(f"{argument} wanted as None since {name} is frozen, got an array. Leave it out.")


def split_out_grads(out_grads: Any) -> tuple[Any, Any, Any]:
    """Three targets, each perhaps None. Raises ArgumentTypeError."""
    if out_grads is None:
        return None, None, None
    if not isinstance(out_grads, (tuple, list)) or len(out_grads) != len(GRADIENTS):
        raise ArgumentTypeError(
            f"out_grads wanted as a tuple of three arrays or None, for q, k and v, got {shown(out_grads)}. "
            "Give (dq, dk, dv), with None where a fresh one will do."
        )
    dq, dk, dv = out_grads
    return dq, dk, dv
