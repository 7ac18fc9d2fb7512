"""Run one problem's gradients and compare them with the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splat_numba import reference
from splat_numba.testing.check import Agreement, check_unchanged, naming, unwritten
from splat_numba.testing.error_bound import assert_close
from splat_numba.testing.gradient_bound import gradient_tolerance
from splat_numba.testing.problem import Operands, Problem, check_problem

# Anything called as `splat_numba.attention_vjp` is; gives (out, vjp).
VjpFunction: TypeAlias = Callable[..., Any]
NAMES = ("q", "k", "v")


def check_gradients(
    problem: Problem, backend: str = "auto", *, attention_vjp: VjpFunction | None = None, with_dlse: bool = True,
    **options: Any,
) -> Agreement:  # fmt: skip
    """Run the problem through `splat_numba.attention_vjp` and compare with `reference.attention_backward`.

    problem: what to run, with finite keys whatever its minus_inf (0 x inf is NaN in a gradient); the gradients of out
    and, ``with_dlse``, of lse are drawn from its seed. backend and options are passed on. The functional form must give
    the same bits, written to arrays of NaN. attention_vjp: another implementation with the same signature, called
    without `backend`, to test that one instead. Raises what check_attention() raises.
    """
    check_problem(problem)
    problem = replace(problem, minus_inf=0.0)
    operands = problem.arrays()
    dout, dlse = problem.gradients()
    before = [x.copy() for x in operands]
    given = {**problem.options(), **options}
    with naming("in gradients of", problem, options):
        found = _run(problem, operands, (dout, dlse if with_dlse else None), backend, attention_vjp, given)
        agreement = _compare(problem, operands, found, dout, dlse if with_dlse else None, given.get("frozen", ()))
        check_unchanged(operands, before)
    return agreement


def _run(
    problem: Problem, operands: Operands, gradients: tuple[Any, Any], backend: str, attention_vjp: VjpFunction | None,
    given: dict[str, Any],
) -> tuple[Any, Any, Any]:  # fmt: skip
    dout, dlse = gradients
    if attention_vjp is not None:
        _, vjp = attention_vjp(*operands, problem.mask, **given)
        found: tuple[Any, Any, Any] = vjp(dout, dlse)
        return found
    from splat_numba import gradients as ours  # here, so that checking another implementation does not load Numba

    given = {**given, "backend": backend}
    out, lse, vjp = ours.attention_vjp(*operands, problem.mask, return_lse=True, **given)
    found = vjp(dout, dlse)
    targets = [
        None if name in given.get("frozen", ()) else unwritten(x.shape, x.dtype)
        for name, x in zip(NAMES, operands, strict=True)
    ]
    again = ours.attention_backward(
        dout, *operands, out, lse, problem.mask, dlse=dlse, out_grads=tuple(targets), **given
    )
    for name, one, other, target in zip(NAMES, found, again, targets, strict=True):
        if target is not None and other is not target:
            raise AssertionError(f"d{name}: wanted in out_grads, got another array")
        if one is not None and one.tobytes() != other.tobytes():
            raise AssertionError(f"d{name}: wanted the same bits from both functions, got others")
    return found


def _compare(
    problem: Problem, operands: Operands, found: tuple[Any, Any, Any], dout: NDArray[Any], dlse: NDArray[Any] | None,
    frozen: Any,
) -> Agreement:  # fmt: skip
    mask, options = problem.dense_mask(), {**problem.options(), "dlse": dlse}
    wanted = reference.attention_backward(dout, *operands, mask, **options)
    allowed = gradient_tolerance(dout, *operands, mask, **options)
    used, errors = [], []
    for name, got, right, bound, like in zip(NAMES, found, wanted, allowed, operands, strict=True):
        if name in frozen:
            if got is not None:
                raise AssertionError(f"d{name}: wanted None, as {name} is frozen, got an array")
            continue
        if got.dtype != like.dtype:
            raise AssertionError(f"d{name}: wanted {like.dtype}, got {got.dtype}")
        used.append(assert_close(got, right, bound, name=f"d{name}"))
        with np.errstate(invalid="ignore"):
            error = np.abs(np.asarray(got, np.float64) - right)
        errors.append(float(error.max(initial=0.0, where=np.isfinite(error))))
    return Agreement(max(errors, default=0.0), max(used, default=0.0))
