"""Gradients on the emulator: the Runner whose arrays are views into an emulated GPU's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.emulated.composed import attend_vjp as compose
from flurka_numba.emulated.forward import MULTIPROCESSORS, EmulatedCall
from flurka_numba.gpu.checks import check_supported
from flurka_numba.gpu.composed.plan import composes_gradients
from flurka_numba.gpu.gradients import Area, attend_with_gradients, box_arguments, in_order
from flurka_numba.gpu.plan import forward_plan
from flurka_numba.gpu.stages import Stage
from flurka_numba.operands import Operands, export_out, import_call, import_dout, widen
from flurka_numba.problem import Call
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch
from splat_numba.runtime.arrays import export_array, narrow
from splat_numba.runtime.cuda.copies import padded
from splat_numba.runtime.cuda.tensor_map import MAP_BYTES, Layout, TensorMapArguments

Bits = NDArray[np.uint16]


def attend_vjp(call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients). Raises EmulationError for a fault in a text."""
    operands = import_call(call)
    check_supported(operands.problem)
    if composes_gradients(operands.problem):
        return compose(call, operands, frozen)
    runner = EmulatedRunner(operands)
    given = {"q": operands.q, "k": operands.k, "v": operands.v}
    for name, proj in (("proj_k", operands.proj_k), ("proj_v", operands.proj_v)):
        if proj is not None:
            given[name] = proj[None]
    found, pull = attend_with_gradients(operands.problem, given, runner.lengths, runner, frozen)
    operands.out[...] = found
    axes = {name: np.ndim(getattr(call, name)) for name in given}

    def vjp(dout: Any) -> tuple[Any, ...]:
        gradients = in_order(pull(import_dout(call, operands, dout)), axes)
        return tuple(
            None if one is None else export_array(np.array(one), operands.problem.dtype, call.q) for one in gradients
        )

    return export_out(call, operands), vjp


class EmulatedRunner:
    """Arrays are 16-bit words; those that rows() gave are memory of the emulated GPU."""

    multiprocessors = MULTIPROCESSORS

    def __init__(self, operands: Operands) -> None:
        self._operands = operands
        self._memory = GlobalMemory()
        self._maps: list[TensorMapArguments] = []
        self._places: dict[int, tuple[Any, int]] = {}  # of an array's id, which stays its own while it is held here
        lengths = operands.kv_lengths.astype(np.int32)
        place = self._memory.allocate(max(lengths.nbytes, 1))
        self._memory.read(place, lengths.nbytes)[...] = lengths.view(np.uint8)
        self.lengths = place

    def rows(self, shape: tuple[int, int, int, int]) -> Any:
        """A fresh array, NaN, with rows padded to 16 bytes."""
        whole = (*shape[:3], padded(shape[3]))
        nbytes = 2 * int(np.prod(whole))
        place = self._memory.allocate(max(nbytes, 1))
        bits = self._memory.read(place, nbytes).view(np.uint16).reshape(whole)
        array = bits[..., : shape[3]]
        self._places[id(array)] = (array, place)
        return array

    def side_by_side(self, shape: tuple[int, int, int, int]) -> Any:
        """The same, with all heads of a row together."""
        batch, heads, rows, dim = shape
        stored = self.rows((batch, rows, heads, dim))
        array = stored.swapaxes(1, 2)
        self._places[id(array)] = (array, self._places[id(stored)][1])
        return array

    def areas(self, *sizes: int) -> list[Area]:
        """Fresh memory."""
        return [Area(None, self._memory.allocate(max(nbytes, 1))) for nbytes in sizes]

    def readable(self, array: Any) -> Any:
        """The array, or a copy in the emulated GPU's memory."""
        if id(array) in self._places:
            return array
        fresh = self.rows(array.shape)
        fresh[...] = array
        return fresh

    def launch(self, stage: Stage, arrays: Mapping[str, Any], boxes: Mapping[str, int] | None = None) -> None:
        """Run a stage."""
        if not stage.grid:
            return
        values: dict[str, int] = dict.fromkeys((name for name, _ in stage.entry.parameters), 0)
        values |= stage.numbers
        for name, array in arrays.items():
            if array is None or isinstance(array, int):
                values[name] = array or 0
                continue
            values[name] = self._place(array)
            values |= {f"{name}_{axis}": step for axis, step in zip(("batch", "head", "row"), array.strides)}  # noqa: B905
        values |= {f"{name}_map": self._map(arrays[name], rows) for name, rows in (boxes or {}).items()}
        launch(stage.render(), stage.name, stage.entry, values, self._memory, self._maps, grid=stage.grid)

    def _place(self, array: Any) -> int:
        return array.address if isinstance(array, Area) else self._places[id(array)][1]

    def _map(self, array: Any, rows: int) -> int:
        """The address of a tensor map: of its number."""
        place = self._place(array)
        layout = Layout(array.shape, array.strides, self._operands.problem.dtype)
        self._maps.append(box_arguments(place, layout, rows, self.lengths))
        found = self._memory.allocate(MAP_BYTES)
        self._memory.read(found, 8).view(np.uint64)[0] = len(self._maps) - 1
        return found

    def slots(self) -> tuple[Any, Any]:
        """E k and F v."""
        problem = replace(self._operands.problem, method="low_rank")
        run = EmulatedCall(self._operands, forward_plan(problem, MULTIPROCESSORS))
        run.stages()
        return run.rows("k_slots"), run.rows("v_slots")

    def cut(self, array: Bits, columns: int) -> Bits:
        """A view."""
        return array[..., :columns]

    def product(self, a: Bits, b: Bits) -> Bits:
        """In float32, as tensor cores accumulate."""
        dtype = self._operands.problem.dtype
        return narrow(widen(a, dtype) @ widen(b, dtype), dtype)
