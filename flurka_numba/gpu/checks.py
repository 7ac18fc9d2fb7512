"""A call's arguments on a GPU: what is there, what fits, and arrays as addresses. Nothing is launched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flurka_numba.checks import ARRAYS, check_call, check_no_autograd
from flurka_numba.problem import Call, Problem
from splat_numba.arguments.gpu_arrays import check_call_lengths
from splat_numba.arguments.results import check_fits, result_shape
from splat_numba.arguments.tokens import Described
from splat_numba.errors import ArgumentTypeError
from splat_numba.runtime.cuda.arrays import GpuArray, check_gpu_out, check_same_device, check_whole_elements
from splat_numba.runtime.cuda.frameworks import Framework, describe

DTYPES = ("float16", "bfloat16", "float32")  # that kernels on a GPU read


def check_supported(problem: Problem) -> None:
    """Raise ArgumentTypeError for what the GPU's texts have not."""
    _check_dtype("q", problem.dtype)


def _check_dtype(name: str, dtype: str) -> None:
    if dtype not in DTYPES:
        raise ArgumentTypeError(
            f"{name} wanted as {', '.join(DTYPES)} for backend 'cuda', got {dtype}. Convert it, or give backend='cpu' "
            "with arrays there."
        )


def check_arguments(call: Call, framework: Framework) -> tuple[Problem, dict[str, GpuArray]]:
    """The problem of a call and its arrays, out too. Raises ArgumentError, ArgumentTypeError, BackendError."""
    check_no_autograd(call)
    arrays = _describe_inputs(call, framework)
    shapes: dict[str, Described] = dict(arrays)
    if call.omega is not None:
        shapes["omega"] = _Omega(tuple(np.shape(call.omega)))
    problem = check_call(call, shapes)
    check_supported(problem)
    if call.w_q is not None:
        arrays["w_q"] = describe_operand("w_q", call.w_q, framework)
        check_same_device(arrays)
    if call.out is not None:
        arrays["out"] = check_out(call, problem, framework)
    if call.kv_lengths is not None:
        check_call_lengths(call.kv_lengths, problem, len(arrays["q"].shape), framework)
    return problem, arrays


def _describe_inputs(call: Call, framework: Framework) -> dict[str, GpuArray]:
    """The arrays of a call but for out, checked one by one."""
    given = {name: getattr(call, name) for name in ARRAYS}
    arrays = {
        name: describe_operand(name, one, framework)
        for name, one in given.items()
        if one is not None or name in ("q", "k", "v")
    }
    check_same_device(arrays)
    return arrays


def describe_operand(name: str, array: Any, framework: Framework) -> GpuArray:
    """An operand on a GPU. Raises ArgumentError, ArgumentTypeError, BackendError for what kernels cannot read."""
    found = describe(name, array, framework)
    _check_dtype(name, found.dtype)
    check_whole_elements(name, found)
    return found


def check_out(call: Call, problem: Problem, framework: Framework) -> GpuArray:
    """The caller's out. Raises ArgumentError, ArgumentTypeError, BackendError if the result cannot be written there."""
    arrays, out = _describe_inputs(call, framework), describe("out", call.out, framework)
    check_same_device({"q": arrays["q"], "out": out})
    check_fits("out", out, result_shape(arrays["q"], problem), problem.dtype)
    check_gpu_out(out, arrays)
    return out


@dataclass(frozen=True, slots=True)
class _Omega:
    """What check_call wants to know of omega."""

    shape: tuple[int, ...]
    dtype: str = "float64"
