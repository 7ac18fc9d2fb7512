"""FLuRKA under JAX on NVIDIA GPUs: foreign calls to its programs there, and the products that are left to arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax.numpy as jnp

from flurka_numba.gpu.gradients import SlotProduct
from flurka_numba.gpu.vjp import product_of
from flurka_numba.gpu.xla import XlaPart, forward_part, gradient_parts
from flurka_numba.problem import Problem
from splat_numba.executors.gpu.executor import gpu
from splat_numba.executors.jax.operations import called
from splat_numba.runtime.xla.gpu_register import gpu_target_of
from splat_numba.settings import Settings, current

TARGET = "splat_numba_cuda_flurka"


def forward(problem: Problem, arrays: Sequence[Any]) -> list[Any]:
    """The result of problem.inputs, alone in a list. Raises ArgumentTypeError, BackendError, CompileError."""
    name, part = _forward(problem, current())
    return [_run(name, part, problem, arrays)["out"]]


def gradients(problem: Problem, arrays: Sequence[Any]) -> list[Any]:
    """problem.gradients from problem.inputs and dout. Raises likewise."""
    (first, forward_part), (second, backward_part), products = _gradients(problem, current())
    *inputs, dout = arrays
    kept = _run(first, forward_part, problem, inputs)["kept"]
    made = _run(second, backward_part, problem, (*inputs, dout, kept))
    given = dict(zip(problem.inputs, inputs, strict=True))
    for name, one in products.items():
        made[f"d{name}"] = product_of(problem, given[one.proj], made[one.slots])
    return [made[name] for name in problem.gradients]


def _run(name: str, part: XlaPart, problem: Problem, arrays: Sequence[Any]) -> dict[str, Any]:
    """The results of a program by name, and what it keeps, as "kept"."""
    kinds: list[tuple[Any, Any]] = [(shape, problem.dtype) for shape in part.results.values()]
    names = [*part.results]
    for what, nbytes in (("kept", part.kept), ("scratch", part.scratch)):
        if nbytes:
            names.append(what)
            kinds.append(((nbytes,), jnp.uint8))
    return dict(zip(names, called(name, kinds, arrays), strict=True))


@lru_cache(maxsize=512)
def _forward(problem: Problem, settings: Settings) -> tuple[str, XlaPart]:
    part = forward_part(problem, gpu())
    return gpu_target_of(TARGET, part.program, settings), part


@lru_cache(maxsize=512)
def _gradients(
    problem: Problem, settings: Settings
) -> tuple[tuple[str, XlaPart], tuple[str, XlaPart], Mapping[str, SlotProduct]]:
    first, second, products = gradient_parts(problem, gpu())
    names = (
        gpu_target_of(f"{TARGET}_{label}", part.program, settings)
        for label, part in (("keeping", first), ("backward", second))
    )
    one, other = names
    return (one, first), (other, second), products
