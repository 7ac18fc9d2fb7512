"""Gradients on the emulator: the Runner whose arrays are views into an emulated GPU's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.checks import ARRAYS
from flurka_numba.emulated.composed import attend_vjp as compose
from flurka_numba.emulated.forward import MULTIPROCESSORS, EmulatedCall
from flurka_numba.gpu.checks import check_supported
from flurka_numba.gpu.composed.plan import composes_gradients
from flurka_numba.gpu.gradient_plan import Shape
from flurka_numba.gpu.gradients import Area, attend_with_gradients, in_order
from flurka_numba.gpu.launches import box_arguments
from flurka_numba.gpu.plan import forward_plan
from flurka_numba.gpu.stages import Stage
from flurka_numba.operands import Operands, export_out, import_call, import_dout, widen
from flurka_numba.problem import Call
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch
from splat_numba.runtime.arrays import export_array, narrow
from splat_numba.runtime.cuda.copies import padded, padded_strides
from splat_numba.runtime.cuda.tensor_map import MAP_BYTES, Layout, TensorMapArguments

Bits = NDArray[np.uint16]


def attend_vjp(call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients). Raises EmulationError for a fault in a text."""
    operands = import_call(call)
    check_supported(operands.problem)
    if composes_gradients(operands.problem):
        return compose(call, operands, frozen)
    runner = EmulatedRunner(operands)
    given = {name: _operand(array) for name in ARRAYS if (array := getattr(operands, name)) is not None}
    found, pull = attend_with_gradients(operands.problem, given, runner.lengths, runner, frozen)
    operands.out[...] = found.memory
    axes = {name: np.ndim(getattr(call, name)) for name in given}

    def vjp(dout: Any) -> tuple[Any, ...]:
        gradients = in_order(pull(_operand(import_dout(call, operands, dout))), axes)
        return tuple(
            None if one is None else export_array(np.array(one), operands.problem.dtype, call.q) for one in gradients
        )

    return export_out(call, operands), vjp


def _operand(array: Bits) -> Area:
    """An array that is not in the emulated GPU's memory yet."""
    batch, heads, rows, dim = (1,) * (4 - array.ndim) + array.shape
    return Area(array, 0, (batch, heads, rows, dim), readable=False)


class EmulatedRunner:
    """Arrays are 16-bit words; those that rows() gave are memory of the emulated GPU."""

    multiprocessors = MULTIPROCESSORS

    def __init__(self, operands: Operands) -> None:
        self._operands = operands
        self._memory = GlobalMemory()
        self._maps: list[TensorMapArguments] = []
        lengths = operands.kv_lengths.astype(np.int32)
        place = self._memory.allocate(max(lengths.nbytes, 1))
        self._memory.read(place, lengths.nbytes)[...] = lengths.view(np.uint8)
        self.lengths = Area(None, place)

    def rows(self, shape: Shape, axes: int = 4) -> Area:
        """A fresh array, NaN, with rows padded to 16 bytes."""
        whole = (*shape[:3], padded(shape[3]))
        nbytes = 2 * int(np.prod(whole))
        place = self._memory.allocate(max(nbytes, 1))
        bits = self._memory.read(place, nbytes).view(np.uint16).reshape(whole)
        array = bits[..., : shape[3]]
        return Area(array[(0,) * (4 - axes)], place, shape, padded_strides(shape))

    def side_by_side(self, shape: Shape) -> Area:
        """The same, with all heads of a row together."""
        batch, heads, rows, dim = shape
        stored = self.rows((batch, rows, heads, dim))
        array = stored.memory.swapaxes(1, 2)
        return Area(array, stored.address, shape, array.strides)

    def areas(self, *sizes: int) -> list[Area]:
        """Fresh memory."""
        return [Area(None, self._memory.allocate(max(nbytes, 1))) for nbytes in sizes]

    def readable(self, area: Area) -> Area:
        """The array, or a copy in the emulated GPU's memory."""
        if area.readable:
            return area
        fresh = self.rows(area.shape)
        fresh.memory[...] = area.memory
        return fresh

    def launch(self, stage: Stage, areas: Mapping[str, Area], boxes: Mapping[str, int] | None = None) -> None:
        """Run a stage."""
        if not stage.grid:
            return
        values: dict[str, int] = dict.fromkeys((name for name, _ in stage.entry.parameters), 0)
        values |= stage.numbers
        for name, area in areas.items():
            values[name] = area.address
            for axis, step in zip(("batch", "head", "row"), area.strides[:3], strict=True):
                if f"{name}_{axis}" in values:
                    values[f"{name}_{axis}"] = step
        values |= {f"{name}_map": self._map(areas[name], rows) for name, rows in (boxes or {}).items()}
        launch(stage.render(), stage.name, stage.entry, values, self._memory, self._maps, grid=stage.grid)

    def _map(self, area: Area, rows: int) -> int:
        """The address of a tensor map: of its number."""
        layout = Layout(area.shape, area.strides, self._operands.problem.dtype)
        self._maps.append(box_arguments(area.address, layout, rows, self.lengths.address))
        found = self._memory.allocate(MAP_BYTES)
        self._memory.read(found, 8).view(np.uint64)[0] = len(self._maps) - 1
        return found

    def slots(self) -> tuple[Area, Area]:
        """E k and F v."""
        problem = replace(self._operands.problem, method="low_rank")
        run = EmulatedCall(self._operands, forward_plan(problem, MULTIPROCESSORS))
        run.stages()
        return _operand(run.rows("k_slots")), _operand(run.rows("v_slots"))

    def cut(self, array: Bits, columns: int) -> Bits:
        """A view."""
        return array[..., :columns]

    def product(self, a: Bits, b: Bits) -> Bits:
        """In float32, as tensor cores accumulate."""
        dtype = self._operands.problem.dtype
        return narrow(widen(a, dtype) @ widen(b, dtype), dtype)
