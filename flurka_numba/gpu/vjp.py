"""Gradients on a GPU: a call's arrays checked and made ready, once for calls that are alike, then two schedules run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flurka_numba.checks import ARRAYS
from flurka_numba.gpu.call import operands_of, place_extras
from flurka_numba.gpu.checks import check_arguments
from flurka_numba.gpu.choice import choose_target
from flurka_numba.gpu.forward import in_place
from flurka_numba.gpu.gradient_schedules import Gradients, result_axes
from flurka_numba.gpu.gradients import SlotProduct
from flurka_numba.gpu.host_arrays import attend_vjp_numpy
from flurka_numba.gpu.recorder import KEPT, Output, Recording
from flurka_numba.problem import Call, Problem
from splat_numba.arguments.gpu_arrays import tensor_of
from splat_numba.arguments.results import check_fits
from splat_numba.gen.schedules.schedule import Schedule
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.runtime.cuda.arrays import check_whole_elements
from splat_numba.runtime.cuda.device import Device, device
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
from splat_numba.runtime.cuda.ready import ReadyCall
from splat_numba.runtime.recent import REMEMBERED, Recent
from splat_numba.runtime.tensors import mark_written
from splat_numba.settings import current

LARGEST_BACKWARD = 64  # ready ones of a call: of several strides of dout, and several frozen arguments


@dataclass(frozen=True, slots=True)
class Run:
    """A schedule, ready; recording: where nothing is copied."""

    call: ReadyCall
    recording: Recording


@dataclass(frozen=True, slots=True)
class Backward(Run):
    """From dout to gradients. products: what is left to the arrays' own products, by name."""

    products: Mapping[str, SlotProduct]


@dataclass(frozen=True, slots=True)
class ReadyVjp:
    """A call with gradients but for its addresses."""

    gradients: Gradients
    device: Device
    forward: Run
    backward: Recent[Backward] = field(default_factory=lambda: Recent(LARGEST_BACKWARD))


_ready: Recent[ReadyVjp] = Recent(REMEMBERED)  # by all that the checks see


def attend_vjp(call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients). Raises ArgumentError, ArgumentTypeError, BackendError."""
    if isinstance(call.q, np.ndarray):
        return attend_vjp_numpy(call, lambda there: attend_vjp(there, frozen))
    framework = framework_of(call.q) or known_framework("q", call.q)
    given = {name: getattr(call, name) for name in (*ARRAYS, "out") if getattr(call, name) is not None}
    ready, addresses = _look_up(call, given, framework)
    problem = ready.gradients.problem
    kept = framework.empty((max(ready.forward.recording.kept, 1),), "uint8", call.q)
    places = {**dict(zip(given, addresses, strict=True)), KEPT: framework.address(kept)}
    results = _run(call, ready, ready.forward, list(given.values()), places, framework)
    mark_written(call.out)
    out = call.out if call.out is not None else results["out"]
    out_shape, inputs = tuple(out.shape), {name: one for name, one in given.items() if name != "out"}

    def vjp(dout: Any) -> tuple[Any, ...]:
        found = describe("dout", dout, framework)
        check_fits("dout", found, out_shape, problem.dtype)
        check_whole_elements("dout", found)
        tensor = tensor_of("dout", found)
        backward = ready.backward.get((tensor, frozen), lambda: _make_backward(ready, tensor, frozen))
        there = {**places, "dout": found.pointer, KEPT: framework.address(kept)}  # which keeps it
        made = _run(call, ready, backward, [dout], there, framework)
        for name, one in backward.products.items():
            product = product_of(problem, inputs[one.proj], made[one.slots])
            made[f"d{name}"] = trimmed(product, len(inputs[name].shape))
        return tuple(made.get(f"d{name}") for name in ARRAYS)

    return out, vjp


def _run(
    call: Call, ready: ReadyVjp, run: Run, arrays: Sequence[Any], places: Mapping[str, int], framework: Framework
) -> dict[str, Any]:
    """Run a schedule on the stream of these arrays. Returns its results by name."""
    problem, recording = ready.gradients.problem, run.recording
    stream = framework.stream(arrays, ready.device.ordinal)
    extras, keep = place_extras(call, problem, ready.device, framework, stream, run.call.settings)
    made = {name: _make(one, problem.dtype, call.q, framework) for name, one in recording.outputs.items()}
    addresses = {**places, **extras, **{name: framework.address(one) for name, one in made.items()}}
    scratch = run.call.run([addresses[name] for name in recording.schedule.arguments], stream, framework, call.q)
    framework.finish(stream)
    del scratch, keep
    return {name: trimmed(one, recording.outputs[name].axes) for name, one in made.items()}


def _make(output: Output, dtype: str, like: Any, framework: Framework) -> Any:
    if output.side_by_side:
        return framework.side_by_side(output.shape, dtype, like)
    return framework.empty(output.shape[4 - output.axes :], dtype, like)


def _look_up(call: Call, given: Mapping[str, Any], framework: Framework) -> tuple[ReadyVjp, Sequence[int]]:
    """The call made ready, now or when an earlier one was like it, and the addresses of its arrays."""
    known = known_keys(list(given.values()), framework) if call.out is None and call.omega is None else None
    key = None
    if known is not None:
        addresses, kinds = known
        key = (call.method, call.feature_map, call.eps, call.scale, call.kv_lengths is None, tuple(given), call.target,
               framework, kinds)  # fmt: skip
        try:
            found = _ready.find(key)
        except TypeError:  # an option of a wrong type, which the checks name
            key = found = None
        if found is not None:
            return found, addresses
    problem, arrays = check_arguments(call, framework)
    axes = result_axes({name: len(array.shape) for name, array in arrays.items()})
    gpu, views = device(arrays["q"].device), framework not in (JAX, NUMBA, OURS)
    multiplies = _products_are_at_hand(problem, framework)
    target = choose_target(call.target, problem, gpu.as_planned, gradients=True, multiplies=multiplies).chosen
    gradients = Gradients(problem, gpu.as_planned, operands_of(problem, arrays), axes, target, views)
    made = _make_ready(gradients, gpu)
    return made if key is None else _ready.keep(key, made), [arrays[name].pointer for name in given]


def _make_ready(gradients: Gradients, gpu: Device) -> ReadyVjp:
    usual = gradients.forward(frozenset())

    def schedule_for(copied: frozenset[str]) -> Schedule:
        return (gradients.forward(copied) if copied else usual).schedule

    rules = in_place(gradients.operands, gradients.target)
    return ReadyVjp(gradients, gpu, Run(ReadyCall(rules, schedule_for, gpu, current()), usual))


def _make_backward(ready: ReadyVjp, dout: Tensor, frozen: frozenset[str]) -> Backward:
    gradients = ready.gradients
    usual, products = gradients.backward(dout, frozen, frozenset())

    def schedule_for(copied: frozenset[str]) -> Schedule:
        return (gradients.backward(dout, frozen, copied)[0] if copied else usual).schedule

    rules = in_place(gradients.operands_of_backward(dout), gradients.target)
    return Backward(ReadyCall(rules, schedule_for, ready.device, current()), usual, products)


def product_of(problem: Problem, proj: Any, slots: Any) -> Any:
    """E^T dk' as one product of all heads, or one a head. proj: (..., rank, seq_kv); slots: four axes.

    By the framework's own product: cuBLAS accumulates in float32.
    """
    batch, heads, rank, dim = slots.shape
    if problem.per_head_proj:
        folded = slots.swapaxes(0, 1).swapaxes(1, 2).reshape(heads, rank, batch * dim)
        product = proj.swapaxes(-1, -2) @ folded
        return product.reshape(heads, problem.seq_kv, batch, dim).swapaxes(1, 2).swapaxes(0, 1)
    folded = slots.swapaxes(1, 2).reshape(batch, rank, heads * dim)
    product = proj.swapaxes(-1, -2) @ folded
    return product.reshape(batch, problem.seq_kv, heads, dim).swapaxes(1, 2)


def trimmed(array: Any, axes: int) -> Any:
    """The array with so many of its axes: of the leading ones, which are 1, some are missing then."""
    missing = len(array.shape) - axes
    return array[(0,) * missing] if missing > 0 else array


def _products_are_at_hand(problem: Problem, framework: Framework) -> bool:
    """Whether the framework's arrays can do what this path may leave to them, products of matrices of any shape, which
    Numba's cannot. NumPy's are few and small: they get the tighter arithmetic.
    """
    return framework not in (OURS, NUMBA) or (framework is NUMBA and problem.method == "kernel")
