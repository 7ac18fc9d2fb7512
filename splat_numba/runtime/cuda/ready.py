"""Schedules on a GPU: what is decided once, and what a repeated call still has to do.

A ReadySchedule has its functions loaded, its tables uploaded and its launches laid out; a call writes addresses, and
machine code launches. A ReadyCall has one for each set of arrays that must be copied first, which alignment of
addresses decides.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.schedules.schedule import COUNTERS, SCRATCH, InPlace, Schedule, Step, copied_of
from splat_numba.gen.schedules.tensor_map import MAP_BYTES
from splat_numba.runtime.cuda.code import cubin_for
from splat_numba.runtime.cuda.device import Device, check_runs
from splat_numba.runtime.cuda.frameworks import Framework
from splat_numba.runtime.cuda.launch import HostWords, Launches, is_capturing, load, record_of
from splat_numba.runtime.cuda.memory import undisturbed
from splat_numba.runtime.cuda.places import MAPS, maps_of, pointers_of
from splat_numba.runtime.cuda.tables import counters, pool, spare, upload_of
from splat_numba.runtime.cuda.tensor_map import SPARE, Maps, map_record
from splat_numba.settings import Settings

_serial = count()
_captured: set[ReadySchedule] = set()  # what graphs may still point to: never freed


class ReadySchedule:
    """A schedule on one device, whose context must be current while it is made. Holds what it points to."""

    def __init__(self, schedule: Schedule, device: Device, settings: Settings) -> None:
        self._serial = next(_serial)
        self._settings, self._schedule, self._device = settings, schedule, device
        self._tables = {name: upload_of(device, data) for name, data in schedule.tables.items()}
        self._maps = maps_of(schedule)
        self._mapped = itemgetter(*(self._mapped_arguments() or (0,)))
        self._buffers = (*schedule.arguments, SCRATCH, COUNTERS, MAPS)
        with undisturbed():
            functions = [function_of(step, device, settings) for step in schedule.steps]
            self._fixed = {**{name: one.address for name, one in self._tables.items()}, SPARE: spare(device)}
        numbers = {name: (number, 0) for number, name in enumerate((*self._buffers, *self._fixed))}
        memory = HostWords()
        self._encoded = Maps([map_record(one, numbers, memory) for one in self._maps], memory, settings)
        self._launches = self._laid_out(functions, numbers)
        self._write = struct.Struct(f"={len(self._buffers)}Q").pack_into
        self._lock = threading.Lock()
        self._scratch: dict[Framework, Callable[[Any], Any]] = {}  # what makes that memory, which is on this device
        self._counters, self._counter_words = counters(device), schedule.counters
        self._counters_of: dict[int, int] = {}  # by stream, which keeps them
        self._pool = pool(device, 1 << max(MAP_BYTES * len(self._maps) - 1, 1).bit_length())

    def _mapped_arguments(self) -> tuple[int, ...]:
        """The numbers of the arguments, and of the scratch memory after them, that tensor maps are of."""
        buffers = {one.tensor.buffer for one in self._maps}
        names = (*self._schedule.arguments, SCRATCH)
        return tuple(number for number, name in enumerate(names) if name in buffers)

    def _laid_out(self, functions: Sequence[int], numbers: Mapping[str, tuple[int, int]]) -> Launches:
        """The launches in memory. numbers: of the buffers that change from call to call, and then of those that do not
        change.
        """
        steps, pointers = self._schedule.steps, pointers_of(self._schedule)

        def record(number: int, memory: HostWords) -> list[int]:
            return record_of(steps[number], pointers[number], numbers, functions[number], memory)

        made = Launches(steps, record, len(numbers), self._device.context, self._settings)
        made.bases[len(self._buffers) :] = [*self._fixed.values()]
        return made

    def run(self, addresses: Sequence[int], stream: int, framework: Framework, like: Any) -> Any:
        """Give all steps to the stream. addresses: of the schedule's arguments, 0 where a call has none. Returns what
        must live until the work is done, where the framework does not know the stream.
        """
        if not self._schedule.steps:
            return None
        scratch, start = None, 0
        if self._schedule.scratch:
            make = self._scratch.get(framework)
            if make is None:
                make = self._scratch[framework] = framework.maker((self._schedule.scratch,), "uint8", like)
            scratch = make(like)
            start = framework.address(scratch)
        bases = (*addresses, start)
        counter = self._counters_of.get(stream)
        if counter is None:
            counter = self._counters_of[stream] = self._counters_for(stream, fresh=False)
        maps = self._place_of_maps(bases, stream) if self._maps else 0
        with self._lock:  # the driver copies what is in the words before a launch returns
            self._write(self._launches.bases, 0, *bases, counter, maps)
            if self._launches.run(stream, asks=True):
                self._write(self._launches.bases, 0, *bases, *self._captured(bases, stream))
                self._launches.run(stream, asks=False)
        return scratch

    def _place_of_maps(self, bases: Sequence[int], stream: int) -> int:
        """The address of the tensor maps of these arrays, made where they are new."""
        key = self._serial, self._mapped(bases)
        found = self._pool.find(key)
        if found is None:
            with self._device.current():
                found = self._pool.get(key, lambda: self._encode(bases), lambda: is_capturing(stream))
        return found

    def _counters_for(self, stream: int, *, fresh: bool) -> int:
        return self._counters.get(stream, self._counter_words, fresh=fresh) if self._counter_words else 0

    def _encode(self, bases: Sequence[int]) -> NDArray[np.uint64]:
        return self._encoded.encode((*bases, 0, 0, *self._fixed.values()))  # no map is of counters, or of maps

    def _captured(self, bases: Sequence[int], stream: int) -> tuple[int, int]:
        """The addresses of counters and of tensor maps for a graph, which may run beside its stream and for ever."""
        _captured.add(self)
        counter = self._counters_for(stream, fresh=True)
        key = self._serial, self._mapped(bases)
        maps = self._pool.get(key, lambda: self._encode(bases), lambda: True) if self._maps else 0
        return counter, maps


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
        self._never_fit = copied_of(rules)
        self._alignment_bits = max((rule.alignment for rule in rules.values()), default=1) - 1
        self._ruled = len(rules)

    def run(self, addresses: Sequence[int], stream: int, framework: Framework, like: Any) -> Any:
        """ReadySchedule.run(), with copies where these addresses want them."""
        copied = self._never_fit
        together = 0
        for address in addresses[: self._ruled]:
            together |= address
        if together & self._alignment_bits:
            copied |= self._misaligned(addresses)
        ready = self._ready.get(copied) or self._make(copied)
        return ready.run(addresses, stream, framework, like)

    def _misaligned(self, addresses: Sequence[int]) -> frozenset[str]:
        rules = zip(addresses, self._rules.items(), strict=False)
        return frozenset(name for address, (name, rule) in rules if address % rule.alignment)

    def _make(self, copied: frozenset[str]) -> ReadySchedule:
        with self._device.current():
            made = ReadySchedule(self._schedule_for(copied), self._device, self.settings)
        return self._ready.setdefault(copied, made)
