"""Memory of an emulated GPU: global buffers by address, and a block's shared memory."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import EmulationError

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

FIRST_ADDRESS = 1 << 20
GAP = 4096  # between buffers, so that what runs past one does not meet the next


class GlobalMemory:
    """Buffers at addresses; every access must lie within one."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._buffers: list[Bytes] = []
        self._next = FIRST_ADDRESS

    def allocate(self, nbytes: int) -> int:
        """The address of a fresh buffer, aligned to 256 bytes and filled with 0xFF: NaN, as 16 or 32-bit floats."""
        address = self._next
        self._starts.append(address)
        self._buffers.append(np.full(nbytes, 0xFF, np.uint8))
        self._next += -(-(nbytes + GAP) // 256) * 256
        return address

    def find(self, first: int, last: int) -> tuple[Bytes, int]:
        """The buffer that holds the bytes first to last, and its address. Raises EmulationError."""
        place = bisect_right(self._starts, first) - 1
        if place < 0 or last > self._starts[place] + self._buffers[place].size:
            raise EmulationError(f"bytes {first:#x} to {last:#x} wanted in an allocated buffer, got none that has them")
        return self._buffers[place], self._starts[place]

    def read(self, address: int, nbytes: int) -> Bytes:
        """A view of the bytes there."""
        buffer, start = self.find(address, address + nbytes)
        return buffer[address - start : address - start + nbytes]

    def gather(self, addresses: Any, nbytes: int) -> NDArray[Any]:
        """Words of ``nbytes`` at the lanes' addresses, as uint8 (..., nbytes)."""
        places = np.asarray(addresses, np.int64)
        if (places % nbytes).any():
            raise EmulationError(f"addresses wanted as multiples of {nbytes}, got {places}")
        found = [self.read(int(one), nbytes) for one in places.reshape(-1)]
        return np.array(found, np.uint8).reshape(*places.shape, nbytes)

    def scatter(self, addresses: Any, data: NDArray[np.uint8], when: Any) -> None:
        """Write data (lanes, nbytes) where ``when`` is not 0."""
        nbytes = data.shape[-1]
        lanes = np.broadcast_shapes(np.shape(addresses), np.shape(when), data.shape[:-1], (1,))
        places, chosen = np.broadcast_to(addresses, lanes), np.broadcast_to(when, lanes)
        for lane in np.flatnonzero(chosen):
            address = int(places[lane])
            if address % nbytes:
                raise EmulationError(f"address wanted as a multiple of {nbytes}, got {address:#x}")
            self.read(address, nbytes)[...] = np.broadcast_to(data, (*lanes, nbytes))[lane]


class SharedMemory:
    """A block's shared memory; ``written`` says which bytes ever were."""

    def __init__(self, nbytes: int) -> None:
        self.bytes: Bytes = np.full(nbytes, 0xFF, np.uint8)
        self.written = np.zeros(nbytes, np.bool_)

    def check(self, places: Places) -> Places:
        """The places, all within. Raises EmulationError."""
        if places.size and (places.min() < 0 or places.max() >= self.bytes.size):
            raise EmulationError(f"shared memory has {self.bytes.size} bytes, got places up to {int(places.max())}")
        return places

    def load(self, places: Places) -> Bytes:
        """The bytes there, all written before. Raises EmulationError."""
        if not self.written[self.check(places)].all():
            raise EmulationError("shared memory read before anything was written there")
        found: Bytes = self.bytes[places]
        return found

    def store(self, places: Places, data: Any) -> None:
        """Write bytes there."""
        self.bytes[self.check(places)] = data
        self.written[places] = True
