"""Gradients on the emulator: the Runner whose arrays are views into an emulated GPU's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.emulated_kernel import MULTIPROCESSORS, EmulatedCall
from flurka_numba.gpu_call import check_supported
from flurka_numba.gpu_gradients import attend_with_gradients, check_gradients, in_order
from flurka_numba.gpu_plan import Stage, forward_plan
from flurka_numba.operands import Operands, export_out, import_call, import_dout
from flurka_numba.problem import Call
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch
from splat_numba.runtime.arrays import export_array
from splat_numba.runtime.cuda.copies import padded

Bits = NDArray[np.uint16]


def attend_vjp(call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients). Raises EmulationError for a fault in a text."""
    operands = import_call(call)
    check_supported(operands.problem)
    check_gradients(operands.problem)
    runner = EmulatedRunner(call, operands)
    given = {"q": operands.q, "k": operands.k, "v": operands.v}
    for name, proj in (("proj_k", operands.proj_k), ("proj_v", operands.proj_v)):
        if proj is not None:
            given[name] = proj[None]
    arrays = {name: runner.numbers(bits) for name, bits in given.items()}
    found, pull = attend_with_gradients(operands.problem, arrays, runner.lengths, runner, frozen)
    operands.out[...] = np.asarray(found).view(np.uint16)
    axes = {name: np.ndim(getattr(call, name)) for name in arrays}

    def vjp(dout: Any) -> tuple[Any, ...]:
        gradients = pull(runner.numbers(import_dout(call, operands, dout)))
        return in_order({name: np.array(one) for name, one in gradients.items()}, axes)

    return export_out(call, operands), vjp


class EmulatedRunner:
    """Arrays are numbers of the problem's dtype; those that rows() and words() gave are memory of the emulated GPU."""

    multiprocessors = MULTIPROCESSORS

    def __init__(self, call: Call, operands: Operands) -> None:
        self._call, self._operands = call, operands
        self._memory = GlobalMemory()
        self._places: dict[int, tuple[Any, int]] = {}  # of an array's id, which stays its own while it is held here
        lengths = operands.kv_lengths.astype(np.int32)
        place = self._memory.allocate(max(lengths.nbytes, 1))
        self._memory.read(place, lengths.nbytes)[...] = lengths.view(np.uint8)
        self.lengths = place

    def numbers(self, bits: Bits) -> Any:
        """16-bit words as numbers of the caller's dtype."""
        return export_array(np.ascontiguousarray(bits), self._operands.problem.dtype, self._call.q)

    def rows(self, shape: tuple[int, int, int, int]) -> Any:
        """A fresh array, NaN, with rows padded to 16 bytes."""
        whole = (*shape[:3], padded(shape[3]))
        nbytes = 2 * int(np.prod(whole))
        place = self._memory.allocate(max(nbytes, 1))
        bits = self._memory.read(place, nbytes).view(np.uint16).reshape(whole)
        array = export_array(bits, self._operands.problem.dtype, self._call.q)[..., : shape[3]]
        self._places[id(array)] = (array, place)
        return array

    def words(self, nbytes: int) -> Any:
        """Fresh memory."""
        place = self._memory.allocate(max(nbytes, 1))
        array = self._memory.read(place, nbytes)
        self._places[id(array)] = (array, place)
        return array

    def readable(self, array: Any) -> Any:
        """The array, or a copy in the emulated GPU's memory."""
        if id(array) in self._places:
            return array
        fresh = self.rows(array.shape)
        fresh[...] = array
        return fresh

    def launch(self, stage: Stage, arrays: Mapping[str, Any]) -> None:
        """Run a stage."""
        if not stage.grid:
            return
        values: dict[str, int] = dict.fromkeys((name for name, _ in stage.entry.parameters), 0)
        values |= stage.numbers
        for name, array in arrays.items():
            if array is None or isinstance(array, int):
                values[name] = array or 0
                continue
            values[name] = self._places[id(array)][1]
            if array.ndim == 4:
                values |= {f"{name}_{axis}": step for axis, step in zip(("batch", "head", "row"), array.strides)}  # noqa: B905
        launch(stage.render(), stage.name, stage.entry, values, self._memory, [], grid=stage.grid)

    def slots(self) -> tuple[Any, Any]:
        """E k and F v."""
        problem = replace(self._operands.problem, method="low_rank")
        run = EmulatedCall(self._operands, forward_plan(problem, MULTIPROCESSORS))
        run.stages()
        return self.numbers(run.rows("k_slots")), self.numbers(run.rows("v_slots"))

    def product(self, a: Any, b: Any) -> Any:
        """In float32, as tensor cores accumulate."""
        return (np.asarray(a, np.float32) @ np.asarray(b, np.float32)).astype(self._call.q.dtype)
