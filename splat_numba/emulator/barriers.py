"""Where a thread is, and how warps wait for each other and for copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from splat_numba.emulator.block import SHARED_START, Block
from splat_numba.emulator.fences import BARRIERS, STORES
from splat_numba.emulator.lanes import chosen, uniform
from splat_numba.emulator.memory import aligned
from splat_numba.errors import EmulationError
from splat_numba.gen.language.lane_values import LANE, LANES, Words


class Places:
    """Where a thread is; registers, of which there are enough here."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def thread_index(self) -> Words:
        """Of each lane."""
        found: Words = (self._block.warp * LANES + LANE).astype(np.uint32)
        return found

    def block_index(self) -> np.uint32:
        """Of the running block."""
        return np.uint32(self._block.index)

    def grid_size(self) -> np.uint32:
        """The number of blocks."""
        return np.uint32(self._block.grid)

    def shared_address(self, _array: Any) -> np.uint32:
        """Shared memory begins where nothing is aligned."""
        return np.uint32(SHARED_START)

    def claim_registers(self, count: int) -> Callable[[], None]:
        """A number that the hardware takes."""
        if count % 8 or not 24 <= count <= 256:
            raise EmulationError(f"registers wanted as a multiple of 8 from 24 to 256, got {count}")
        return _nothing

    release_registers = claim_registers


class Barriers:
    """Barriers; fences, which move nothing here, as every access is done when the next begins: see Fences."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def mbarrier_init(self, address: Any, count: Any) -> None:
        """A fresh one in place of what was there."""
        place, arrivals = uniform(address, "mbarrier_init's address"), uniform(count, "mbarrier_init's count")
        aligned(np.asarray(place), 8)
        self._block.make_barrier(place, arrivals)

    def mbarrier_arrive(self, address: Any, when: Any) -> None:
        """Each chosen lane arrives."""
        places = list(chosen(when, address))
        for (place,) in places:
            self._block.arrive(place)
        if places:
            self._block.linger()

    def mbarrier_expect(self, address: Any, nbytes: Any, when: Any) -> None:
        """Each chosen lane arrives and adds bytes."""
        for place, expected in chosen(when, address, nbytes):
            self._block.arrive(place, expected)

    def mbarrier_wait(self, address: Any, parity: Any) -> None:
        """Until the phase of this parity is over."""
        place, wanted = uniform(address, "mbarrier_wait's address"), uniform(parity, "mbarrier_wait's parity")
        one = self._block.barrier(place)
        self._block.wait(lambda: one.phase != wanted, f"mbarrier {place:#x}, parity {wanted}")
        self._block.fences.learn(self._block.warp, one.told)

    def block_barrier(self) -> None:
        """All warps of the block."""
        self._block.meet()

    def warp_barrier(self) -> None:
        """The lanes of a warp never part here."""

    def fence_mbarrier_init(self) -> None:
        """Barriers that the warp has made, before copies that arrive there."""
        self._block.fences.make(self._block.warp, BARRIERS)

    def fence_shared(self) -> None:
        """The warp's stores, before copies and matrix products."""
        self._block.fences.make(self._block.warp, STORES)

    def fence_device(self) -> None:
        """The warp's stores, before an atomic that tells other blocks of them; and what was heard of by one."""
        self._block.neighbours.fence(self._block.warp)

    def fence_tensor_map(self, address: Any) -> None:
        """A tensor map, before the warp's copies by it."""
        self._block.fenced_maps.add(uniform(address, "fence_tensor_map's address"))

    def await_launch(self) -> None:
        """Nothing: the emulator runs one launch after the other."""

    def allow_launch(self) -> None:
        """Nothing: likewise."""


def _nothing() -> None:
    """What needs doing on hardware only."""
