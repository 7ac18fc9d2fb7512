"""From a plan to compiled functions: text, cache, Numba."""

from __future__ import annotations

import inspect
import pickle
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from splat_numba.errors import CompileError
from splat_numba.runtime import cache, fork, machine_code, notice
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

MADE_BY = "import splat_numba.runtime.pipeline"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CompiledText:
    """functions: by name, ready to call; path: the generated file, None if it could not be written; cached: whether the
    machine code came from disk. Most of the memory that it takes is free again when nobody has it any more.
    """

    source: KernelSource
    path: Path | None
    functions: Mapping[str, Any]
    cached: bool


def compile_source(source: KernelSource, signatures: Mapping[str, Any], settings: Settings) -> CompiledText:
    """Compile the functions named in ``signatures``, or load them from the disk cache.

    Safe under concurrent processes: one compiles, the others wait and load. Raises CompileError, naming the file, from
    Numba's error.
    """
    _check_numba()
    fork.prepare()
    fork.check_compiler()
    folder = cache.folder(settings)
    path = source.write(folder) if folder else None
    entry = _entry(folder, source, signatures, settings.cache_size) if folder else None

    def make() -> tuple[ModuleType, bytes | None]:
        return _make(source, path, signatures)

    with notice.compiling(source.name, settings.progress) as tell:
        if entry is None:
            module, cached = make()[0], False
        else:
            module, cached = entry.load_or(lambda stored: _load(source, path, signatures, stored), make)
        tell(cached)
    compiled = CompiledText(source, path, {name: getattr(module, name) for name in signatures}, cached)
    weakref.finalize(compiled, machine_code.release, module).atexit = False
    return compiled


@lru_cache(maxsize=256)
def compile_file(module: ModuleType, signatures: tuple[tuple[str, Any], ...], settings: Settings) -> CompiledText:
    """Machine code of a module of ours, of the functions that are named with a signature. Raises CompileError."""
    name = module.__name__.removeprefix("splat_numba.runtime.").replace(".", "_")
    return compile_source(KernelSource.of(name, inspect.getsource(module)), dict(signatures), settings)


def _check_numba() -> None:
    from numba.core import config

    if config.DISABLE_JIT:
        raise CompileError("NUMBA_DISABLE_JIT wanted unset, got 1: generated kernels run compiled only. Unset it.")


def _entry(folder: Path, source: KernelSource, signatures: Mapping[str, Any], limit: int) -> cache.CacheEntry | None:
    facts = f"{sys.implementation.cache_tag} {cache.version_of('llvmlite')} {machine_code.target()} {dict(signatures)}"
    return cache.CacheEntry.of(folder, source.name, source.text, facts, limit, MADE_BY)


def _make(source: KernelSource, path: Path | None, signatures: Mapping[str, Any]) -> tuple[ModuleType, bytes | None]:
    """The text as a module of compiled functions, and their machine code; None for code that must not be stored.

    What was compiled is let go of, and its machine code read back: 2 MB stay in memory where it would be 25.
    """
    try:
        short = _compile(source, path, signatures)
        if short is not None:
            stored = pickle.dumps(short)
            loaded = _load(source, path, signatures, stored)
            if loaded is not None:
                return loaded, stored
        module = source.load(path)
        codes = {name: machine_code.compile_function(getattr(module, name), one) for name, one in signatures.items()}
    except Exception as error:
        raise CompileError(
            f"{source.named(path)} does not compile: {error}. "
            "If it was edited by hand, mend it; if not, please report the file."
        ) from error
    return module, None if None in codes.values() else pickle.dumps(codes)


def _compile(source: KernelSource, path: Path | None, signatures: Mapping[str, Any]) -> dict[str, bytes] | None:
    """Machine code by the short way, None where that does not serve."""
    module = source.load(path)
    try:
        return machine_code.compile_module(module, signatures)
    finally:
        machine_code.release(module)


def _load(source: KernelSource, path: Path | None, signatures: Mapping[str, Any], stored: bytes) -> ModuleType | None:
    """As _make, with stored machine code; None where Numba cannot read it, although its hash is right."""
    try:
        codes = pickle.loads(stored)  # noqa: S301 - nobody else may write to the folder
        module = source.load(path)
        for name, signature in signatures.items():
            machine_code.load_function(getattr(module, name), signature, codes[name])
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is made anew
        return None
    return module
