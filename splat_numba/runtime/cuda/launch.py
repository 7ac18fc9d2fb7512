"""Launches of kernels: parameters packed once, then only what changes is written again.

cuLaunchKernel of cuda.bindings, given a ready array of parameter addresses, is the cheapest way from Python: it
converts nothing, where cuda.core.launch converts every parameter at every call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

from splat_numba.gen.language.entry import Entry
from splat_numba.runtime.cuda.driver import ask, driver, refuse

_TYPES: Mapping[str, Any] = {"l": ctypes.c_uint64, "r": ctypes.c_uint32, "f": ctypes.c_float}


@cache
def structure_of(parameters: tuple[tuple[str, str], ...]) -> type[ctypes.Structure]:
    """A structure with a kernel's parameters as its fields."""
    fields = [(name, _TYPES[kind]) for name, kind in parameters]
    return type("Parameters", (ctypes.Structure,), {"_fields_": fields})


def word_of(kind: str, value: Any) -> int:
    """A parameter's bytes in the lower part of a word."""
    return int.from_bytes(bytes(_TYPES[kind](value)), "little")


class Launch:
    """A kernel with its grid and its parameters. What changes from run to run is elsewhere.

    elsewhere: where the driver finds some parameters instead, by name, so that launches can share them; whoever gives
    these addresses of host memory keeps it, and locks it. overlaps: it may begin before the launch before it has ended,
    for whose results its text waits (await_launch). Three launches in a row end 1.5 us earlier by that.
    """

    def __init__(
        self, function: int, entry: Entry, grid: int, values: Mapping[str, Any],
        elsewhere: Mapping[str, int] | None = None, *, overlaps: bool = False,
    ) -> None:  # fmt: skip
        structure = structure_of(entry.parameters)
        self.parameters: Any = structure(**values)
        self.grid = grid
        start = ctypes.addressof(self.parameters)
        places = {name: start + getattr(structure, name).offset for name, _ in entry.parameters}
        places |= {name: place for name, place in (elsewhere or {}).items() if name in places}
        self._places = (ctypes.c_void_p * len(places))(*places.values())
        self._shape = (function, grid, 1, 1, entry.threads, 1, 1, entry.shared_bytes)
        self._address = ctypes.addressof(self._places)
        self._configuration = _overlapping(entry, grid) if overlaps else None
        self._launch = driver().cuLaunchKernelEx if overlaps else driver().cuLaunchKernel

    def run(self, stream: int) -> None:
        """Launch; the driver copies the parameters before it returns."""
        if self._configuration is None:
            status = self._launch(*self._shape, stream, self._address, 0)
        else:
            self._configuration.hStream = stream
            status = self._launch(self._configuration, self._shape[0], self._address, 0)
        if status[0]:
            refuse(self._launch.__name__, status[0])


def _overlapping(entry: Entry, grid: int) -> Any:
    """A launch configuration that lets the launch begin while the one before it ends."""
    cu = driver()
    attribute = cu.CUlaunchAttribute()
    attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    made = cu.CUlaunchConfig()
    made.gridDimX, made.gridDimY, made.gridDimZ = grid, 1, 1
    made.blockDimX, made.blockDimY, made.blockDimZ = entry.threads, 1, 1
    made.sharedMemBytes = entry.shared_bytes
    made.attrs, made.numAttrs = [attribute], 1
    return made


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
