"""Gradients on a GPU: a call's arrays checked, once for calls that are alike, and given to the path that they take."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from flurka_numba.checks import ARRAYS
from flurka_numba.gpu.call import layout_of, ready_slots
from flurka_numba.gpu.checks import check_arguments
from flurka_numba.gpu.composed.call import attend_vjp as compose
from flurka_numba.gpu.composed.plan import composes_gradients
from flurka_numba.gpu.gradients import attend_with_gradients, in_order, trimmed
from flurka_numba.gpu.host_arrays import attend_vjp_numpy
from flurka_numba.gpu.runner import Checked, CudaRunner, Operand
from flurka_numba.problem import Call, Problem
from splat_numba.arguments.results import check_fits
from splat_numba.runtime.cuda.frameworks import (
    JAX,
    NUMBA,
    OURS,
    Framework,
    describe,
    framework_of,
    known_framework,
    known_keys,
)


def attend_vjp(call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients). Raises ArgumentError, ArgumentTypeError, BackendError."""
    if isinstance(call.q, np.ndarray):
        return attend_vjp_numpy(call, lambda there: attend_vjp(there, frozen))
    framework = framework_of(call.q) or known_framework("q", call.q)
    given = {name: getattr(call, name) for name in ARRAYS if getattr(call, name) is not None}
    checked, addresses = _check(call, given, framework)
    problem = checked.problem
    if checked.composed:
        return compose(call, problem, framework, frozen)
    axes = {name: len(array.shape) for name, array in given.items()}
    operands = {
        name: checked.operands[name].at(address, array)
        for (name, array), address in zip(given.items(), addresses, strict=True)
    }
    runner = CudaRunner(call, checked, tuple(operands.values()), framework)
    with runner.at_work(list(given.values())):
        found, pull = attend_with_gradients(problem, operands, runner.lengths, runner, frozen)
        if call.out is not None:
            described = framework.describe("out", call.out)
            runner.copy(found, Operand(layout_of(described)).at(described.pointer, call.out))
    out = trimmed(found.memory, axes["q"]) if call.out is None else call.out
    out_shape = tuple(out.shape)

    def vjp(dout: Any) -> tuple[Any, ...]:
        described = describe("dout", dout, framework)
        check_fits("dout", described, out_shape, problem.dtype)
        with runner.at_work([dout]):
            gradients = pull(Operand(layout_of(described)).at(described.pointer, dout))
        return in_order(gradients, axes)

    return out, vjp


_checked: OrderedDict[Hashable, Checked] = OrderedDict()  # by all that the checks see
LARGEST_CHECKED = 256


def _check(call: Call, given: Mapping[str, Any], framework: Framework) -> tuple[Checked, list[int]]:
    """The call checked, now or when an earlier one was like it; addresses of its arrays."""
    known = known_keys(list(given.values()), framework) if call.out is None and call.omega is None else None
    key = None
    if known is not None:
        addresses, kinds = known
        key = (call.method, call.feature_map, call.eps, call.scale, call.kv_lengths is None, tuple(given), framework,
               kinds)  # fmt: skip
        try:
            found = _checked.get(key)
        except TypeError:  # an option of a wrong type, which the checks name
            key = found = None
        if found is not None:
            return found, addresses
    problem, arrays = check_arguments(call, framework)
    operands = {name: Operand(layout_of(arrays[name])) for name in given}
    composed = composes_gradients(problem) or not _products_are_at_hand(problem, framework)
    slots = ready_slots(call, framework) if problem.method == "flurka" and not composed else None
    found = Checked(problem, operands, arrays["q"].device, slots, composed)
    if key is not None:
        _checked[key] = found
        if len(_checked) > LARGEST_CHECKED:
            _checked.popitem(last=False)
    return found, [arrays[name].pointer for name in given]


def _products_are_at_hand(problem: Problem, framework: Framework) -> bool:
    """Whether the framework's arrays can do what this path asks of them beside the stages: products of matrices and
    parts of any shape, which Numba's cannot, and parts that can be written through, which JAX has not.
    """
    if framework is JAX:
        return not (problem.head_dim % 8 or problem.value_dim % 8)
    return framework not in (OURS, NUMBA) or (framework is NUMBA and problem.method == "kernel")
