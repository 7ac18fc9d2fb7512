"""Texts of CPU functions and their machine code: compiled or read from disk, and remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from numba import types

from splat_numba.gen.language.cpu_entry import CpuEntry, CpuText, Parameter
from splat_numba.runtime.compile import CompiledText, compile_source
from splat_numba.runtime.dump import dump
from splat_numba.runtime.lanes import STORED
from splat_numba.runtime.recent import Recent
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

NUMBA = {**STORED, "int32": types.int32, "int64": types.int64, "uint64": types.uint64}

_compiled: Recent[CompiledText] = Recent(128)  # of 2 MB each, or 25 where they were compiled here


def source_of(text: CpuText) -> KernelSource:
    """The text under a name with its hash."""
    return KernelSource.of(text.name, text.source)


def signature_of(entry: CpuEntry) -> Any:
    """Numba's types of an entry function."""
    return types.int64(types.int64, types.int64, *map(_type_of, entry.parameters))


def _type_of(one: Parameter) -> Any:
    if not one.axes:
        return NUMBA[one.dtype]
    return types.Array(NUMBA[one.dtype], one.axes, "C" if one.contiguous else "A", readonly=not one.written)


def compile_text(
    text: CpuText, describe: Callable[[], Mapping[str, Any]], settings: Settings, source: KernelSource | None = None
) -> CompiledText:
    """Machine code of all entry functions, remembered. describe: of the plan, for who asked for it; source: stands in
    for the text. Raises CompileError.
    """
    source = source or source_of(text)
    key = source, text.entries, replace(settings, threads=None, progress=None)  # neither makes a difference to a text
    found = _compiled.find(key)
    if found is None:
        dump(source, describe(), settings)
        found = compile_source(source, {one.name: signature_of(one) for one in text.entries}, settings)
        _compiled.keep(key, found)
    return found
