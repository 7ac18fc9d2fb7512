"""A backward call over arrays in the CPU's memory, checked: what it reads, and where its gradients go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from splat_numba.arguments.gradients import import_results, place_gradients
from splat_numba.arguments.layouts import to_bhsd
from splat_numba.arguments.options import check_kv_lengths, check_scale
from splat_numba.arguments.results import Written
from splat_numba.executors.cpu.operands import HostOperands, import_operands
from splat_numba.executors.executor import BackwardCall, Recipe
from splat_numba.gen.plans.backward import INPUTS, Wanted
from splat_numba.gen.plans.problem import Problem
from splat_numba.runtime.arrays import Array


@dataclass(frozen=True, slots=True)
class HostGradients:
    """arrays: all that the call reads, as given; views: of out, dout, lse and dlse, with axes (batch, heads, seq, dim)
    or the first three; lengths: of keys, int64; written: the gradients that are not frozen, by name.
    """

    operands: HostOperands
    arrays: Mapping[str, Array]
    scale: float
    lengths: NDArray[Any]
    views: Mapping[str, NDArray[Any]]
    written: Mapping[str, Written]

    @property
    def problem(self) -> Problem:
        """Shapes and dtype of the call."""
        return self.operands.problem

    @property
    def wanted(self) -> Wanted | None:
        """Which gradients are made, if any."""
        if not self.written:
            return None
        return Wanted(*(f"d{name}" in self.written for name in INPUTS))

    @property
    def targets(self) -> dict[str, NDArray[Any]]:
        """The gradients' bits with axes (batch, heads, seq, dim)."""
        return {name: to_bhsd(one.array.bits, self.operands.layout) for name, one in self.written.items()}

    def exported(self, call: BackwardCall) -> tuple[Any, Any, Any]:
        """The gradients as arrays of the caller's."""
        dq, dk, dv = (
            self.written[f"d{name}"].exported(getattr(call, name)) if f"d{name}" in self.written else None
            for name in INPUTS
        )
        return dq, dk, dv


def import_backward(recipe: Recipe, call: BackwardCall) -> HostGradients:
    """The arrays of a call. Raises ArgumentError, ArgumentTypeError."""
    operands = import_operands(call.q, call.k, call.v, recipe.layout)
    problem = operands.problem
    scale = check_scale(recipe.scale, problem.head_dim, problem.dtype)
    lengths = check_kv_lengths(call.kv_lengths, problem, operands.axes)
    given = {"out": call.out, "dout": call.dout, "lse": call.lse, "dlse": call.dlse}
    results, views = import_results(given, operands.arrays, problem, operands.layout)
    read = {**operands.arrays, **results}
    written = place_gradients(call.out_grads, operands.arrays, read, call.frozen, problem.dtype)
    return HostGradients(operands, read, scale, lengths, views, written)
