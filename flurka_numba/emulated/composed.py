"""Calls in float32 on the emulator: a Machine whose memory is an emulated GPU's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.checks import ARRAYS
from flurka_numba.emulated.forward import MULTIPROCESSORS
from flurka_numba.gpu.composed.attention import Composed, Given
from flurka_numba.gpu.composed.matrix import Extent, Matrix, dense, dense_bytes, padded_columns
from flurka_numba.gpu.composed.plan import composed_plan
from flurka_numba.operands import Operands, export_out, import_dout
from flurka_numba.problem import ITEMSIZE, Call
from flurka_numba.targets.simt.text import Text
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch
from splat_numba.runtime.arrays import export_array

WORD = 4  # bytes: 16-bit numbers are read in pairs


def attend(operands: Operands) -> None:
    """Write operands.out. Raises EmulationError for a fault in a text."""
    _forward(operands)


def attend_vjp(call: Call, operands: Operands, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients). Raises EmulationError."""
    machine, composed, given = _forward(operands)
    problem = operands.problem

    def vjp(dout: Any) -> tuple[Any, ...]:
        found = composed.pull(given, machine.place(import_dout(call, operands, dout), problem.dtype), frozen)
        gradients: list[Any] = []
        for name in ARRAYS:
            if name not in found:
                gradients.append(None)
                continue
            bits = machine.read(found[name]).reshape(np.shape(getattr(call, name)))
            gradients.append(export_array(bits.copy(), problem.dtype, call.q))
        return tuple(gradients)

    return export_out(call, operands), vjp


def _forward(operands: Operands) -> tuple[EmulatedMachine, Composed, Given]:
    problem, machine = operands.problem, EmulatedMachine(operands.problem.dtype)
    arrays = {"q": operands.q, "k": operands.k, "v": operands.v}
    if operands.proj_k is not None:
        arrays["proj_k"] = operands.proj_k[None]
        arrays["proj_v"] = arrays["proj_k"] if operands.proj_v is None else operands.proj_v[None]
    placed = {name: machine.place(array, problem.dtype) for name, array in arrays.items()}
    lengths = machine.place(operands.kv_lengths.astype(np.int32)[None, None, None], "float32").address
    omega = None if operands.omega is None else machine.place(operands.omega[None, None], "float32")
    given = Given(placed, lengths if problem.ragged else 0, omega)
    composed = Composed(composed_plan(problem), problem, given, machine)
    held, out = machine.rows("out", (problem.batch, problem.heads, problem.seq_q, problem.value_dim))
    composed.forward(given, out)
    operands.out[...] = machine.read(held)
    return machine, composed, given


class EmulatedMachine:
    """What it gives are addresses in an emulated GPU's memory, which is NaN until it is written."""

    multiprocessors = MULTIPROCESSORS

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._memory = GlobalMemory()

    def place(self, array: NDArray[Any], dtype: str) -> Matrix:
        """A copy with the strides that the array has, gaps and all; axes of which there is one are shared."""
        steps = [step if size > 1 else 0 for step, size in zip(array.strides, array.shape, strict=True)]
        if any(step < 0 for step in steps) or array.size == 0:
            array = np.ascontiguousarray(array)
            steps = list(array.strides)
        reach = sum(step * (max(size, 1) - 1) for step, size in zip(steps, array.shape, strict=True)) + array.itemsize
        address = self._memory.allocate(-(-reach // WORD) * WORD)
        buffer = self._memory.read(address, reach)
        view = np.ndarray(array.shape, array.dtype, buffer.data, 0, steps) if array.size else array
        view[...] = array
        return Matrix(address, dtype, (steps[0], steps[1], steps[2], steps[3]))

    def words(self, nbytes: int) -> tuple[Any, int]:
        """Fresh memory."""
        return None, self._memory.allocate(max(nbytes, WORD))

    def rows(self, name: str, shape: tuple[int, int, int, int]) -> tuple[Any, Matrix]:
        """Fresh memory for a result; read() has what was written."""
        extent = Extent(*shape[:3])
        address = self._memory.allocate(max(dense_bytes(self._dtype, extent, shape[3]), WORD))
        return (address, shape), dense(address, self._dtype, extent, shape[3])

    def read(self, held: tuple[int, tuple[int, int, int, int]]) -> NDArray[Any]:
        """A result, 16-bit numbers as uint16."""
        address, shape = held
        row = padded_columns(shape[3], self._dtype)
        nbytes = int(np.prod(shape[:3])) * row * ITEMSIZE[self._dtype]
        bits = self._memory.read(address, nbytes).view(np.uint16 if ITEMSIZE[self._dtype] == 2 else np.float32)
        found: NDArray[Any] = bits.reshape(*shape[:3], row)[..., : shape[3]]
        return found

    def launch(self, text: Text, grid: int, values: Mapping[str, int | float]) -> None:
        """Run a text."""
        entry = text.entry
        if unknown := values.keys() ^ {name for name, _ in entry.parameters}:
            raise TypeError(f"{text.name}: {sorted(unknown)}")
        launch(text.render(), text.name, entry, values, self._memory, [], grid=grid)
