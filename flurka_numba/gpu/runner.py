"""Gradients' stages on a GPU: a framework's arrays as addresses and strides, and launches on their stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from flurka_numba.gpu.call import layout_of, make_slots
from flurka_numba.gpu.checks import place_lengths
from flurka_numba.gpu.gradients import Area, box_arguments
from flurka_numba.gpu.launches import stage_cubin
from flurka_numba.gpu.stages import Stage
from flurka_numba.problem import Call, Problem
from splat_numba.runtime.cuda.arrays import (
    JAX,
    Framework,
    describe_operand,
)
from splat_numba.runtime.cuda.copies import move, padded, padded_strides
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.launch import Launch, is_capturing, load
from splat_numba.runtime.cuda.memory import Upload, memory, undisturbed
from splat_numba.runtime.cuda.tables import pool
from splat_numba.runtime.cuda.tensor_map import MAP_BYTES, Layout, describable, encode
from splat_numba.settings import current


@dataclass(frozen=True, slots=True)
class Checked:
    """What a call's checks found: its problem, its arrays' layouts by name, and which device they are on. composed:
    float32 arithmetic computes it, see composed/plan.py.
    """

    problem: Problem
    layouts: dict[str, Layout]
    device: int
    composed: bool


def with_leading(array: Any) -> Any:
    """Of four axes."""
    missing = 4 - len(array.shape)
    return array[(None,) * missing] if missing else array


def without_leading(array: Any, axes: int) -> Any:
    """Of so many axes again."""
    return array[(0,) * (4 - axes)] if axes < 4 else array


Place = tuple[int, tuple[int, ...]]  # an address, and strides in bytes where there are any
AREA_ALIGNMENT = 256  # of parts of an array; frameworks' allocators align the first one so
AXES = {"batch": 0, "head": 1, "row": 2}  # whose strides stages take
_functions: dict[tuple[int, int], ReadyStage] = {}  # by a stage's identity, which is its own while it is held
LARGEST_FUNCTIONS = 4096


class ReadyStage:
    """A stage's launch on one device, whose context must be current. Plans are remembered, and so are their stages: to
    print a text again, or only to collect a launch's parameters, takes longer than to run it.
    """

    def __init__(self, stage: Stage, ordinal: int) -> None:
        cubin = stage_cubin(stage.name, stage.render(), stage.entry, current())
        with undisturbed():
            function = load(cubin.code, cubin.report.symbol, ordinal, stage.entry.shared_bytes)
        self.stage = stage
        names = {name for name, _ in stage.entry.parameters}
        numbers = dict.fromkeys(names, 0) | {name: one for name, one in stage.numbers.items() if name in names}
        self._launch = Launch(function, stage.entry, stage.grid, numbers)
        steps = {f"{name}_{axis}" for name in names for axis in AXES}
        self._operands = tuple(
            (name, tuple((f"{name}_{axis}", place) for axis, place in AXES.items() if f"{name}_{axis}" in names))
            for name, kind in stage.entry.parameters
            if kind == "l" and name not in steps
        )

    def run(self, stream: int, places: Mapping[str, Place]) -> None:
        """Launch. places: addresses and strides by name; pointers that have none are 0."""
        launch = self._launch
        with launch.lock:  # the driver copies the parameters before it returns
            parameters = launch.parameters
            for name, axes in self._operands:
                pointer, strides = places.get(name, _NOWHERE)
                setattr(parameters, name, pointer)
                if strides:
                    for step, place in axes:
                        setattr(parameters, step, strides[place])
            launch.run(stream)


_NOWHERE: Place = (0, ())


def _ready_stage(stage: Stage, ordinal: int) -> ReadyStage:
    found = _functions.get((id(stage), ordinal))
    if found is None:
        if len(_functions) >= LARGEST_FUNCTIONS:
            _functions.clear()
        found = _functions[id(stage), ordinal] = ReadyStage(stage, ordinal)
    return found


class CudaRunner:
    """Arrays of one framework; memory comes from its allocator, which knows its stream."""

    def __init__(self, call: Call, checked: Checked, framework: Framework) -> None:
        self._call, self._framework = call, framework
        self._problem = problem = checked.problem
        self._device: Device = device(checked.device)
        self.multiprocessors = self._device.multiprocessors
        self._stream = self._stream_of([call.q])
        with self._device.current():
            self.lengths, self._keep = place_lengths(call, problem, self._device, framework, self._stream)

        self._known: dict[int, tuple[Any, Place]] = {}  # arrays, addresses and strides by identity
        self._maps = pool(self._device, MAP_BYTES)
        self._kept = self._known
        self._operands: set[int] = set()
        self._capturing = False

    def _stream_of(self, arrays: list[Any]) -> int:
        return self._framework.stream(arrays, self._device.ordinal)

    @contextmanager
    def at_work(self, arrays: list[Any]) -> Iterator[None]:
        """Launch on the stream of these arrays; then make results safe to use, where the framework does not know it."""
        self._stream = self._stream_of(arrays)
        entered = self._device.enter()
        try:
            self._capturing = is_capturing(self._stream)
            yield
            self._framework.finish(self._stream)
        finally:
            if entered:
                self._device.leave()

    def remember(self) -> None:
        """Keep the operands, which the gradients to come hold as well; let go of results."""
        self._kept = {number: one for number, one in self._known.items() if number in self._operands}
        self._known = dict(self._kept)

    def forget(self) -> None:
        """Let go of what was made since."""
        self._known = dict(self._kept)

    def know(self, array: Any, pointer: int, layout: Layout) -> None:
        """Spare an operand that stages can read in place another look."""
        if describable(pointer, layout):
            self._known[id(array)] = array, (pointer, layout.strides)
            self._operands.add(id(array))

    def rows(self, shape: tuple[int, int, int, int]) -> Any:
        """A fresh array with rows padded to 16 bytes."""
        whole = self._framework.empty((*shape[:3], padded(shape[3])), self._problem.dtype, self._call.q)
        found = whole if padded(shape[3]) == shape[3] else whole[..., : shape[3]]
        return self._made(found, whole, padded_strides(shape))

    def side_by_side(self, shape: tuple[int, int, int, int]) -> Any:
        """The same, stored as (batch, rows, heads, dim); not of JAX, where a view is a copy, or where there is none."""
        batch, heads, rows, dim = shape
        if self._framework is JAX or not hasattr(self._call.q, "swapaxes"):
            return self.rows(shape)
        whole = self._framework.empty((batch, rows, heads, padded(dim)), self._problem.dtype, self._call.q)
        found = (whole if padded(dim) == dim else whole[..., :dim]).swapaxes(1, 2)
        batch_step, row_step, head_step, step = padded_strides((batch, rows, heads, dim))
        return self._made(found, whole, (batch_step, head_step, row_step, step))

    def _made(self, array: Any, whole: Any, strides: tuple[int, ...]) -> Any:
        self._known[id(array)] = array, (self._framework.address(whole), strides)
        return array

    def areas(self, *sizes: int) -> list[Area]:
        """Parts of one array."""
        *starts, nbytes = accumulate((-(-size // AREA_ALIGNMENT) * AREA_ALIGNMENT for size in sizes), initial=0)
        memory = self._framework.empty((max(nbytes, 1),), "uint8", self._call.q)
        address = self._framework.address(memory)
        return [Area(memory, address + start) for start in starts]

    def readable(self, array: Any) -> Any:
        """The array, or a copy with padded rows where its strides do not allow loads of 16 bytes."""
        if id(array) in self._known:
            return array
        found = describe_operand("array", array, self._framework)
        layout = layout_of(found)
        self.know(array, found.pointer, layout)
        if id(array) in self._known:
            return array
        fresh = self.rows(layout.sizes)
        self._operands.add(id(fresh))
        self.copy(array, fresh)
        return fresh

    def copy(self, source: Any, target: Any) -> None:
        """Copy between any strides, in the order of the stream."""
        a, b = (self._framework.describe("array", one) for one in (source, target))
        shape = (a.shape[0], a.shape[1], a.shape[2], a.shape[3])
        with self._device.current():
            move(b.pointer, b.strides, a.pointer, a.strides, shape, self._stream)

    def launch(self, stage: Stage, arrays: Mapping[str, Any], boxes: Mapping[str, int] | None = None) -> None:
        """Run a stage, at_work()."""
        if not stage.grid:
            return
        places = {name: self._place(array) for name, array in arrays.items()}
        for name, rows in (boxes or {}).items():
            places[f"{name}_map"] = self._map(arrays[name].shape, *places[name], rows), ()
        _ready_stage(stage, self._device.ordinal).run(self._stream, places)

    def _place(self, array: Any) -> Place:
        if array is None or isinstance(array, int):
            return array or 0, ()
        if isinstance(array, Area):
            return array.address, array.strides
        known = self._known.get(id(array))
        if known is not None:
            return known[1]
        found = self._framework.describe("array", array)
        return found.pointer, found.strides

    def _map(self, shape: tuple[int, ...], pointer: int, strides: tuple[int, ...], rows: int) -> int:
        """The address of an array's tensor map, remembered: an allocator gives the same memory again and again."""
        dtype = self._problem.dtype

        def make() -> Any:
            sizes, steps = ((one[0], one[1], one[2], one[3]) for one in (shape, strides))
            return encode(box_arguments(pointer, Layout(sizes, steps, dtype), rows, _spare(self._device).address))

        return self._maps.get(("rows", pointer, tuple(shape), strides, dtype, rows), make, lambda: self._capturing)

    def slots(self) -> tuple[Any, Any]:
        """E k and F v."""
        k, v = (with_leading(array) for array in make_slots(self._call, self._framework))
        for array in () if self._framework is JAX else (k, v):  # a part of a JAX array is a copy, of other strides
            batch, heads, rank, dim = array.shape
            sizes = (batch, heads, rank, dim)
            layout = Layout(sizes, padded_strides(sizes), self._problem.dtype)
            self.know(array, self._framework.address(array), layout)
        return k, v

    def cut(self, array: Any, columns: int) -> Any:
        """A view; of JAX a copy, not before the launches."""
        if array.shape[-1] == columns:
            return array
        self._framework.finish(self._stream)
        return array[..., :columns]

    def product(self, a: Any, b: Any) -> Any:
        """The framework's own product: cuBLAS accumulates in float32."""
        self._framework.finish(self._stream)
        return a @ b


@cache
def _spare(target: Device) -> Upload:
    """A valid address, for tensor maps of empty arrays."""
    return Upload(memory(target), np.zeros(16, np.uint32))
