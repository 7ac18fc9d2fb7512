"""How a generated CPU function is called: one value beside the text. Its argument list, Numba's signature, a call and
the emulator's check of a call are all made from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameter:
    """axes: of an array, 0 for a number. contiguous: the array is in C order; else it may have any strides. written:
    the function writes to it; else read-only arrays are welcome too. dtype: of the numbers, by name; 16-bit ones are
    bits.
    """

    name: str
    dtype: str
    axes: int = 0
    contiguous: bool = False
    written: bool = False


@dataclass(frozen=True, slots=True)
class CpuEntry:
    """A function name(first, last, *parameters) over work items first .. last - 1, which are independent of those of
    other ranges: threads take ranges in any order.
    """

    name: str
    parameters: tuple[Parameter, ...]

    @property
    def header(self) -> str:
        """Text of the function's name and argument list."""
        return f"{self.name}({', '.join(('first', 'last', *(one.name for one in self.parameters)))})"


@dataclass(frozen=True, slots=True)
class CpuText:
    """Python source with its entry functions. name: readable, for files. Equal texts share machine code."""

    name: str
    source: str
    entries: tuple[CpuEntry, ...]


def numbers(dtype: str, *names: str) -> tuple[Parameter, ...]:
    """Parameters that are numbers."""
    return tuple(Parameter(name, dtype) for name in names)


def arrays(
    dtype: str, axes: int, *names: str, contiguous: bool = False, written: bool = False
) -> tuple[Parameter, ...]:
    """Parameters that are arrays of one kind."""
    return tuple(Parameter(name, dtype, axes, contiguous, written) for name in names)
