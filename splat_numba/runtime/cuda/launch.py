"""Launches of kernels: laid out in memory once; then only the addresses that change are written again.

Machine code gives them to the driver, `runtime.cuda.launch_code`: a Python call for all launches of a schedule.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.schedules.schedule import Place, Step
from splat_numba.runtime.cuda import launch_layout as layout
from splat_numba.runtime.cuda.driver import addresses, ask, driver, refuse
from splat_numba.settings import Settings

if TYPE_CHECKING:
    from splat_numba.runtime.compile import CompiledText

_TYPES: Mapping[str, Any] = {"l": ctypes.c_uint64, "r": ctypes.c_uint32, "f": ctypes.c_float}
_DRIVER = ("cuLaunchKernelEx", "cuStreamIsCapturing", "cuCtxGetCurrent", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2")
WORD_BYTES = 8


def word_of(kind: str, value: Any) -> int:
    """A parameter's bytes in the lower part of a word."""
    return int.from_bytes(bytes(_TYPES[kind](value)), "little")


class HostWords:
    """Arrays that machine code reads, for as long as this lives."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def place(self, words: NDArray[Any]) -> int:
        """The address of an array, which is kept."""
        self._kept.append(words)
        return int(words.ctypes.data)

    def records(self, several: Sequence[Sequence[int]]) -> int:
        """The address of records, one behind the other."""
        return self.place(np.array([word for one in several for word in one], np.int64))


def record_of(
    step: Step, pointers: Mapping[str, Place], buffers: Mapping[str, tuple[int, int]], function: int, memory: HostWords
) -> list[int]:
    """The words of a launch, in the order of the layout. buffers: of each its number, and how many bytes are before it
    there; what is in none of them is at address 0. Three launches in a row that overlap end 1.5 us earlier by that.
    """
    block, places = list[int](), list[int]()
    for name, kind in step.text.entry.parameters:
        place = pointers.get(name)
        if place is not None and place.buffer in buffers:
            number, before = buffers[place.buffer]
            places += [len(block), number, before + place.offset]
        block.append(0 if place is not None else ctypes.c_int64(word_of(kind, step.numbers[name])).value)
    entry = step.text.entry
    return [
        function, step.grid, entry.threads, entry.shared_bytes, int(step.overlaps),
        memory.place(np.array(block, np.int64)), len(block),
        memory.place(np.array(places, np.int64)), len(places) // 3,
    ]  # fmt: skip


def room_bytes(steps: Sequence[Step]) -> int:
    """What the driver is given at a launch, at most."""
    return layout.CONFIG_BYTES + 2 * WORD_BYTES * max((len(one.text.entry.parameters) for one in steps), default=0)


class Launches:
    """Launches on one device. bases: words where the addresses of buffers are written before run(), by number; one
    thread at a time does both.
    """

    def __init__(
        self, steps: Sequence[Step], record: Callable[[int, HostWords], list[int]], buffers: int, context: int,
        settings: Settings,
    ) -> None:  # fmt: skip
        """record: record_of() the step of a number."""
        self._memory = memory = HostWords()
        self.bases: Any = np.zeros(max(buffers, 1), np.int64)
        room = memory.place(np.zeros(room_bytes(steps) // WORD_BYTES, np.int64))
        first = memory.records([record(number, memory) for number in range(len(steps))])
        words = [context, len(steps), first, memory.place(self.bases), room, *addresses(*_DRIVER)]
        self._given = memory.records([words])
        self._run = compiled(settings)["run"]

    def run(self, stream: int, *, asks: bool) -> bool:
        """Give the launches to the stream. With asks none where it is captured in a graph, and True. Raises
        BackendError where the driver refuses.
        """
        answer = self._run(self._given, stream, asks)
        if answer > 0:
            function, status = divmod(answer, layout.REFUSED_BY)
            refuse(_DRIVER[function].removesuffix("_v2"), driver().CUresult(status))
        return bool(answer)


def compiled(settings: Settings) -> Mapping[str, Any]:
    """The functions of launch_code, by name."""
    return _code(settings).functions


@cache
def _code(settings: Settings) -> CompiledText:
    """launch_code compiled, for good. Numba is imported for it where a kernel came from disk."""
    from numba import types

    from splat_numba.runtime.compile import compile_file
    from splat_numba.runtime.cuda import launch_code

    signatures = [(name, types.int64(*(types.int64,) * count)) for name, count in (("run", 3), ("encode", 5))]
    return compile_file(launch_code, tuple(signatures), settings)


@cache
def load(cubin: bytes, entry: str, ordinal: int, shared_bytes: int) -> int:
    """The handle of a kernel, allowed its shared memory on one device. The device's context must be current."""
    cu = driver()
    kernel = ask(cu.cuLibraryGetKernel, _library(cubin), entry.encode())
    attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    ask(cu.cuKernelSetAttribute, attribute, shared_bytes, kernel, ordinal)
    return int(kernel)


@cache
def _library(cubin: bytes) -> Any:
    """Machine code in the driver, for all devices; kept for good, as graphs may hold it."""
    return ask(driver().cuLibraryLoadData, cubin, [], [], 0, [], [], 0)


def is_capturing(stream: int) -> bool:
    """Whether work given to the stream goes into a graph."""
    status, found = driver().cuStreamIsCapturing(stream)
    if status:
        refuse("cuStreamIsCapturing", status)
    return bool(int(found))
