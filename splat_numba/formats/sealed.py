"""Arrays that nobody can change: what a kernel reads by was checked once, and must stay what it was."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def sealed(array: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """A copy that cannot be made writeable again, unlike a read-only view: its memory is a bytes object.

    An array that is sealed already is given back as it is.
    """
    whole = array.astype(dtype or array.dtype, copy=False)
    owner: object = whole
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return whole if isinstance(owner, bytes) else np.frombuffer(whole.tobytes(), whole.dtype).reshape(whole.shape)


class Table:
    """Base of dataclasses that hold arrays: shown in one line, by the arrays' shapes."""

    __slots__ = ()

    def __repr__(self) -> str:
        parts = zip(self._names(), self._values(), strict=True)
        shown = (
            f"{name} {list(part.shape)}" if isinstance(part, np.ndarray) else f"{name}={part}" for name, part in parts
        )
        return f"<{type(self).__name__} {', '.join(shown)}>"

    def _names(self) -> list[str]:
        return [field.name for field in fields(self)]  # type: ignore[arg-type]  # subclasses are dataclasses

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._names())


class Sealed(Table):
    """Such a base of frozen ones, whose arrays are sealed when they are made, copied and unpickled."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, value in zip(self._names(), self._values(), strict=True):
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, sealed(value))

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return type(self), self._values()
