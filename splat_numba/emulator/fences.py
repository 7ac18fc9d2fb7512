"""What fences order. Ordinary accesses, and the engines that multiply and copy, reach memory and registers on ways of
their own, and only a fence between makes one see what the other has done (PTX: the generic and the async proxy).

The rules are stricter than the manual's where the two differ: who has written fences, before the barrier that tells
others; a fence by the reader, or fence_shared for a barrier, which may do on hardware, are not counted.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator.lanes import listed, named
from splat_numba.emulator.memory import NO_STAMP, Places, Who
from splat_numba.errors import EmulationError

WARPS: Final = 32  # of a block, at most
STORES, BARRIERS, DEVICE = 0, 1, 2  # what a fence is for: stores to shared memory, making mbarriers, other blocks
ATOMICS = 3  # no fences, but known of like them: see exchange.py

News = NDArray[np.int64]  # (4, WARPS): how many fences of each kind and warp somebody knows of


def no_news() -> News:
    """Of nothing."""
    return np.zeros((4, WARPS), np.int64)


class Fences:
    """Who knows of how many fences of whom: a warp of its own at once, of others' by a barrier after them.

    A *stamp* stands for a store or the making of a barrier: its warp, and how many fences that warp had made by then.
    """

    def __init__(self) -> None:
        self._known = np.zeros((4, WARPS, WARPS), np.int64)

    def make(self, warp: int, kind: int) -> None:
        """A fence of this kind by a warp."""
        self._known[kind, warp, warp] += 1

    def stamp(self, kind: int, warp: int) -> int:
        """Of what the warp does now."""
        return WARPS * int(self._known[kind, warp, warp]) + warp

    def news(self, warp: int) -> News:
        """What the warp tells by arriving at a barrier."""
        found: News = self._known[:, warp].copy()
        return found

    def learn(self, warp: int, news: News) -> None:
        """What the warp is told by having waited for one."""
        np.maximum(self._known[:, warp], news, out=self._known[:, warp])

    def meet(self) -> None:
        """All warps tell each other."""
        self._known[:] = self._known.max(axis=1, keepdims=True)

    def missing(self, kind: int, warp: int, stamps: Any) -> NDArray[np.bool_]:
        """Where the stamp's warp has made no fence since, or none that ``warp`` knows of."""
        found = np.asarray(stamps)
        bad: NDArray[np.bool_] = (found >= 0) & (self._known[kind, warp, found % WARPS] <= found // WARPS)
        return bad

    def check_stores(self, warp: int, stamps: NDArray[np.int64], places: Places, by: Who) -> None:
        """What an engine reads or writes for ``warp`` at these places. Raises EmulationError."""
        if stamps.max(initial=NO_STAMP) == NO_STAMP:
            return
        bad = self.missing(STORES, warp, stamps)
        if bad.any():
            writers = named(np.unique(stamps[bad] % WARPS), "warp")
            raise EmulationError(
                f"{by(bad)} wanted fence_shared by {writers} between the stores there and the barrier after them, "
                f"got none, at {listed(places[bad])}"
            )


class Registers:
    """One warp's registers that matrix products take: which were written since its last wgmma_fence."""

    def __init__(self) -> None:
        self._written: set[str] = set()
        self._fenced = False

    def write(self, *names: str) -> None:
        """An ordinary statement of the text has written them."""
        self._written.update(names)

    def fence(self) -> None:
        """wgmma_fence."""
        self._written.clear()
        self._fenced = True

    def check(self, names: tuple[str, ...]) -> None:
        """A product is issued that takes them. Raises EmulationError."""
        if not self._fenced:
            raise EmulationError("a warp's first matrix product wanted after wgmma_fence, got none")
        if not self._written.isdisjoint(names):
            wrong = ", ".join(sorted(self._written.intersection(names)))
            raise EmulationError(f"a matrix product wanted wgmma_fence between writes to {wrong} and it, got none")
