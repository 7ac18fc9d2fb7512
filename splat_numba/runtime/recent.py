"""What was used last, up to a number of things."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

REMEMBERED = 256  # plans, kernels or ready calls of a kind
TRIED = 4  # at most, of one key: a model has few kinds of arrays, and a question that is not theirs takes 0.5 us


class Recent(Generic[T]):
    """The ``size`` values used last, by key. For values that are found by less than what makes them; else lru_cache.

    Threads may meet here: at worst two make a value for one key. No lock, since none may be held when a process forks.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self.glance = self._kept.get
        """As find(), without noting that it is used: no function of Python's, for what every call asks."""

    def find(self, key: Hashable) -> T | None:
        """The value for a key, which is the last one used then; None where there is none. 0.2 us."""
        value = self._kept.get(key)
        if value is not None:
            try:  # noqa: SIM105 - suppress() takes half a microsecond
                self._kept.move_to_end(key)
            except KeyError:  # another thread has let go of it
                pass
        return value

    def keep(self, key: Hashable, value: T) -> T:
        """Remember a value, and let go of what is too much."""
        self._kept[key] = value
        while len(self._kept) > self._size:
            with suppress(KeyError):
                self._kept.popitem(last=False)
        return value

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for a key, made if need be."""
        value = self.find(key)
        return self.keep(key, make()) if value is None else value

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()


def keep_among(several: Recent[tuple[T, ...]], key: Hashable, value: T) -> None:
    """Remember one value more for a key, before those that it has, and let go of what is too much to try in turn."""
    several.keep(key, (value, *(several.glance(key) or ())[: TRIED - 1]))
