"""Gradients on a GPU: a call's arrays checked, and a Runner that launches stages on the stream they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flurka_numba.checks import ARRAYS, check_fits
from flurka_numba.gpu_call import layout_of, make_slots
from flurka_numba.gpu_checks import check_arguments, place_lengths
from flurka_numba.gpu_composed_call import attend_vjp as compose
from flurka_numba.gpu_composed_plan import composes_gradients
from flurka_numba.gpu_gradients import attend_with_gradients, in_order
from flurka_numba.gpu_numpy import attend_vjp_numpy
from flurka_numba.gpu_plan import Stage
from flurka_numba.gpu_stages import stage_cubin
from flurka_numba.problem import Call, Problem
from splat_numba.runtime.cuda.arrays import (
    JAX,
    NUMBA,
    OURS,
    Framework,
    describe,
    describe_operand,
    framework_of,
    known_framework,
)
from splat_numba.runtime.cuda.copies import move, padded
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.launch import Launch, load
from splat_numba.runtime.cuda.memory import undisturbed
from splat_numba.runtime.cuda.tensor_map import describable
from splat_numba.settings import Settings, current


def attend_vjp(call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients). Raises ArgumentError, ArgumentTypeError, BackendError."""
    if isinstance(call.q, np.ndarray):
        return attend_vjp_numpy(call, lambda there: attend_vjp(there, frozen))
    framework = framework_of(call.q) or known_framework("q", call.q)
    problem, _ = check_arguments(call, framework)
    if composes_gradients(problem) or not _products_are_at_hand(problem, framework):
        return compose(call, problem, framework, frozen)
    given = {name: getattr(call, name) for name in ARRAYS if getattr(call, name) is not None}
    axes = {name: len(array.shape) for name, array in given.items()}
    arrays = {name: _with_leading(array) for name, array in given.items()}
    runner = CudaRunner(call, problem, framework, current())
    found, pull = attend_with_gradients(problem, arrays, runner.lengths, runner, frozen)
    runner.finish()
    out = _without_leading(found, axes["q"])
    if call.out is not None:
        runner.copy(found, _with_leading(call.out))
        out = call.out

    def vjp(dout: Any) -> tuple[Any, ...]:
        check_fits("dout", describe("dout", dout, framework), tuple(out.shape), problem.dtype)
        gradients = pull(_with_leading(dout))
        runner.finish()
        return in_order(gradients, axes)

    return out, vjp


def _products_are_at_hand(problem: Problem, framework: Framework) -> bool:
    """Whether the framework multiplies matrices, and views of padded rows can be written through, which JAX has not."""
    if framework is JAX:
        return not (problem.head_dim % 8 or problem.value_dim % 8)
    return framework not in (OURS, NUMBA) or (framework is NUMBA and problem.method == "kernel")


def _with_leading(array: Any) -> Any:
    missing = 4 - len(array.shape)
    return array[(None,) * missing] if missing else array


def _without_leading(array: Any, axes: int) -> Any:
    return array[(0,) * (4 - axes)] if axes < 4 else array


_functions: dict[tuple[int, int], tuple[Stage, int]] = {}  # by a stage's identity, which is its own while it is held
LARGEST_FUNCTIONS = 4096


def _function(stage: Stage, ordinal: int, settings: Settings) -> int:
    """A stage's handle on one device, whose context must be current. Plans are remembered, and so are their stages: to
    print a text again takes longer than to run it.
    """
    found = _functions.get((id(stage), ordinal))
    if found is None:
        cubin = stage_cubin(stage.name, stage.render(), stage.entry, settings)
        with undisturbed():
            handle = load(cubin.code, cubin.report.symbol, ordinal, stage.entry.shared_bytes)
        if len(_functions) >= LARGEST_FUNCTIONS:
            _functions.clear()
        found = _functions[id(stage), ordinal] = (stage, handle)
    return found[1]


class CudaRunner:
    """Arrays of one framework; memory comes from its allocator, which knows its stream."""

    def __init__(self, call: Call, problem: Problem, framework: Framework, settings: Settings) -> None:
        self._call, self._problem, self._framework, self._settings = call, problem, framework, settings
        first = framework.describe("q", call.q)
        self._device: Device = device(first.device)
        self.multiprocessors = self._device.multiprocessors
        self._stream = self._stream_of([call.q])
        with self._device.current():
            self.lengths, self._keep = place_lengths(call, problem, self._device, framework, self._stream)

    def _stream_of(self, arrays: list[Any]) -> int:
        return self._framework.stream(arrays, self._device.ordinal)

    def finish(self) -> None:
        """Make results safe to use, where the framework does not know the stream."""
        self._framework.finish(self._stream)

    def rows(self, shape: tuple[int, int, int, int]) -> Any:
        """A fresh array with rows padded to 16 bytes."""
        whole = self._framework.empty((*shape[:3], padded(shape[3])), self._problem.dtype, self._call.q)
        return whole if padded(shape[3]) == shape[3] else whole[..., : shape[3]]

    def words(self, nbytes: int) -> Any:
        """Fresh memory."""
        return self._framework.empty((max(-(-nbytes // 4), 1),), "float32", self._call.q)

    def readable(self, array: Any) -> Any:
        """The array, or a copy with padded rows where its strides do not allow loads of 16 bytes."""
        found = describe_operand("array", array, self._framework)
        layout = layout_of(found)
        if describable(found.pointer, layout):
            return array
        fresh = self.rows(layout.sizes)
        self.copy(array, fresh)
        return fresh

    def copy(self, source: Any, target: Any) -> None:
        """Copy between any strides, in the order of the stream."""
        a, b = (self._framework.describe("array", one) for one in (source, target))
        shape = (a.shape[0], a.shape[1], a.shape[2], a.shape[3])
        with self._device.current():
            move(b.pointer, b.strides, a.pointer, a.strides, shape, self._stream)

    def launch(self, stage: Stage, arrays: Mapping[str, Any]) -> None:
        """Run a stage on the current stream."""
        if not stage.grid:
            return
        values: dict[str, int] = dict.fromkeys((name for name, kind in stage.entry.parameters if kind == "l"), 0)
        values |= stage.numbers
        held = []
        for name, array in arrays.items():
            if array is None or isinstance(array, int):
                values[name] = array or 0
                continue
            held.append(array)
            found = self._framework.describe(name, array)
            values[name] = found.pointer
            if len(found.strides) == 4:
                batch, head, row, _ = found.strides
                values |= {f"{name}_batch": batch, f"{name}_head": head, f"{name}_row": row}
        self._stream = self._stream_of(held)
        wanted = {name for name, _ in stage.entry.parameters}
        with self._device.current():
            function = _function(stage, self._device.ordinal, self._settings)
            launch = Launch(
                function, stage.entry, stage.grid, {name: one for name, one in values.items() if name in wanted}
            )
            launch.run(self._stream)

    def slots(self) -> tuple[Any, Any]:
        """E k and F v."""
        k, v = make_slots(self._call, self._framework)
        return _with_leading(k), _with_leading(v)

    def product(self, a: Any, b: Any) -> Any:
        """The framework's own product: cuBLAS accumulates in float32."""
        self.finish()
        return a @ b

    def sum(self, a: Any, b: Any) -> Any:
        """The framework's own sum."""
        return a + b
