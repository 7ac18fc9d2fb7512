"""Schedules of a CPU as programs that XLA calls: launches over parts of the call's buffers and of scratch memory.

What a schedule does in NumPy between its launches is here a compiled function. Who records says which: a table from
NumPy's functions to *forms*, each of which adds a step's launches, or names a view and adds none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from splat_numba.gen.language.cpu_entry import CpuEntry, Parameter, arrays, numbers
from splat_numba.gen.schedules.array_schedule import ArraySchedule, FreshStep, NumpyStep, RangeStep
from splat_numba.runtime.compile import CompiledText, compile_file
from splat_numba.runtime.cpu.code import signature_of
from splat_numba.runtime.xla import layout, steps
from splat_numba.runtime.xla.program import Argument, BufferView, Program, ProgramLaunch
from splat_numba.settings import Settings

ALIGNMENT = 64  # bytes, of parts of the scratch memory, as XLA's own buffers have it
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "int32": 4, "float64": 8, "int64": 8}
NO_MEMORY = "splat_numba found no memory for a kernel's tiles.", layout.RESOURCE_EXHAUSTED


@dataclass(frozen=True, slots=True)
class XlaCall:
    """A program and the bytes of scratch memory, its last result, that it wants; 0 for none."""

    program: Program
    scratch: int


@dataclass(slots=True)
class Recorder:
    """Collects launches over named arrays. buffers: of the call, by name. forms: see above. places: where a schedule's
    fresh arrays of these names are to be, instead of in scratch memory.
    """

    buffers: dict[str, Argument]
    scratch_buffer: int
    settings: Settings
    threads: int
    forms: Mapping[Callable[..., Any], Form]
    places: Mapping[str, BufferView] = field(default_factory=dict)
    scratch: int = 0
    launches: list[ProgramLaunch] = field(default_factory=list)

    def fresh(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Name a part of the scratch memory."""
        itemsize = ITEMSIZE[dtype]
        self.buffers[name] = BufferView(self.scratch_buffer, self.scratch, shape, dense(shape, itemsize), itemsize)
        size = itemsize * int(np.prod(shape, dtype=np.int64))
        self.scratch += max(-(-size // ALIGNMENT), 1) * ALIGNMENT  # an empty part has an address, too

    def add(self, schedule: ArraySchedule, compiled: CompiledText, keep: tuple[str, ...] = ()) -> None:
        """The steps of a schedule, whose own arrays are forgotten after it, but for those to keep."""
        outer = dict(self.buffers)
        self.buffers.update(schedule.tables)
        for step in schedule.steps:
            if isinstance(step, FreshStep):
                self._make(step)
            elif isinstance(step, RangeStep) and step.limits is None:
                self._launch(step, compiled)
            elif isinstance(step, NumpyStep):
                self._compute(step)
            else:
                raise NotImplementedError(f"no compiled form of {step}")
        self.buffers = outer | {name: self.buffers[name] for name in keep}

    def _make(self, step: FreshStep) -> None:
        if step.target in self.places:
            self.buffers[step.target] = self.places[step.target]
        else:
            self.fresh(step.target, step.shape, step.dtype)
        if step.zeroed:
            self.clear(step.target, step.dtype)

    def _launch(self, step: RangeStep, compiled: CompiledText) -> None:
        given = {name: self.buffers[of] for name, of in step.arrays.items()} | dict(step.numbers)
        self.launches.append(ProgramLaunch(compiled, step.entry, step.items, given, self.threads, NO_MEMORY))

    def _compute(self, step: NumpyStep) -> None:
        """A step of NumPy's, by its form."""
        bound = step.function.args if isinstance(step.function, partial) else ()
        function = step.function.func if isinstance(step.function, partial) else step.function
        if function not in self.forms:
            raise NotImplementedError(f"no compiled form of {step}")
        self.forms[function](self, step, *bound)

    def call(
        self, function: str, parameters: tuple[Parameter, ...], given: Mapping[str, Any], items: int,
        error: tuple[str, int] = NO_MEMORY, module: ModuleType = steps,
    ) -> None:  # fmt: skip
        """A function of a module of ours; given: names of buffers, or views, or numbers."""
        if not items:
            return
        entry = CpuEntry(function, parameters)
        compiled = compile_file(module, ((function, signature_of(entry)),), self.settings)
        arguments = {name: self.buffers[of] if isinstance(of, str) else of for name, of in given.items()}
        self.launches.append(ProgramLaunch(compiled, entry, items, arguments, self.threads, error))

    def clear(self, name: str, dtype: str) -> None:
        """Zeros in a contiguous buffer."""
        found = self.view(name)
        rows, width = int(np.prod(found.shape[:-1], dtype=np.int64)), found.shape[-1]
        flat = replace(found, shape=(rows, width), strides=(width * found.itemsize, found.itemsize))
        kinds = arrays(dtype, 2, "target", contiguous=True, written=True)
        self.call("clear_rows", kinds, {"target": flat}, rows if width else 0)

    def add_lengths(self, given: int | None, batch: int, seq_kv: int) -> None:
        """The buffer kv_lengths, as kernels read them: all of the keys, or widened from a buffer of int32."""
        if given is None:
            self.buffers["kv_lengths"] = np.full(batch, seq_kv, np.int64)
            return
        self.buffers["given"] = BufferView(given, 0, (batch,), (4,), 4)
        self.fresh("kv_lengths", (batch,), "int64")
        error = f"kv_lengths wanted between 0 and seq_kv = {seq_kv}, got others. Correct them."
        kinds = (
            *arrays("int32", 1, "given", contiguous=True),
            *arrays("int64", 1, "lengths", contiguous=True, written=True),
            *numbers("int64", "most"),
        )
        named = {"given": "given", "lengths": "kv_lengths", "most": seq_kv}
        self.call("widen_lengths", kinds, named, batch, (error, layout.INVALID_ARGUMENT))

    def view(self, name: str) -> BufferView:
        """A buffer of the call. Raises TypeError for a constant array."""
        found = self.buffers[name]
        if not isinstance(found, BufferView):
            raise TypeError(f"{name} is no buffer of the call")
        return found

    def size(self, name: str) -> int:
        """Of a buffer's or table's first axis."""
        found = self.buffers[name]
        return found.size if isinstance(found, np.ndarray) else self.view(name).shape[0]

    def finish(self, arguments: int, results: int) -> XlaCall:
        """The program of a call with so many arguments, and results beside the scratch memory."""
        more = 1 if self.scratch else 0
        return XlaCall(Program(tuple(self.launches), arguments, results + more), self.scratch)


Form: TypeAlias = Callable[..., None]


def dense(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides of an array in C order, in bytes."""
    strides = [itemsize]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))
