"""Memory as an emulated CPU function sees it: a pointer knows the allocation that it points into.

It refuses to read or write outside of it, and to write to an input: machine code would not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import EmulationError


@dataclass(frozen=True, slots=True)
class Pointer:
    """memory[place:] of a whole allocation, as a flat array."""

    memory: NDArray[Any]
    place: int

    def span(self, offset: int, count: int) -> slice:
        """Where ``count`` elements from ``offset`` on are. Raises EmulationError."""
        start = int(self.place + offset)
        if not 0 <= start <= start + count <= self.memory.size:
            raise EmulationError(f"elements {start} to {start + count} wanted of an array of {self.memory.size}")
        return slice(start, start + count)

    def read(self, offset: int, count: int) -> NDArray[Any]:
        """A copy of ``count`` elements."""
        return self.memory[self.span(offset, count)].copy()

    def write(self, offset: int, values: NDArray[Any]) -> None:
        """Elements from ``offset`` on. Raises EmulationError."""
        if not self.memory.flags.writeable:
            raise EmulationError("a write to an input")
        self.memory[self.span(offset, values.size)] = values


def address(array: NDArray[Any], offset: int) -> Pointer:
    """To an element of an array, counted from its first; read-only where the array is."""
    whole: Any = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    memory = whole.reshape(-1, copy=False).view(array.dtype)
    memory.flags.writeable = array.flags.writeable
    shift = array.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    return Pointer(memory, shift // array.itemsize + int(offset))


def advance(pointer: Pointer, offset: int) -> Pointer:
    """So many elements on."""
    return Pointer(pointer.memory, pointer.place + int(offset))


def element(pointer: Pointer, offset: int) -> Any:
    """One number."""
    return pointer.memory[pointer.span(offset, 1)][0]


def assign(pointer: Pointer, offset: int, value: Any) -> None:
    """One number, of the array's type or fitting into it."""
    pointer.write(offset, np.asarray(value, pointer.memory.dtype)[None])


def store(pointer: Pointer, offset: int, values: NDArray[Any]) -> None:
    """A vector."""
    pointer.write(offset, values)
