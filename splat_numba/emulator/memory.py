"""Memory of an emulated GPU: global buffers by address, and a block's shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator.lanes import listed, who
from splat_numba.errors import EmulationError

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Who = Callable[[NDArray[np.bool_]], str]  # names those accesses that are bad

FIRST_ADDRESS = 1 << 20
GAP = 4096  # between buffers, so that what runs past one does not meet the next
NO_STAMP = -1  # of bytes that no lane has stored


def aligned(places: Places, nbytes: int, by: Who = who) -> Places:
    """The addresses of the lanes, all multiples of ``nbytes``. Raises EmulationError."""
    bad = places % nbytes != 0
    if bad.any():
        raise EmulationError(f"{by(bad)} wanted addresses that are multiples of {nbytes}, got {listed(places[bad])}")
    return places


def swizzled(places: Any) -> Places:
    """Where the 128-byte swizzle puts bytes of shared memory: bits 7-9 of the address turn bits 4-6 over."""
    logical = np.asarray(places, np.int64)
    found: Places = logical ^ (((logical >> 7) & 7) << 4)
    return found


class GlobalMemory:
    """Buffers at addresses; every access must lie within one."""

    def __init__(self) -> None:
        self._buffers: list[Bytes] = []
        self._starts = self._ends = np.zeros(0, np.int64)
        self._next = FIRST_ADDRESS

    def allocate(self, nbytes: int) -> int:
        """The address of a fresh buffer, aligned to 256 bytes and filled with 0xFF: NaN, as 16 or 32-bit floats."""
        address = self._next
        self._buffers.append(np.full(nbytes, 0xFF, np.uint8))
        self._starts = np.append(self._starts, address)
        self._ends = np.append(self._ends, address + nbytes)
        self._next += -(-(nbytes + GAP) // 256) * 256
        return address

    @property
    def end(self) -> int:
        """All addresses are below it."""
        return self._next

    def holds_what(self, other: GlobalMemory) -> bool:
        """Whether all bytes are the same."""
        return all(map(np.array_equal, self._buffers, other._buffers))

    def find(self, first: int, last: int) -> tuple[Bytes, int]:
        """The buffer that holds the bytes first to last, and its address. Raises EmulationError."""
        place = int(np.searchsorted(self._starts, first, "right")) - 1
        if place < 0 or last > self._ends[place]:
            raise EmulationError(f"bytes {first:#x} to {last:#x} wanted in an allocated buffer, got none that has them")
        return self._buffers[place], int(self._starts[place])

    def read(self, address: int, nbytes: int) -> Bytes:
        """A view of the bytes there."""
        buffer, start = self.find(address, address + nbytes)
        return buffer[address - start : address - start + nbytes]

    def gather(self, addresses: Any, nbytes: int, by: Who = who) -> Bytes:
        """Words of ``nbytes`` at the lanes' addresses, as uint8 (..., nbytes). Raises EmulationError."""
        places = np.asarray(addresses, np.int64)
        which = self._which(places, nbytes, by=by)
        found = np.empty((*places.shape, nbytes), np.uint8)
        for one in np.unique(which):
            here = which == one
            found[here] = self._buffers[one][(places[here] - self._starts[one])[..., None] + np.arange(nbytes)]
        return found

    def scatter(self, addresses: Any, data: Bytes, when: Any) -> None:
        """Write data (lanes, nbytes) where ``when`` is not 0. Raises EmulationError."""
        nbytes, chosen = data.shape[-1], np.asarray(when) != 0
        places = np.where(chosen, np.asarray(addresses, np.int64), -nbytes)
        which = self._which(places, nbytes, chosen)
        for one in np.unique(which[chosen]):
            here = chosen & (which == one)
            self._buffers[one][(places[here] - self._starts[one])[..., None] + np.arange(nbytes)] = data[here]

    def _which(self, places: Places, nbytes: int, chosen: Any = True, by: Who = who) -> NDArray[np.intp]:
        """The number of the buffer that each chosen lane's bytes are in."""
        aligned(places, nbytes, by)
        which = np.searchsorted(self._starts, places, "right") - 1
        ends = self._ends[np.maximum(which, 0)] if self._ends.size else np.zeros(places.shape, np.int64)
        bad = chosen & ((which < 0) | (places + nbytes > ends))
        if bad.any():
            raise EmulationError(
                f"{by(bad)} wanted {nbytes} bytes inside a buffer of global memory, got {listed(places[bad])}"
            )
        return np.asarray(which)


class SharedMemory:
    """A block's shared memory; ``written`` says which bytes ever were, ``stamps`` by which store of a lane (see
    Fences). The last axis of places: bytes of one access.
    """

    def __init__(self, nbytes: int) -> None:
        self.bytes: Bytes = np.full(nbytes, 0xFF, np.uint8)
        self.written = np.zeros(nbytes, np.bool_)
        self.stamps = np.full(nbytes, NO_STAMP, np.int64)

    def check(self, places: Places, by: Who = who) -> Places:
        """The places, all within. Raises EmulationError."""
        if places.size and (places.min() < 0 or places.max() >= self.bytes.size):
            bad = np.asarray(((places < 0) | (places >= self.bytes.size)).any(-1))
            size = self.bytes.size
            raise EmulationError(
                f"{by(bad)} wanted inside the {size:#x} bytes of shared memory, got {_at(places, bad)}"
            )
        return places

    def load(self, places: Places, by: Who = who) -> Bytes:
        """The bytes there, all written before. Raises EmulationError."""
        written = self.written[self.check(places, by)]
        if not written.all():
            bad = np.asarray(~written.all(-1))
            raise EmulationError(
                f"{by(bad)} read shared memory before anything was written there, at {_at(places, bad)}"
            )
        found: Bytes = self.bytes[places]
        return found

    def store(self, places: Places, data: Any, by: Who = who, stamp: int = NO_STAMP) -> None:
        """Write bytes there."""
        self.bytes[self.check(places, by)] = data
        self.written[places] = True
        self.stamps[places] = stamp


def _at(places: Places, bad: NDArray[np.bool_]) -> str:
    """Where the bad accesses begin."""
    return listed(places[..., 0][bad])
