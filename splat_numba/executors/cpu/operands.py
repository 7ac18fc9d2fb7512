"""The arrays of attention on a CPU, checked and brought to (batch, heads, seq, dim) views; results as the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from splat_numba.arguments.heads import check_heads, check_layouts_agree
from splat_numba.arguments.layouts import LAYOUTS, bhsd_axes, to_bhsd, without_leading
from splat_numba.arguments.results import Written, place_result, result_shape
from splat_numba.arguments.sizes import check_sizes
from splat_numba.arguments.tokens import Described, check_keys, check_tokens, check_values
from splat_numba.gen.plans.problem import Problem
from splat_numba.runtime.arrays import Array, export_array, import_array


@dataclass(frozen=True, slots=True)
class HostOperands:
    """One call's arrays: ``arrays`` as imported, ``views`` of shape (batch, heads, seq, dim), and the problem."""

    arrays: dict[str, Array]
    views: dict[str, NDArray[Any]]
    problem: Problem
    layout: str
    axes: int


def import_operands(q: Any, k: Any, v: Any, layout: str) -> HostOperands:
    """Check q, k and v against each other; whoever took the layout has checked it.

    Raises ArgumentError, ArgumentTypeError or BackendError.
    """
    arrays = {name: import_array(name, array) for name, array in (("q", q), ("k", k), ("v", v))}
    problem = check_operands(arrays, layout)
    views = {name: to_bhsd(array.bits, layout) for name, array in arrays.items()}
    return HostOperands(arrays, views, problem, layout, len(arrays["q"].shape))


def check_operands(arrays: Mapping[str, Described], layout: str) -> Problem:
    """The problem that q, k and v make. Raises ArgumentError, ArgumentTypeError where they do not fit together."""
    check_tokens(arrays, LAYOUTS[layout])
    q, k, v = (bhsd_axes(arrays[name].shape, layout, 1) for name in ("q", "k", "v"))
    check_keys(q, k)
    check_values(k, v)
    check_layouts_agree(q, k)
    check_heads(q[1], k[1])
    check_sizes(q[2], k[2], q[3], v[3])
    return Problem(q[2], k[2], q[3], v[3], arrays["q"].dtype, q[0], q[1], k[1])


def prepare_out(out: Any, operands: HostOperands) -> Written:
    """The caller's ``out``, checked, or a fresh array."""
    shape = result_shape(operands.arrays["q"], operands.problem)
    return place_result(out, shape, operands.problem.dtype, operands.arrays)


def export_lse(lse: NDArray[Any], operands: HostOperands, like: Any) -> Any:
    """lse with q's leading axes, (batch, heads, seq_q) less the missing ones, as an array of like's kind."""
    return export_array(without_leading(lse, operands.axes - 1), operands.problem.compute_dtype, like)
