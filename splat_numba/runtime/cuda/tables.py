"""A schedule's tables on the device, uploaded once and kept as long as one uses them; counters; pools of slots."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.memory import Upload, memory
from splat_numba.runtime.cuda.slots import LARGEST_POOL, SlotPool, Writable

LARGEST_POOL_BYTES = 16 << 20
SMALLEST_POOL = 16  # slots, however large
SMALLEST_SLOT = 128  # bytes
COUNTER_BYTES = 128  # a cache line each: all blocks add to it
COUNTER_CHUNK_BYTES = 64 * COUNTER_BYTES


class TableUpload(Upload):
    """A table on the device. It keeps the table, so its identity stands for its contents."""

    def __init__(self, device: Device, data: NDArray[Any]) -> None:
        super().__init__(memory(device), data)
        self.data = data


_uploads: WeakValueDictionary[tuple[int, int], TableUpload] = WeakValueDictionary()
_lock = threading.Lock()


def upload_of(device: Device, data: NDArray[Any]) -> TableUpload:
    """The table on the device, shared by all that hold it at one time."""
    key = (id(data), device.ordinal)
    with _lock:
        found = _uploads.get(key)
        if found is None or found.data is not data:
            found = _uploads[key] = TableUpload(device, data)
        return found


@cache
def _counter_bytes(words: int) -> int:
    """What so many counters take: a power of two, so that few sizes serve all."""
    return max(1 << (4 * words - 1).bit_length(), COUNTER_BYTES)


class Counters:
    """Words that are 0 but while a launch runs: its blocks count by them, and leave them as they were.

    Launches of one stream follow each other, so they share their words; a graph may run beside the stream that it was
    captured from, so it has its own for good.
    """

    def __init__(self, memory: Writable) -> None:
        self._memory = memory
        self._free: dict[int, list[int]] = {}  # by their size
        self._of_stream: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()

    def get(self, stream: int, words: int, *, fresh: bool) -> int:
        """The address for launches on this stream; fresh: one that no others have."""
        nbytes = _counter_bytes(words)
        found = None if fresh else self._of_stream.get((stream, nbytes))
        if found is not None:
            return found
        with self._lock:
            free = self._free.setdefault(nbytes, [])
            if not free:
                chunk = max(COUNTER_CHUNK_BYTES, nbytes)
                start = self._memory.allocate(chunk)
                self._memory.write(start, np.zeros(chunk, np.uint8))
                free += reversed(range(start, start + chunk, nbytes))
            found = free.pop()
            return found if fresh else self._of_stream.setdefault((stream, nbytes), found)


@cache
def counters(device: Device) -> Counters:
    """The counters of a device."""
    return Counters(memory(device))


def pool_for(device: Device, nbytes: int) -> SlotPool:
    """The slots of the size that so many bytes need."""
    return pool(device, 1 << max(nbytes - 1, SMALLEST_SLOT - 1).bit_length())


@cache
def pool(device: Device, slot_bytes: int) -> SlotPool:
    """The slots of one size, a power of two, on one device."""
    return SlotPool(memory(device), slot_bytes, min(LARGEST_POOL, max(LARGEST_POOL_BYTES // slot_bytes, SMALLEST_POOL)))


@cache
def spare(device: Device) -> int:
    """A valid address, for tensor maps of empty arrays."""
    return memory(device).allocate(COUNTER_BYTES)
