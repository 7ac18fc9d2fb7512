"""The tables of a plan on the device, uploaded once for each device and kept as long as a plan uses them."""

from __future__ import annotations

import threading
from functools import cache
from weakref import WeakValueDictionary

import numpy as np

from splat_numba.gen.boxes import BoxTable
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.memory import Upload, memory
from splat_numba.runtime.cuda.slots import LARGEST_POOL, SlotPool, Writable

LARGEST_POOL_BYTES = 16 << 20
COUNTER_BYTES = 128  # a cache line each: all blocks add to it
COUNTER_CHUNK = 64


class TableUpload:
    """A BoxTable on the device: addresses of rows, block, piece, bits and, as int32 (kv_views, 4), the views.

    It keeps the table, so its identity stands for its contents.
    """

    def __init__(self, device: Device, table: BoxTable) -> None:
        store = memory(device)
        self.table = table
        self.views = Upload(store, view_steps(table))
        self.rows, self.block, self.piece, self.bits = (
            Upload(store, array) for array in (table.rows, table.block, table.piece, table.bits)
        )


_uploads: WeakValueDictionary[tuple[int, int], TableUpload] = WeakValueDictionary()
_lock = threading.Lock()


def table_upload(device: Device, table: BoxTable) -> TableUpload:
    """The table on the device, shared by all that hold it at one time."""
    key = (id(table), device.ordinal)
    with _lock:
        found = _uploads.get(key)
        if found is None or found.table is not table:
            found = _uploads[key] = TableUpload(device, table)
        return found


def view_steps(table: BoxTable) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """(kv_views, 4) int32: offset, inner_step, outer_step, 0 of every view of the keys."""
    rows = [(view.offset, view.inner_step, view.outer_step, 0) for view in table.kv_views]
    return np.array(rows, np.int32).reshape(-1, 4)


class Counters:
    """Pairs of words, 0 but while a launch runs: its blocks take items by the first, and leave both as they were.

    Launches of one stream follow each other, so they share a pair; a graph may run beside the stream that it was
    captured from, so it has its own for good.
    """

    def __init__(self, memory: Writable) -> None:
        self._memory = memory
        self._free: list[int] = []
        self._of_stream: dict[int, int] = {}
        self._lock = threading.Lock()

    def get(self, stream: int, *, fresh: bool) -> int:
        """The address for a launch on this stream; fresh: one that no other launch has."""
        found = None if fresh else self._of_stream.get(stream)
        if found is not None:
            return found
        with self._lock:
            if not self._free:
                start = self._memory.allocate(COUNTER_CHUNK * COUNTER_BYTES)
                self._memory.write(start, np.zeros(COUNTER_CHUNK * COUNTER_BYTES, np.uint8))
                self._free = [start + COUNTER_BYTES * number for number in reversed(range(COUNTER_CHUNK))]
            found = self._free.pop()
            return found if fresh else self._of_stream.setdefault(stream, found)


@cache
def counters(device: Device) -> Counters:
    """The counters of a device."""
    return Counters(memory(device))


@cache
def pool(device: Device, slot_bytes: int) -> SlotPool:
    """The slots of one size, a power of two, on one device."""
    return SlotPool(memory(device), slot_bytes, min(LARGEST_POOL, max(LARGEST_POOL_BYTES // slot_bytes, 16)))
