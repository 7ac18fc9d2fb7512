"""Arrays that nobody can change: what a kernel reads by was checked once, and must stay what it was."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def sealed(array: NDArray[Any], dtype: DTypeLike | None = None) -> NDArray[Any]:
    """A copy that cannot be made writeable again, unlike a read-only view: its memory is a bytes object."""
    whole = array.astype(dtype or array.dtype, copy=False)
    return np.frombuffer(whole.tobytes(), whole.dtype).reshape(whole.shape)


class Sealed:
    """Base of frozen dataclasses whose arrays are sealed when they are made, copied and unpickled."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, value in zip(self._names(), self._values(), strict=True):
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, sealed(value))

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return type(self), self._values()

    def _names(self) -> list[str]:
        return [field.name for field in fields(self)]  # type: ignore[arg-type]  # subclasses are dataclasses

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._names())
