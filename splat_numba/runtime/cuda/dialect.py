"""What generated GPU texts import: ``cuda`` and ``ptx``, each of the compiler that reads the text.

One text serves every compiler and so names none: while one reads a text, in its thread, these names are its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Dialect:
    """cuda: the compiler's module for arrays in shared memory and registers. ptx: a module with a function for every
    instruction of gen.language.instructions.
    """

    cuda: Any
    ptx: Any


_reading: ContextVar[Dialect] = ContextVar("splat_dialect")


@contextmanager
def reading(dialect: Dialect) -> Iterator[None]:
    """Within, texts that are loaded get this dialect."""
    token = _reading.set(dialect)
    try:
        yield
    finally:
        _reading.reset(token)


def __getattr__(name: str) -> Any:
    if name not in Dialect.__slots__:
        raise AttributeError(f"a dialect has {' and '.join(Dialect.__slots__)}, not {name}")
    if (found := _reading.get(None)) is None:
        # An import statement would put its own message in the place of an AttributeError's.
        raise ImportError(f"{name} is of the compiler that reads a text, and none does. Use Kernel.with_source().")
    return getattr(found, name)
