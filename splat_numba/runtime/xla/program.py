"""A call of XLA's as a program: launches over the call's buffers, laid out in memory for the handler to run."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.language.cpu_entry import CpuEntry, Parameter
from splat_numba.runtime.compile import CompiledText
from splat_numba.runtime.cpu.code import signature_of
from splat_numba.runtime.words import WORD_BYTES
from splat_numba.runtime.xla import layout, link
from splat_numba.settings import Settings

Words: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BufferView:
    """An array in a buffer of the call: which one, arguments first and results after them, bytes behind its start, and
    its sizes and strides, in bytes.
    """

    buffer: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int


Argument: TypeAlias = "BufferView | NDArray[Any] | float"


@dataclass(frozen=True, slots=True, eq=False)
class ProgramLaunch:
    """A compiled function over all its items. arguments: by the names of the entry's parameters, constant arrays among
    them; threads: that are worth asking for; error: what is said where it fails, and its code.
    """

    compiled: CompiledText
    entry: CpuEntry
    items: int
    arguments: Mapping[str, Argument]
    threads: int
    error: tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Launches, one after the other, over so many arguments and results."""

    launches: tuple[ProgramLaunch, ...]
    arguments: int
    results: int

    def digest(self) -> str:
        """A hash of all that a call's results depend on beside its arguments. Addresses and threads are no part of it,
        so that other processes have the same.
        """
        found = hashlib.sha256(f"{self.arguments} {self.results}".encode())
        for one in self.launches:
            found.update(f"{one.compiled.source.name} {one.entry} {one.items} {one.error}".encode())
            for name, value in one.arguments.items():
                if isinstance(value, np.ndarray):
                    found.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
                else:
                    found.update(f"{name} {value!r}".encode())
        return found.hexdigest()[:32]


class LoadedProgram:
    """A program in memory, with the C function that XLA calls; both must stay for as long as XLA may call it."""

    def __init__(self, program: Program, settings: Settings, threads: int) -> None:
        self._kept: list[Any] = [program]
        self._buffers = program.arguments + program.results
        steps = [word for one in program.launches for word in self._step(one)]
        wrong_count = "splat_numba was called with other numbers of arrays than it was traced for. Trace again."
        no_memory = "splat_numba found no memory for a call's arguments."
        handle, assist = _handler(settings)
        words = np.zeros(layout.PROGRAM_WORDS // WORD_BYTES, np.int64)
        values = {
            layout.PROGRAM_ARGUMENTS: program.arguments,
            layout.PROGRAM_RESULTS: program.results,
            layout.PROGRAM_STEPS: len(program.launches),
            layout.PROGRAM_FIRST_STEP: self._address(np.array(steps, np.int64)),
            layout.PROGRAM_THREADS: threads,
            layout.PROGRAM_TASK: assist,
            layout.PROGRAM_MALLOC: c_function("malloc"),
            layout.PROGRAM_FREE: c_function("free"),
            layout.PROGRAM_YIELD: c_function("sched_yield"),
            layout.PROGRAM_WRONG_COUNT: address_of_error(wrong_count, layout.INTERNAL, self._kept),
            layout.PROGRAM_NO_MEMORY: address_of_error(no_memory, layout.RESOURCE_EXHAUSTED, self._kept),
        }
        for offset, value in values.items():
            words[offset // WORD_BYTES] = value
        self.address = link.handle_bridge(handle, self._address(words))

    def _step(self, one: ProgramLaunch) -> list[int]:
        """The words of a step, in the order of the layout."""
        signature = signature_of(one.entry)
        block, places = [link.entry_address(one.compiled.functions[one.entry.name])], list[int]()
        for parameter in one.entry.parameters:
            value = one.arguments[parameter.name]
            if isinstance(value, BufferView):
                if not 0 <= value.buffer < self._buffers:  # compiled code would follow whatever stands there
                    raise RuntimeError(f"{one.entry.header}: {parameter.name} wanted in {self._buffers} buffers")
                places += [len(block) + ARRAY_DATA, value.buffer, value.offset]
            block += self._words_of(parameter, value)
        if len(block) != link.block_words(signature):
            raise RuntimeError(f"{one.entry.header}: {link.block_words(signature)} words wanted, got {len(block)}")
        return [
            _range_bridge(one.entry), one.items, one.threads, self._address(np.array(block, np.int64)), len(block),
            self._address(np.array(places, np.int64)), len(places) // 3, address_of_error(*one.error, self._kept),
        ]  # fmt: skip

    def _words_of(self, parameter: Parameter, value: Argument) -> list[int]:
        """An argument as Numba flattens it; of an array in a buffer the address is filled in at every call."""
        if isinstance(value, BufferView):
            return _array_words(value.shape, value.strides, value.itemsize, 0)
        if isinstance(value, np.ndarray):
            return _array_words(value.shape, value.strides, value.itemsize, self._address(value))
        return [int.from_bytes(np.array(value, parameter.dtype).tobytes(), sys.byteorder, signed=True)]

    def _address(self, words: NDArray[Any]) -> int:
        self._kept.append(words)
        return words.ctypes.data


def address_of_error(message: str, code: int, kept: list[Any]) -> int:
    """The address of what XLA's function that makes an error wants; ``kept`` gets what must stay."""
    text = ctypes.create_string_buffer(message.encode())
    words = np.array([layout.ERROR_SIZE, 0, ctypes.addressof(text), code], np.int64)
    kept += [text, words]
    return words.ctypes.data


ARRAY_DATA = 4  # the word of an array's address, behind an owner, a parent, the number of items and their size


def _array_words(shape: Sequence[int], strides: Sequence[int], itemsize: int, address: int) -> list[int]:
    size = 1
    for one in shape:
        size *= one
    return [0, 0, size, itemsize, address, *shape, *strides]


@lru_cache(maxsize=1024)
def _range_bridge(entry: CpuEntry) -> int:
    """Of entries that are called alike there is one, whatever their names."""
    return _bridge_of(signature_of(entry))


@lru_cache(maxsize=1024)
def _bridge_of(signature: Any) -> int:
    return link.range_bridge(signature)


@lru_cache(maxsize=1)
def _handler(settings: Settings) -> tuple[int, int]:
    """The handler's entry, and the C function of its tasks."""
    handle, assist = link.handler_functions(settings)
    return handle, link.assist_bridge(assist)


def c_function(name: str) -> int:
    """The address of a function of C's library."""
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0
