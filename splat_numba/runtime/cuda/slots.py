"""Small tables in device memory, remembered by a key: tensor maps, and key lengths given by the host.

A slot is written once, before anything can read it, and given away only when the device is idle; one that a captured
graph may read is kept for good.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import count
from operator import itemgetter
from typing import Any, Protocol

from numpy.typing import NDArray

CHUNK_SLOTS = 256
LARGEST_POOL = 8 * CHUNK_SLOTS  # 2048 slots: 2 MB of tables of 1 KB


class Writable(Protocol):
    """Device memory: runtime.cuda.memory.Memory."""

    def allocate(self, nbytes: int) -> int:
        """The address of fresh memory."""

    def write(self, address: int, data: NDArray[Any]) -> None:
        """Copy an array there and wait for it."""

    def wait(self) -> None:
        """Wait for all work of the device."""


@dataclass(slots=True)
class Slot:
    """address: of slot_bytes bytes; used: when last, as a number that grows; pinned: a captured graph may read it."""

    address: int
    used: int = 0
    pinned: bool = False


class SlotPool:
    """Slots of one size, the longest unused given away first."""

    def __init__(self, memory: Writable, slot_bytes: int, largest: int = LARGEST_POOL) -> None:
        self.slot_bytes = slot_bytes
        self._memory = memory
        self._largest = largest
        self._chunk = min(CHUNK_SLOTS, largest)
        self._count = 0
        self._free: list[int] = []
        self._used: dict[Hashable, Slot] = {}
        self._now = count().__next__
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._used)

    def find(self, key: Hashable) -> int | None:
        """The address of the table for ``key``, None where there is none; for launches that no graph captures.

        Every call asks: no lock, and the key is hashed once. A slot says itself when it was used.
        """
        slot = self._used.get(key)
        if slot is None:
            return None
        slot.used = self._now()
        return slot.address

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]], capturing: Callable[[], bool]) -> int:
        """The address of the table for ``key``, made and written where it is new.

        capturing: whether the launch to come is being captured in a graph.
        """
        with self._lock:
            slot = self._used.get(key)
            if slot is None:
                data = make()
                slot = Slot(self._take(capturing()))
                try:
                    self._memory.write(slot.address, data)
                except BaseException:
                    self._free.append(slot.address)
                    raise
                self._used[key] = slot
            slot.used = self._now()
            if not slot.pinned:
                slot.pinned = capturing()
            return slot.address

    def _take(self, capturing: bool) -> int:
        """A free slot; beyond the pool's size a quarter of the slots is given away at once, after one wait."""
        if not self._free and self._count >= self._largest and not capturing:  # no waiting inside a capture
            idle = [(slot.used, key) for key, slot in self._used.items() if not slot.pinned]
            old = [key for _, key in sorted(idle, key=itemgetter(0))][: max(self._largest // 4, 1)]
            if old:
                given = [self._used.pop(key).address for key in old]  # before the wait: find() has no lock
                self._memory.wait()
                self._free += given
        if not self._free:
            start = self._memory.allocate(self._chunk * self.slot_bytes)
            self._free += [start + self.slot_bytes * number for number in reversed(range(self._chunk))]
            self._count += self._chunk
        return self._free.pop()
