"""The argument ``precision``: how products of float32 are made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

from splat_numba.errors import ArgumentError
from splat_numba.gen.language.dtypes import IEEE, TF32
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.registry import gpu_target


def check_precision(precision: Any) -> str:
    """The word. Raises ArgumentError for another one."""
    if isinstance(precision, str) and precision in (IEEE, TF32):
        return precision
    raise ArgumentError(f"precision wanted as {IEEE!r} or {TF32!r}, got {precision!r}. Leave it out for {IEEE!r}.")


def with_precision(problem: Problem, precision: str, target: str | None) -> Problem:
    """The problem with products of this precision, for the target that was asked for, None for any.

    Raises ArgumentError for arrays, or a target, that have no choice.
    """
    if precision == IEEE:
        return problem
    if problem.dtype != "float32":
        raise ArgumentError(
            f"precision wanted as {IEEE!r} with arrays of {problem.dtype}, whose products are as they are, got "
            f"{precision!r}. Leave it out, or give arrays of float32."
        )
    found = replace(problem, precision=precision)
    if target is not None and gpu_target(target).refusal(problem) is None and gpu_target(target).refusal(found):
        raise ArgumentError(
            f"precision wanted as {IEEE!r} for target {target!r}, which has no products of TF32, got {precision!r}. "
            "Leave one of them out."
        )
    return found


def refuse_precision(where: str) -> NoReturn:
    """Raise ArgumentError: there are no products of TF32."""
    raise ArgumentError(f"precision wanted as {IEEE!r} {where}, got {TF32!r}. Leave it out.")
