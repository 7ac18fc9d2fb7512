"""The emulated GPU as a machine: buffers by name in its memory, and schedules run over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch
from splat_numba.errors import EmulationError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.schedules import tensor as tensors
from splat_numba.gen.schedules.schedule import COUNTERS, SCRATCH, Place, Schedule, Step, place_of
from splat_numba.gen.schedules.tensor import Axes, Tensor, contiguous, padded_bytes, padded_strides
from splat_numba.gen.schedules.tensor_map import MAP_BYTES, tensor_map_arguments

WORD_BYTES = 4  # buffers end at whole words: 16-bit numbers are read in pairs
BITS = {2: np.uint16, 4: np.float32, 8: np.float64}


class EmulatedMachine:
    """One call's buffers. What nobody wrote, between rows too, is NaN."""

    def __init__(self) -> None:
        self._memory = GlobalMemory()
        self._addresses: dict[str, int] = {}
        self._spare = self._memory.allocate(MAP_BYTES)

    def place(self, name: str, array: NDArray[Any], dtype: str) -> Tensor:
        """A buffer with this array (batch, heads, rows, dim) in it, its rows padded to 16 bytes."""
        tensor = self.allocate(name, axes_of(array.shape), dtype)
        self.read(tensor)[...] = array
        return tensor

    def place_as_it_is(self, name: str, array: NDArray[Any], dtype: str) -> Tensor:
        """The same with the strides that the array has, if none is negative."""
        if min(array.strides) < 0 or not array.size:
            array = np.ascontiguousarray(array)
        tensor = Tensor(axes_of(array.shape), axes_of(array.strides), dtype, name)
        self.reserve(name, tensor.nbytes)
        self.read(tensor)[...] = array
        return tensor

    def place_table(self, name: str, data: NDArray[Any]) -> None:
        """A buffer with these bytes in it."""
        self._addresses[name] = self._place(data)

    def allocate(self, name: str, sizes: Axes, dtype: str) -> Tensor:
        """A fresh buffer for an array with padded rows."""
        itemsize = ITEMSIZE[dtype]
        self.reserve(name, padded_bytes(sizes, itemsize))
        return Tensor(sizes, padded_strides(sizes, itemsize), dtype, name)

    def allocate_contiguous(self, name: str, sizes: Axes, dtype: str, *, side_by_side: bool = False) -> Tensor:
        """The same without padding, as results are made. side_by_side: stored as (batch, rows, heads, dim)."""
        itemsize = ITEMSIZE[dtype]
        strides = tensors.side_by_side(sizes, itemsize) if side_by_side else contiguous(sizes, sizes[3], itemsize)
        tensor = Tensor(sizes, strides, dtype, name)
        self.reserve(name, tensor.nbytes)
        return tensor

    def reserve(self, name: str, nbytes: int) -> None:
        """A fresh buffer."""
        self._addresses[name] = self._memory.allocate(max(-(-nbytes // WORD_BYTES), 1) * WORD_BYTES)

    def read(self, tensor: Tensor) -> NDArray[Any]:
        """A view of an array: 16-bit numbers as uint16."""
        bits: Any = BITS[ITEMSIZE[tensor.dtype]]
        if 0 in tensor.sizes:
            return np.empty(tensor.sizes, bits)
        buffer = self._memory.read(self._addresses[tensor.buffer] + tensor.offset, tensor.nbytes)
        return np.ndarray(tensor.sizes, bits, buffer.data, 0, tensor.strides)

    def read_numbers(self, name: str, count: int, dtype: str) -> NDArray[Any]:
        """The numbers, float32 or float64, that a buffer begins with."""
        return self._memory.read(self._addresses[name], ITEMSIZE[dtype] * count).view(dtype)

    def run(self, schedule: Schedule) -> None:
        """Run the steps one after the other. Raises EmulationError for a fault in a text."""
        for name, data in schedule.tables.items():
            self.place_table(name, data)
        self.reserve(SCRATCH, schedule.scratch)
        self.place_table(COUNTERS, np.zeros(max(schedule.counters, 1), np.uint32))
        for step in schedule.steps:
            self._launch(step)
        if schedule.counters and self._memory.read(self._addresses[COUNTERS], 4 * schedule.counters).any():
            raise EmulationError(
                "counters wanted as 0 after the last launch, got others: the next call begins with them"
            )

    def _launch(self, step: Step) -> None:
        maps = [
            tensor_map_arguments(one, self._at(place_of(one.tensor)), self._spare)
            for several in step.maps.values()
            for one in several
        ]
        first = self._place_maps(len(maps))
        values: dict[str, int | float] = {**step.numbers}
        values |= {name: self._at(place) for name, place in step.pointers.items()}
        for name, several in step.maps.items():
            values[name] = first
            first += MAP_BYTES * len(several)
        text = step.text
        launch(text.render(), text.name, text.entry, values, self._memory, maps, grid=step.grid)

    def _at(self, place: Place) -> int:
        """The address; 0 for an argument that this call does not have."""
        start = self._addresses.get(place.buffer, 0)
        return start and start + place.offset

    def _place(self, data: NDArray[Any]) -> int:
        address = self._memory.allocate(max(data.nbytes, 1))
        self._memory.read(address, data.nbytes)[...] = np.frombuffer(data.tobytes(), np.uint8)
        return address

    def _place_maps(self, count: int) -> int:
        """The address of so many tensor maps: of each its number."""
        words = np.zeros((max(count, 1), MAP_BYTES // 8), np.uint64)
        words[:count] = np.arange(count)[:, None]
        return self._place(words)


def axes_of(numbers: tuple[int, ...]) -> Axes:
    """Four numbers, of four axes."""
    batch, heads, rows, dim = numbers
    return batch, heads, rows, dim
