"""A GPU's schedule over the buffers of a call of XLA's, laid out in memory for the handler to launch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from splat_numba.gen.schedules.schedule import COUNTERS, SCRATCH, Place, Schedule, Step
from splat_numba.gen.schedules.tensor_map import MAP_BYTES
from splat_numba.runtime.cuda.code import source_of
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.driver import addresses
from splat_numba.runtime.cuda.launch import WORD_BYTES, HostWords, record_of, room_bytes, word_of
from splat_numba.runtime.cuda.memory import undisturbed
from splat_numba.runtime.cuda.places import MAPS, maps_of, pointers_of
from splat_numba.runtime.cuda.ready import function_of
from splat_numba.runtime.cuda.tables import spare, upload_of
from splat_numba.runtime.cuda.tensor_map import SPARE, map_record
from splat_numba.runtime.xla import layout, link
from splat_numba.runtime.xla.program import address_of_error, c_function
from splat_numba.settings import Settings

CHUNK_SLOTS = 32  # that are allocated at once
ENTRIES = 1 << 11  # sets of buffers that a device's slots are remembered by
SLOT_ALIGNMENT = 128
LARGEST_MESSAGE = 1 << 10  # bytes of an error that a call makes itself, with what XLA's function wants before it
DRIVER = {
    layout.CU_LAUNCH: "cuLaunchKernelEx",
    layout.CU_CAPTURING: "cuStreamIsCapturing",
    layout.CU_CURRENT: "cuCtxGetCurrent",
    layout.CU_PUSH: "cuCtxPushCurrent_v2",
    layout.CU_POP: "cuCtxPopCurrent_v2",
    layout.CU_WAIT: "cuCtxSynchronize",
    layout.CU_ALLOCATE: "cuMemAlloc_v2",
    layout.CU_COPY: "cuMemcpyHtoDAsync_v2",
    layout.CU_WAIT_STREAM: "cuStreamSynchronize",
    layout.CU_MODE: "cuThreadExchangeStreamCaptureMode",
    layout.CU_ENCODE: "cuTensorMapEncodeTiled",
}
"""What the handler asks of the driver, by the place of the address."""
ERRORS = {
    layout.GPU_WRONG_COUNT: (
        "splat_numba was called with other numbers of arrays than it was traced for. Trace again.", layout.INTERNAL,
    ),
    layout.GPU_NO_MEMORY: ("splat_numba found no memory for a call's parameters.", layout.RESOURCE_EXHAUSTED),
    layout.GPU_NO_DEVICE: (
        "splat_numba was called on a GPU that was not there when the call was traced. Trace again.", layout.INTERNAL,
    ),
    layout.GPU_MISALIGNED: (
        "splat_numba wanted arrays at addresses that are multiples of 16, got others. Copy them with jax.numpy.copy.",
        layout.INVALID_ARGUMENT,
    ),
    layout.GPU_REFUSED: (
        "000 is the CUDA driver's code where splat_numba wanted kernels launched. An earlier kernel may have failed: "
        "run with CUDA_LAUNCH_BLOCKING=1 to see which.", layout.INTERNAL,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class GpuProgram:
    """A schedule over so many arguments and results. buffers: which of them, arguments first, its arguments and its
    scratch memory are; an argument of the schedule that is not among them is nowhere, at address 0. alignment: of all
    buffers.
    """

    schedule: Schedule
    buffers: Mapping[str, int]
    arguments: int
    results: int
    alignment: int

    def digest(self) -> str:
        """A hash of all that a call's results depend on beside its arguments: no address is part of it, so that other
        processes have the same.
        """
        one = self.schedule
        head = f"{self.arguments} {self.results} {self.alignment} {sorted(self.buffers.items())} {one.counters}"
        found = hashlib.sha256(head.encode())
        for step, pointers in zip(one.steps, pointers_of(one), strict=True):
            numbers = [(name, word_of(kind, step.numbers[name])) for name, kind in _kinds(step) if name in step.numbers]
            text = f"{source_of(step.text).name} {step.text.entry} {step.grid} {numbers} {sorted(pointers.items())} "
            found.update(f"{text}{sorted(step.maps.items())} {step.overlaps}".encode())
        for name, table in sorted(one.tables.items()):
            found.update(f"{name} {table.dtype} {table.shape}".encode() + np.ascontiguousarray(table).tobytes())
        return found.hexdigest()[:32]


def program_over(schedule: Schedule, given: Sequence[str], made: Sequence[str], alignment: int) -> GpuProgram:
    """The program of a schedule over arguments and results of these names, and its scratch memory, if it wants any, as
    one more result.
    """
    buffers = {name: number for number, name in enumerate((*given, *made)) if name in schedule.arguments}
    results = len(made)
    if schedule.scratch:
        buffers[SCRATCH] = len(given) + results
        results += 1
    return GpuProgram(schedule, buffers, len(given), results, alignment)


class LoadedGpuProgram:
    """A program in memory, with the C function that XLA calls; both must stay for as long as XLA may call it. Its
    kernels are loaded and its tables uploaded on all devices that are given.
    """

    def __init__(self, program: GpuProgram, settings: Settings, devices: Sequence[Device]) -> None:
        self._kept: list[Any] = [program]
        self._memory = HostWords()
        self._program, self._schedule = program, program.schedule
        self._maps, self._tables = maps_of(self._schedule), (*self._schedule.tables, SPARE)
        first = program.arguments + program.results
        starts = {**program.buffers, **{name: first + number for number, name in enumerate(self._tables)}}
        self._slot = first + len(self._tables)  # the last of the buffers: tensor maps, and then counters
        counters_at = MAP_BYTES * len(self._maps)
        self._numbers = {name: (number, 0) for name, number in starts.items()}
        self._numbers |= {MAPS: (self._slot, 0), COUNTERS: (self._slot, counters_at)}
        used = counters_at + 4 * self._schedule.counters
        self._slot_bytes = -(-used // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
        self._entry_bytes = layout.ENTRY_KEY + WORD_BYTES * first
        self._devices, self._settings = devices, settings
        words = np.zeros(layout.GPU_WORDS // WORD_BYTES, np.int64)
        for offset, value in self._head().items():
            words[offset // WORD_BYTES] = value
        self.address = link.handle_bridge(_handler(settings), self._memory.place(words))

    def _head(self) -> dict[int, int]:
        """The words of the program, by their places in the layout."""
        launches, program = self._schedule.steps, self._program
        pairs = zip(launches, pointers_of(self._schedule), strict=True)
        room = max(room_bytes(launches), LARGEST_MESSAGE)
        return {
            layout.GPU_ARGUMENTS: program.arguments,
            layout.GPU_RESULTS: program.results,
            layout.GPU_STEPS: len(launches),
            layout.GPU_FIRST_STEP: self._memory.records([self._launch(step, places) for step, places in pairs]),
            layout.GPU_MALLOC: c_function("malloc"),
            layout.GPU_FREE: c_function("free"),
            layout.GPU_YIELD: c_function("sched_yield"),
            layout.GPU_BASES: room,
            layout.GPU_JOB_BYTES: room + WORD_BYTES * (self._slot + 1),
            layout.GPU_LOOSE_BITS: program.alignment - 1,
            layout.GPU_DEVICES: len(self._devices),
            layout.GPU_FIRST_DEVICE: self._memory.records([*map(self._device, self._devices)]),
            layout.GPU_TABLES: len(self._tables),
            layout.GPU_MAPS: len(self._maps),
            layout.GPU_FIRST_MAP: self._memory.records(
                [map_record(one, self._numbers, self._memory) for one in self._maps]
            ),
            layout.GPU_SLOT_BYTES: self._slot_bytes,
            layout.GPU_CHUNK_BYTES: self._slot_bytes * CHUNK_SLOTS,
            layout.GPU_ENTRIES: ENTRIES,
            layout.GPU_ENTRY_BYTES: self._entry_bytes,
            layout.GPU_REFUSED_BYTES: len(ERRORS[layout.GPU_REFUSED][0]) + 1,
            **{place: address_of_error(*error, self._kept) for place, error in ERRORS.items()},
            **dict(zip(DRIVER, addresses(*DRIVER.values()), strict=True)),
        }

    def _launch(self, step: Step, pointers: Mapping[str, Place]) -> list[int]:
        """The words of a launch."""
        functions = []
        for device in self._devices:  # a kernel's handle is of all devices, what it is allowed is not
            with device.current(), undisturbed():
                functions.append(function_of(step, device, self._settings))
        return record_of(step, pointers, self._numbers, functions[0], self._memory)

    def _device(self, device: Device) -> list[int]:
        """The words of a device, in the order of the layout."""
        with device.current(), undisturbed():
            uploads = [upload_of(device, data) for data in self._schedule.tables.values()]
            tables = [*(one.address for one in uploads), spare(device)]
        self._kept.append(uploads)
        staging = np.zeros((self._slot_bytes + 2 * layout.STAGING_HEAD) // WORD_BYTES, np.int64)
        start = self._memory.place(staging)
        entries = np.zeros(ENTRIES * self._entry_bytes // WORD_BYTES if self._slot_bytes else 0, np.int64)
        return [
            device.ordinal, device.context, device.stream, self._memory.place(np.array(tables, np.int64)), 0, 0, 0, 0,
            start + -start % layout.STAGING_HEAD, self._memory.place(entries),
        ]  # fmt: skip


def _kinds(step: Step) -> tuple[tuple[str, str], ...]:
    return step.text.entry.parameters


@lru_cache(maxsize=1)
def _handler(settings: Settings) -> int:
    return link.gpu_handler_function(settings)
