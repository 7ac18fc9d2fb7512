"""Run one problem and compare it with the oracle."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splat_numba import reference
from splat_numba.errors import AlignmentWarning
from splat_numba.testing.error_bound import assert_close, tolerance
from splat_numba.testing.problem import Operands, Problem, check_problem

# Anything called as `splat_numba.attention` is, with return_lse=True; gives (out, lse).
AttentionFunction: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a passed problem agrees: the largest error of out, and the largest error / allowed of out and lse."""

    error: float
    used: float


def check_attention(
    problem: Problem, backend: str = "auto", *, attention: AttentionFunction | None = None, **options: Any
) -> Agreement:
    """Run the problem through `splat_numba.attention` and compare out and lse with `reference.attention`.

    problem: what to run. backend and options (target, out, kv_lengths in another form ...) are passed on; out is an
    array of NaN unless it is given, so that what is never written shows. attention: another implementation with the
    same signature, called without `backend` and out, to test that one instead.
    Raises AssertionError, with the problem, the worst index, wanted, got and allowed, where a value is farther from the
    oracle than `tolerance` allows, where shape or dtype are wrong, or where an input array was written to;
    ArgumentTypeError for what is no problem.
    """
    check_problem(problem)
    operands = problem.arrays()
    before = [x.copy() for x in operands]
    if attention is None:
        from splat_numba import api  # here, so that checking another implementation does not load Numba

        attention, options = api.attention, {"backend": backend, "out": _unwritten_out(operands), **options}
    with naming("in", problem, options):
        got = attention(*operands, problem.mask, return_lse=True, **{**problem.options(), **options})
        agreement = _compare(problem, *got)
        check_unchanged(operands, before)
    return agreement


@contextmanager
def naming(words: str, problem: Problem, options: dict[str, Any]) -> Iterator[None]:
    """What is raised within names the problem and the options, behind these words; a difference in its message, any
    other error in a note. Warnings of alignment are passed over, as the oracle takes the mask as it is.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AlignmentWarning)
            yield
    except AssertionError as difference:
        raise AssertionError(f"{difference}\n{words} {problem!r}, {call_text(options)}") from None
    except Exception as error:
        error.add_note(f"{words} {problem!r}, {call_text(options)}")
        raise


def _unwritten_out(operands: Operands) -> NDArray[Any] | None:
    return unwritten((*operands.q.shape[:-1], operands.v.shape[-1]), operands.q.dtype)


def unwritten(shape: tuple[int, ...], dtype: Any) -> NDArray[Any] | None:
    """An array for results that is NaN everywhere; None where it would have no elements."""
    return np.full(shape, np.nan, dtype) if 0 not in shape else None


def call_text(options: dict[str, Any]) -> str:
    """The options of a call, as written."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items() if name != "out") or "no options"


def _compare(problem: Problem, out: NDArray[Any], lse: NDArray[Any]) -> Agreement:
    operands, mask, options = problem.arrays(), problem.dense_mask(), problem.options()
    wanted, wanted_lse = reference.attention(*operands, mask, return_lse=True, **options)
    allowed, allowed_lse = tolerance(*operands, mask, **options)
    lse_dtype = np.dtype(np.float64 if problem.dtype == "float64" else np.float32)
    for name, got, dtype in (("out", out, operands.q.dtype), ("lse", lse, lse_dtype)):
        if got.dtype != dtype:
            raise AssertionError(f"{name}: wanted {dtype}, got {got.dtype}")
    used = [assert_close(out, wanted, allowed), assert_close(lse, wanted_lse, allowed_lse, name="lse")]
    with np.errstate(invalid="ignore"):
        errors = np.abs(np.asarray(out, np.float64) - wanted)
    return Agreement(float(errors.max(initial=0.0, where=np.isfinite(errors))), max(used))


def check_unchanged(operands: Sequence[NDArray[Any]], before: Sequence[NDArray[Any]]) -> None:
    """Raise AssertionError where a call wrote to q, k or v."""
    for name, x, old in zip("qkv", operands, before, strict=True):
        if x.tobytes() != old.tobytes():
            raise AssertionError(f"{name}: wanted it unchanged, but the call wrote to it")
