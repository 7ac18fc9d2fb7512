"""A block of emulated warps: a thread of control each, of which one runs at a time; barriers, and who waits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from splat_numba.emulator.exchange import Exchange, Neighbours
from splat_numba.emulator.fences import BARRIERS, STORES, Fences, News, Registers, no_news
from splat_numba.emulator.lanes import named, who
from splat_numba.emulator.memory import GlobalMemory, Places, SharedMemory, Who
from splat_numba.errors import EmulationError

SHARED_START = 16  # not aligned: the text must align its tiles itself


@dataclass(slots=True)
class Barrier:
    """An mbarrier: arrivals and bytes that its phase still waits for. made: a stamp; news: what those who arrived told,
    and told: what they had when the last phase ended.
    """

    count: int
    arrivals: int
    made: int
    bytes: int = 0
    phase: int = 0
    news: News = field(default_factory=no_news)
    told: News = field(default_factory=no_news)

    def settle(self) -> None:
        """Turn to the next phase if nothing is missing."""
        if self.arrivals == 0 and self.bytes == 0:
            self.phase ^= 1
            self.arrivals = self.count
            self.told = self.news.copy()


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product that was issued on a line of the text."""

    multiply: Callable[[], None]
    line: int

    def finish(self) -> None:
        """Multiply. Raises EmulationError."""
        try:
            self.multiply()
        except EmulationError as error:
            raise EmulationError(f"{error}: the product of line {self.line}") from error


class _Running(threading.local):
    """What the warp of a thread has of its own; see Block's properties."""

    warp: int
    pending: list[list[Product]]
    copies: list[list[Callable[[], None]]]
    registers: Registers
    fenced_maps: set[int]


class Block:
    """The warps of one block and what they share. exchange: with other blocks; late: copies land only when nobody can
    go on without them; text: the file name that the kernel's text was compiled with.
    """

    def __init__(
        self,
        memory: GlobalMemory,
        maps: list[Any],
        shared_bytes: int,
        index: int,
        grid: int,
        *,
        exchange: Exchange,
        late: bool,
        text: str = "",
    ) -> None:
        self.memory, self.maps, self.text = memory, maps, text
        self.shared = SharedMemory(SHARED_START + shared_bytes)
        self.index, self.grid, self.late = index, grid, late
        self.fences = Fences()
        self.neighbours = Neighbours(exchange, self.fences, index)
        self.barriers: dict[int, Barrier] = {}
        self.errors: list[BaseException] = []
        self.failed_warp = 0
        self.warps = 0
        lock = threading.RLock()
        self._turn, self._quiet = threading.Condition(lock), threading.Condition(lock)  # something changed; all wait
        self._alive = self._waiting = self._idle = self._at_barrier = self._rounds = 0
        self._landing: list[Callable[[], None]] = []
        self._states: dict[int, str] = {}
        self._local = _Running()

    @property
    def warp(self) -> int:
        """The number of the warp that runs."""
        return self._local.warp

    @property
    def pending(self) -> list[list[Product]]:
        """The running warp's products that nothing has waited for yet: groups, then those not committed."""
        return self._local.pending

    @property
    def copies(self) -> list[list[Callable[[], None]]]:
        """The running warp's own copies that nothing has waited for yet: groups, then those not committed."""
        return self._local.copies

    @property
    def registers(self) -> Registers:
        """The running warp's."""
        return self._local.registers

    @property
    def fenced_maps(self) -> set[int]:
        """Addresses of tensor maps that the running warp has fenced."""
        return self._local.fenced_maps

    def line(self) -> int:
        """The line of the text that the running warp is at."""
        frame: FrameType | None = sys._getframe()  # noqa: SLF001 - inspect.currentframe, without a name for every frame
        while frame is not None and frame.f_code.co_filename != self.text:
            frame = frame.f_back
        return frame.f_lineno if frame else 0

    def run(self, warps: int, kernel: Callable[[], None]) -> None:
        """Run all warps to their end. Raises what the first of them raised."""
        self._alive = self.warps = warps
        threads = [threading.Thread(target=self._run_warp, args=(warp, kernel)) for warp in range(warps)]
        with self._turn:
            for one in threads:
                one.start()
        for one in threads:
            one.join()
        if self.errors:
            raise self.errors[0]

    def _run_warp(self, warp: int, kernel: Callable[[], None]) -> None:
        self._local.warp, self._local.pending, self._local.copies = warp, [[]], [[]]
        self._local.registers, self._local.fenced_maps = Registers(), set()
        with self._turn:
            try:
                with np.errstate(all="ignore"):  # numbers wrap around and overflow as on the hardware
                    kernel()
                self._check_end(warp)
            except BaseException as error:  # noqa: BLE001 - handed to the caller by run()
                if not self.errors:
                    self.failed_warp = warp
                self.errors.append(error)
            self._alive -= 1
            self.changed()
            self._quiet.notify_all()

    def _check_end(self, warp: int) -> None:
        if any(self.pending):
            lines = sorted({one.line for group in self.pending for one in group})
            raise EmulationError(f"warp {warp} ended with matrix products of {named(lines, 'line')} never waited for")

    def changed(self) -> None:
        """Something that others may wait for has happened."""
        self._waiting = 0
        self._turn.notify_all()

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Let others run until ``ready()``. Raises EmulationError where that can never be."""
        while not ready():
            if self.errors:
                raise EmulationError("stopped, because another warp failed")
            self._waiting += 1
            self._states[self.warp] = f"{what} (line {self.line()})"
            if self._waiting >= self._alive:
                if self._landing:
                    self._landing.pop(0)()
                    self.changed()
                    continue
                raise EmulationError(f"deadlock: every warp waits, {self._states}")
            self._quiet.notify_all()
            self._turn.wait()

    def linger(self) -> None:
        """Where copies land at once, let other warps go as far as they can: what is given back too early is lost."""
        if self.late:
            return
        self._idle += 1
        self._quiet.notify_all()
        while self._waiting + self._idle < self._alive and not self.errors:
            self._quiet.wait()
        self._idle -= 1

    def land(self, copy: Callable[[], None]) -> None:
        """Do a copy now, or as late as can be."""
        if self.late:
            self._landing.append(copy)
        else:
            copy()

    def barrier(self, address: int) -> Barrier:
        """The mbarrier at a shared address. Raises EmulationError where none was made."""
        found = self.barriers.get(address)
        if found is None:
            raise EmulationError(f"shared address {address:#x} wanted as an mbarrier, got none made there")
        return found

    def make_barrier(self, address: int, count: int) -> None:
        """A fresh one in place of what was there."""
        self.barriers[address] = Barrier(count, count, self.fences.stamp(BARRIERS, self.warp))

    def barrier_of_copy(self, address: int) -> None:
        """Raise EmulationError unless there is a barrier that the copy engine knows of."""
        if self.fences.missing(BARRIERS, self.warp, self.barrier(address).made).any():
            raise EmulationError(
                f"a copy wanted to mbarrier {address:#x} with fence_mbarrier_init after it was made, got none"
            )

    def store_shared(self, places: Places, data: Any, by: Who = who) -> None:
        """Write bytes of shared memory as lanes do, which an engine sees after a fence only."""
        self.shared.store(places, data, by, self.fences.stamp(STORES, self.warp))

    def check_fenced(self, places: Places, by: Who) -> None:
        """Raise EmulationError unless an engine may read or write there for the running warp."""
        self.fences.check_stores(self.warp, self.shared.stamps[places], places, by)

    def arrive(self, address: int, expected: int = 0) -> None:
        """Arrive, after adding bytes to be copied."""
        one = self.barrier(address)
        np.maximum(one.news, self.fences.news(self.warp), out=one.news)
        one.bytes += expected
        one.arrivals -= 1
        if one.arrivals < 0:
            raise EmulationError(f"mbarrier {address:#x} got more arrivals than the {one.count} of a phase")
        one.settle()
        self.changed()

    def landed(self, address: int, nbytes: int) -> None:
        """Bytes of a copy are there."""
        one = self.barrier(address)
        one.bytes -= nbytes
        one.settle()
        self.changed()

    def meet(self) -> None:
        """bar.sync of the whole block."""
        self._at_barrier += 1
        goal = self._rounds + 1
        if self._at_barrier == self.warps:
            self._at_barrier, self._rounds = 0, goal
            self.fences.meet()
            self.changed()
        self.wait(lambda: self._rounds >= goal, "bar.sync")
