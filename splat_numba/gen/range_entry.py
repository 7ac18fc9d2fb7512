"""RangeEntry: how a function of a CPU's text is called. The text, Numba's signature and every call are made of it."""

from __future__ import annotations

from dataclasses import dataclass

RANGE = ("first", "last")  # of work items, of which one call takes some


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number (axes 0) or an array. dtype: of its numbers, also "int64" and "uint64"; packed: contiguous."""

    name: str
    dtype: str
    axes: int = 0
    written: bool = False
    packed: bool = False


@dataclass(frozen=True, slots=True)
class RangeEntry:
    """A function over a range of work items, which are independent of each other; then its parameters."""

    name: str
    parameters: tuple[Parameter, ...]

    @property
    def header(self) -> str:
        """The function as its definition begins."""
        names = (*RANGE, *(one.name for one in self.parameters))
        return f"{self.name}({', '.join(names)})"


def counts(*names: str) -> tuple[Parameter, ...]:
    """Whole numbers."""
    return tuple(Parameter(name, "int64") for name in names)


def tables(*names: str, dtype: str = "int64") -> tuple[Parameter, ...]:
    """Constant lists of whole numbers."""
    return tuple(Parameter(name, dtype, axes=1, packed=True) for name in names)
