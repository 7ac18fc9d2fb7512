"""Gradients' stages on a GPU: memory from the caller's framework, and launches on its stream."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from flurka_numba.gpu.call import Ready, write_slots
from flurka_numba.gpu.checks import place_lengths
from flurka_numba.gpu.gradient_plan import Shape
from flurka_numba.gpu.gradients import Area, row_bytes
from flurka_numba.gpu.launches import box_arguments, stage_cubin, starts_of
from flurka_numba.gpu.stages import Stage
from flurka_numba.problem import Call, Problem
from splat_numba.runtime.cuda.copies import move, padded, padded_strides
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.frameworks import Framework
from splat_numba.runtime.cuda.launch import Launch, is_capturing, load
from splat_numba.runtime.cuda.memory import Upload, memory, undisturbed
from splat_numba.runtime.cuda.tables import pool
from splat_numba.runtime.cuda.tensor_map import ALIGNMENT, MAP_BYTES, Layout, describable, encode
from splat_numba.settings import current


@dataclass(frozen=True, slots=True)
class Checked:
    """What a call's checks found: its problem, what its arrays are by name, and which device they are on. slots: makes
    FLuRKA's slots, None where there are none. composed: float32 arithmetic computes the call, see composed/plan.py.
    """

    problem: Problem
    operands: dict[str, Operand]
    device: int
    slots: Ready | None
    composed: bool


class Operand:
    """A caller's array but for its address."""

    def __init__(self, layout: Layout) -> None:
        self._sizes, self._strides = layout.sizes, layout.strides
        self._readable = describable(0, layout)  # at an aligned address

    def at(self, pointer: int, array: Any) -> Area:
        """As stages see it."""
        return Area(array, pointer, self._sizes, self._strides, self._readable and not pointer % ALIGNMENT)


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
        # Pointers and strides are words of 8 bytes: to set one by its number takes half as long as by its name.
        parameters = self._launch.parameters
        self._words = (ctypes.c_uint64 * (ctypes.sizeof(parameters) // 8)).from_buffer(parameters)
        offsets = {name: getattr(type(parameters), name).offset for name, kind in stage.entry.parameters if kind == "l"}
        words = {name: offset // 8 for name, offset in offsets.items()}
        steps = {f"{name}_{axis}" for name in names for axis in AXES}
        self._operands = tuple(
            (name, word, tuple((words[f"{name}_{axis}"], at) for axis, at in AXES.items() if f"{name}_{axis}" in names))
            for name, word in words.items()
            if name not in steps
        )

    def run(self, stream: int, areas: Mapping[str, Area]) -> None:
        """Launch. areas: pointers and strides by name; pointers that have none are 0."""
        words = self._words
        with self._launch.lock:  # the driver copies the parameters before it returns
            for name, word, steps in self._operands:
                area = areas.get(name, _NOWHERE)
                words[word] = area.address
                strides = area.strides
                for step, axis in steps:
                    words[step] = strides[axis]
            self._launch.run(stream)


_NOWHERE = Area(None, 0)


def _ready_stage(stage: Stage, ordinal: int) -> ReadyStage:
    found = _functions.get((id(stage), ordinal))
    if found is None:
        if len(_functions) >= LARGEST_FUNCTIONS:
            _functions.clear()
        found = _functions[id(stage), ordinal] = ReadyStage(stage, ordinal)
    return found


class CudaRunner:
    """Arrays of one framework; memory comes from its allocator, which knows its stream. operands: as the call gave them
    to its checks.
    """

    def __init__(self, call: Call, checked: Checked, operands: Sequence[Area], framework: Framework) -> None:
        self._call, self._checked, self._operands, self._framework = call, checked, operands, framework
        self._problem = checked.problem
        self._device: Device = device(checked.device)
        self.multiprocessors = self._device.multiprocessors
        self._stream = framework.stream([call.q], checked.device)
        self.lengths = _NOWHERE
        if call.kv_lengths is not None:
            with self._device.current():
                place, keep = place_lengths(call, checked.problem, self._device, framework, self._stream)
            self.lengths = Area(keep, place)
        self._maps = pool(self._device, MAP_BYTES)
        self._held: list[Any] = []  # what launches may still use
        self._capturing = False

    @contextmanager
    def at_work(self, arrays: Sequence[Any]) -> Iterator[None]:
        """Launch on the stream of these arrays; then make results safe to use, where the framework does not know it."""
        self._stream = self._framework.stream(arrays, self._device.ordinal)
        entered = self._device.enter()
        try:
            self._capturing = is_capturing(self._stream)
            yield
            self._framework.finish(self._stream)
        finally:
            self._held.clear()
            if entered:
                self._device.leave()

    def _empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Fresh memory, held while this is at work, even if nobody else does: JAX does not know our stream."""
        made = self._framework.empty(shape, dtype, self._call.q)
        self._held.append(made)
        return made

    def rows(self, shape: Shape, axes: int = 4) -> Area:
        """A fresh array with rows padded to 16 bytes."""
        row = padded(shape[3])
        whole = self._empty((*shape[4 - axes : 3], row), self._problem.dtype)
        array = whole if row == shape[3] else whole[..., : shape[3]]
        return Area(array, self._framework.address(whole), shape, padded_strides(shape))

    def side_by_side(self, shape: Shape) -> Area:
        """The same, stored as (batch, rows, heads, dim) where the framework has views of it."""
        batch, heads, rows, dim = shape
        row = padded(dim)
        whole = self._framework.side_by_side((batch, heads, rows, row), self._problem.dtype, self._call.q)
        if whole is None:
            return self.rows(shape)
        array = whole if row == dim else whole[..., :dim]
        strides = 2 * row * heads * rows, 2 * row, 2 * row * heads, 2
        return Area(array, self._framework.address(whole), shape, strides)

    def areas(self, *sizes: int) -> list[Area]:
        """Parts of one array."""
        *starts, nbytes = starts_of(sizes)
        memory = self._empty((max(nbytes, 1),), "uint8")
        address = self._framework.address(memory)
        return [Area(memory, address + start) for start in starts]

    def readable(self, area: Area) -> Area:
        """The array, or a copy with padded rows where its strides do not allow loads of 16 bytes."""
        if area.readable:
            return area
        fresh = self.rows(area.shape)
        self.copy(area, fresh)
        return fresh

    def copy(self, source: Area, target: Area) -> None:
        """Copy between any strides, at_work()."""
        move(target.address, target.strides, source.address, source.strides, source.shape, self._stream)

    def launch(self, stage: Stage, areas: Mapping[str, Area], boxes: Mapping[str, int] | None = None) -> None:
        """Run a stage, at_work()."""
        if not stage.grid:
            return
        if boxes:
            maps = {f"{name}_map": Area(None, self._map(areas[name], rows)) for name, rows in boxes.items()}
            areas = {**areas, **maps}
        _ready_stage(stage, self._device.ordinal).run(self._stream, areas)

    def _map(self, area: Area, rows: int) -> int:
        """The address of an array's tensor map, remembered: an allocator gives the same memory again and again."""
        dtype = self._problem.dtype

        def make() -> Any:
            layout = Layout(area.shape, area.strides, dtype)
            return encode(box_arguments(area.address, layout, rows, _spare(self._device).address))

        return self._maps.get(
            ("rows", area.address, area.shape, area.strides, dtype, rows), make, lambda: self._capturing
        )

    def slots(self) -> tuple[Area, Area]:
        """E k and F v."""
        if self._checked.slots is None:
            raise TypeError(self._problem)  # kernel attention has none
        leading = self._problem.batch, self._problem.heads, self._problem.rank
        shapes = (*leading, self._problem.head_dim), (*leading, self._problem.value_dim)
        k, v = (area.rows(shape) for area, shape in zip(self.areas(*map(row_bytes, shapes)), shapes, strict=True))
        arrays, addresses = [one.memory for one in self._operands], [one.address for one in self._operands]
        write_slots(self._call, self._checked.slots, arrays, addresses, (k.address, v.address), self._framework)
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
