"""What was used last, up to a number of things."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The ``size`` values used last, by key. For values that are found by less than what makes them; else lru_cache.

    Threads may meet here: at worst two make a value for one key. No lock, since none may be held when a process forks.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for a key, made if need be."""
        value = self._kept.pop(key, None)
        if value is None:
            value = make()
        self._kept[key] = value  # the last one now
        for old in list(self._kept)[: -self._size]:
            self._kept.pop(old, None)
        return value
