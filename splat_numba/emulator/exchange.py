"""What the blocks of a launch leave to each other in global memory, and the fences that this needs.

A warp that has stored makes fence_device. Then a warp of its block that knows of the fence, by a barrier, makes an
atomic, which tells of it. Whoever makes an atomic at the same address later hears of that; who knows of this atomic
makes fence_device, and may read what was stored; so may all who know of this fence. The rules are those of fences.py:
who has stored fences, before the barrier that tells others. One fence after the barrier, by the warp of the atomic, may
do on hardware, and is not counted.

Blocks run one after the other here, so that numbers would be right without. What a warp may not know reads as all ones,
NaN among floats, and is no error: lanes without work read what others write, and use none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator.fences import ATOMICS, DEVICE, WARPS, Fences
from splat_numba.emulator.memory import Bytes, GlobalMemory

WORD: Final = 4  # bytes: nothing smaller is stored
COUNT_BITS: Final = 32  # of a stamp; above them is its writer
Stamps = NDArray[np.int64]


class Exchange:
    """Of one launch. Writers are its warps, numbered through all blocks from 1 on.

    stamps: of each word of the address space, by whom and after how many fences of its warp it was stored; 0 for nobody
    in this launch. told: by the address of an atomic, how many fences of each writer it has told of.
    """

    def __init__(self, memory: GlobalMemory) -> None:
        self.stamps: Stamps = np.zeros(memory.end // WORD, np.int64)  # pages that nobody touches take no memory
        self.told: dict[int, dict[int, int]] = {}

    def late(self, stamps: Iterable[int], addresses: Iterable[int]) -> list[int]:
        """Those of the stamps whose writers' fences the atomics at these addresses do not tell of."""
        told = _joined(self.told[address] for address in addresses)
        return [one for one in stamps if told.get(one >> COUNT_BITS, 0) <= one % (1 << COUNT_BITS)]


class Neighbours:
    """What the warps of a block know of the other blocks' stores."""

    def __init__(self, exchange: Exchange, fences: Fences, index: int) -> None:
        self._exchange, self._fences, self._first = exchange, fences, 1 + WARPS * index
        self._atomics: list[list[int]] = [[] for _ in range(WARPS)]  # the addresses of each warp's
        self._heard: list[list[set[int]]] = [[] for _ in range(WARPS)]  # at each fence of a warp, of atomics at these

    def fence(self, warp: int) -> None:
        """fence_device."""
        known = self._fences.news(warp)[ATOMICS]
        self._heard[warp].append({one for by, count in zip(self._atomics, known, strict=True) for one in by[:count]})
        self._fences.make(warp, DEVICE)

    def atomic(self, warp: int, address: int) -> None:
        """An atomic by a warp has changed the word there: it tells of all fences that the warp knows of."""
        made = self._fences.news(warp)[DEVICE]
        mine = {self._first + other: int(made[other]) for other in np.flatnonzero(made).tolist()}
        known = [self._exchange.told[heard] for heard in self._known(warp)]
        self._exchange.told[address] = _joined([mine, *known, self._exchange.told.get(address, {})])
        self._atomics[warp].append(address)
        self._fences.make(warp, ATOMICS)
        self._stamp(warp, np.array([address // WORD]))

    def store(self, warp: int, addresses: Any, nbytes: int) -> None:
        """The warp writes there."""
        self._stamp(warp, _words(addresses, nbytes))

    def hide(self, warp: int, addresses: Any, found: Bytes) -> None:
        """What a warp reads there, (..., bytes of an access): all ones in words that it may not know."""
        words = _words(addresses, found.shape[-1])
        stamps = self._exchange.stamps[words]
        writers = (stamps >> COUNT_BITS) - self._first
        others = (stamps != 0) & ((writers < 0) | (writers >= WARPS))
        if others.any():
            late = self._exchange.late(np.unique(stamps[others]).tolist(), self._known(warp))
            hidden = np.repeat(np.isin(stamps, late), min(WORD, found.shape[-1]), axis=-1)
            found[hidden] = 0xFF

    def _known(self, warp: int) -> set[int]:
        """The addresses of atomics that the warp has heard of before a fence that it knows of."""
        made = self._fences.news(warp)[DEVICE]
        return set().union(*(self._heard[other][made[other] - 1] for other in np.flatnonzero(made)))

    def _stamp(self, warp: int, words: NDArray[np.int64]) -> None:
        made = int(self._fences.news(warp)[DEVICE, warp])
        self._exchange.stamps[words] = ((self._first + warp) << COUNT_BITS) + made


def _words(addresses: Any, nbytes: int) -> NDArray[np.int64]:
    """The numbers of the words of each access, as its last axis."""
    found: NDArray[np.int64] = np.asarray(addresses, np.int64)[..., None] // WORD + np.arange(-(-nbytes // WORD))
    return found


def _joined(parts: Iterable[dict[int, int]]) -> dict[int, int]:
    """For each writer the largest number of all."""
    found: dict[int, int] = {}
    for part in parts:
        found |= {writer: max(count, found.get(writer, 0)) for writer, count in part.items()}
    return found
