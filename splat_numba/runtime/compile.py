"""From a plan to compiled functions: text, cache, Numba."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from splat_numba.errors import CompileError
from splat_numba.runtime import cache
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings


@dataclass(frozen=True, slots=True)
class Compiled:
    """functions: by name, ready to call; path: the generated file, None if it could not be written; cached: whether the
    machine code came from disk.
    """

    source: KernelSource
    path: Path | None
    functions: Mapping[str, Any]
    cached: bool


def compile_source(source: KernelSource, signatures: Mapping[str, Any], settings: Settings) -> Compiled:
    """Compile the functions named in ``signatures``, or load them from the disk cache.

    Safe under concurrent processes: one compiles, under a lock for this text, the others wait and load. Raises
    CompileError, naming the file, from Numba's error.
    """
    folder = cache.folder(settings)
    if folder is None:
        return _build(source, None, signatures)
    path = source.write(folder)
    from filelock import FileLock  # 10 ms to import, which a GPU's kernel from disk need not wait for

    with FileLock(path.with_suffix(".lock")):
        entry = cache.Entry(path)
        if not entry.intact():
            entry.clear()
        try:
            compiled = _build(source, path, signatures)
        except CompileError:
            entry.clear()  # a whole entry that Numba cannot read is a miss too; a text at fault fails again
            compiled = _build(source, path, signatures)
        if not compiled.cached:
            entry.seal()
    return compiled


def _build(source: KernelSource, path: Path | None, signatures: Mapping[str, Any]) -> Compiled:
    module: ModuleType = source.load(path)
    cached = path is not None
    functions: dict[str, Any] = {}
    for name, signature in signatures.items():
        function = getattr(module, name)
        if path is not None:
            function.enable_caching()
        try:
            function.compile(signature)
        except Exception as error:
            raise CompileError(
                f"source {path or source.name} does not compile: {error}. "
                "If it was edited by hand, mend it; if not, please report the file."
            ) from error
        cached = cached and sum(function.stats.cache_hits.values()) > 0
        function.disable_compile()
        functions[name] = function
    return Compiled(source, path, functions, cached)


def dump(source: KernelSource, description: Mapping[str, Any], settings: Settings) -> None:
    """Write text and plan to SPLAT_DUMP_DIR, if that is set."""
    if settings.dump_dir is None:
        return
    settings.dump_dir.mkdir(parents=True, exist_ok=True)
    stem = os.fspath(settings.dump_dir / source.name)
    Path(f"{stem}.py").write_text(source.text, encoding="utf-8")
    Path(f"{stem}.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
