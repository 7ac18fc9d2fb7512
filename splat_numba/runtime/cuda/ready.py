"""Schedules on a GPU: what is decided once, and what a repeated call still has to do.

A ReadySchedule has its functions loaded, its tables uploaded and its parameters packed; a call writes addresses and
launches. A ReadyCall has one for each set of arrays that must be copied first, which alignment of addresses decides.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.schedules.schedule import COUNTERS, SCRATCH, Copy, InPlace, Place, Schedule, Step, place_of
from splat_numba.gen.schedules.tensor_map import MAP_BYTES, BoxMap, tensor_map_arguments
from splat_numba.runtime.cuda.code import cubin_for
from splat_numba.runtime.cuda.copies import move
from splat_numba.runtime.cuda.device import Device, check_runs
from splat_numba.runtime.cuda.frameworks import Framework
from splat_numba.runtime.cuda.launch import Launch, is_capturing, load
from splat_numba.runtime.cuda.memory import undisturbed
from splat_numba.runtime.cuda.places import MAPS, maps_of, pointers_of
from splat_numba.runtime.cuda.tables import counters, pool, spare, upload_of
from splat_numba.runtime.cuda.tensor_map import encode
from splat_numba.settings import Settings

_serial = count()
_captured: set[ReadySchedule] = set()  # what graphs may still point to: never freed


@dataclass(frozen=True, slots=True)
class ReadyCopy:
    """A copy between the arrays whose addresses are two of the words."""

    step: Copy
    source: int
    target: int
    words: Any
    settings: Settings

    def run(self, stream: int) -> None:
        """Copy, in the order of the stream."""
        source, target = self.step.source, self.step.target
        kinds = (f"<u{ITEMSIZE[target.dtype]}", f"<u{ITEMSIZE[source.dtype]}")
        move(self.words[self.target], target.strides, self.words[self.source], source.strides, source.sizes, stream,
             kinds, self.settings.cuda_compiler)  # fmt: skip


class ReadySchedule:
    """A schedule on one device, whose context must be current. Holds what it points to."""

    def __init__(self, schedule: Schedule, device: Device, settings: Settings) -> None:
        self._serial = next(_serial)
        self._settings = settings
        self._schedule = schedule
        self._tables = {name: upload_of(device, data) for name, data in schedule.tables.items()}
        self._maps = maps_of(schedule)
        self._mapped = self._mapped_arguments()
        self._bases = (*schedule.arguments, SCRATCH, COUNTERS, MAPS)
        self._slots: dict[Place, int] = {}  # the words that calls write
        with undisturbed():
            functions = [function_of(step, device, settings) for step in schedule.launches]
            self._spare = spare(device)
        pointers = self._slotted_pointers()
        self._words = (ctypes.c_uint64 * max(len(self._slots), 1))()
        self._write = struct.Struct(f"={len(self._slots)}Q").pack_into
        self._addends = tuple((self._bases.index(place.buffer), place.offset) for place in self._slots)
        self._ready = self._ready_steps(functions, pointers)
        self._lock = threading.Lock()
        self._counters, self._counter_words = counters(device), schedule.counters
        self._pool = pool(device, 1 << max(MAP_BYTES * len(self._maps) - 1, 1).bit_length())

    def _mapped_arguments(self) -> tuple[int, ...]:
        """The numbers of the arguments, and of the scratch memory after them, that tensor maps are of."""
        buffers = {one.tensor.buffer for one in self._maps}
        names = (*self._schedule.arguments, SCRATCH)
        return tuple(number for number, name in enumerate(names) if name in buffers)

    def _slotted_pointers(self) -> list[dict[str, Place]]:
        """pointers_of(); all that change become slots, and so do the arrays of copies, in the order of the steps."""
        found = pointers_of(self._schedule)
        launches = iter(found)
        for step in self._schedule.steps:
            if isinstance(step, Copy):
                places = [place_of(tensor) for tensor in (step.source, step.target)]
            else:
                places = [place for place in next(launches).values() if place.buffer not in self._tables]
            for place in places:
                self._slots.setdefault(place, len(self._slots))
        return found

    def _ready_steps(
        self, functions: Sequence[int], pointers: Sequence[Mapping[str, Place]]
    ) -> list[ReadyCopy | Launch]:
        start, launches = ctypes.addressof(self._words), zip(functions, pointers, strict=True)
        ready: list[ReadyCopy | Launch] = []
        overlapped = False  # the first launch never is: what came before it on the stream is not ours
        for step in self._schedule.steps:
            if isinstance(step, Copy):
                source, target = (self._slots[place_of(one)] for one in (step.source, step.target))
                ready.append(ReadyCopy(step, source, target, self._words, self._settings))
                overlapped = False
                continue
            function, places = next(launches)
            fixed = {
                name: self._tables[place.buffer].address + place.offset
                for name, place in places.items()
                if place.buffer in self._tables
            }
            changing = {name: start + 8 * self._slots[place] for name, place in places.items() if name not in fixed}
            values = {**step.numbers, **fixed}
            ready.append(
                Launch(function, step.text.entry, step.grid, values, changing, overlaps=overlapped and step.overlaps)
            )
            overlapped = True
        return ready

    def run(self, addresses: Sequence[int], stream: int, framework: Framework, like: Any) -> Any:
        """Give all steps to the stream. addresses: of the schedule's arguments, 0 where a call has none. Returns what
        must live until the work is done, where the framework does not know the stream.
        """
        if not self._ready:
            return None
        capturing = is_capturing(stream)
        if capturing:
            _captured.add(self)
        scratch, start = None, 0
        if self._schedule.scratch:
            scratch = framework.empty((self._schedule.scratch,), "uint8", like)
            start = framework.address(scratch)
        counter = self._counters.get(stream, self._counter_words, fresh=capturing) if self._counter_words else 0
        bases = (*addresses, start)
        maps = 0
        if self._maps:
            key = (self._serial, *[bases[number] for number in self._mapped])
            maps = self._pool.get(key, lambda: self._encode(bases), lambda: capturing)
        bases = (*bases, counter, maps)
        with self._lock:  # the driver copies the words before a launch returns
            self._write(self._words, 0, *[bases[number] and bases[number] + offset for number, offset in self._addends])
            for step in self._ready:
                step.run(stream)
        return scratch

    def _encode(self, bases: Sequence[int]) -> NDArray[np.uint64]:
        starts = dict(zip((*self._schedule.arguments, SCRATCH), bases, strict=True))
        return np.concatenate([encode(self._arguments_of(one, starts)) for one in self._maps])

    def _arguments_of(self, one: BoxMap, starts: Mapping[str, int]) -> Any:
        return tensor_map_arguments(one, starts[one.tensor.buffer] + one.tensor.offset, self._spare)


def function_of(step: Step, device: Device, settings: Settings) -> int:
    """The handle of a launch's kernel, compiled or from disk. Raises BackendError for a GPU that does not run it."""
    check_runs(step.text.entry, device)
    cubin = cubin_for(step.text, settings)
    return load(cubin.code, cubin.report.symbol, device.ordinal, step.text.entry.shared_bytes)


class ReadyCall:
    """A call but for its addresses. rules: of the first arguments, in their order; schedule_for: the schedule where
    some of these are copied. keep: objects whose identities the call is remembered by.
    """

    def __init__(
        self, rules: Mapping[str, InPlace], schedule_for: Callable[[frozenset[str]], Schedule], device: Device,
        settings: Settings, *, keep: object = None,
    ) -> None:  # fmt: skip
        self._rules = rules
        self._schedule_for = schedule_for
        self._device = device
        self.settings = settings
        self._keep = keep
        self._ready: dict[frozenset[str], ReadySchedule] = {}
        self._never_fit = frozenset(name for name, rule in rules.items() if not rule.fits)
        self._alignment_bits = max((rule.alignment for rule in rules.values()), default=1) - 1
        self._ruled = len(rules)

    def run(self, addresses: Sequence[int], stream: int, framework: Framework, like: Any) -> Any:
        """ReadySchedule.run(), with copies where these addresses want them."""
        entered = self._device.enter()
        try:
            copied = self._never_fit
            together = 0
            for address in addresses[: self._ruled]:
                together |= address
            if together & self._alignment_bits:
                copied |= self._misaligned(addresses)
            ready = self._ready.get(copied) or self._make(copied)
            return ready.run(addresses, stream, framework, like)
        finally:
            if entered:
                self._device.leave()

    def _misaligned(self, addresses: Sequence[int]) -> frozenset[str]:
        rules = zip(addresses, self._rules.items(), strict=False)
        return frozenset(name for address, (name, rule) in rules if address % rule.alignment)

    def _make(self, copied: frozenset[str]) -> ReadySchedule:
        made = ReadySchedule(self._schedule_for(copied), self._device, self.settings)
        return self._ready.setdefault(copied, made)
