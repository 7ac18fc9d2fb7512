"""Settings, read from the environment once per call at the api's edge and passed down as a value."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from splat_numba.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Settings:
    """cache: keep compiled kernels on disk (SPLAT_CACHE, "0" for no); cache_dir: where (SPLAT_CACHE_DIR; None: the
    user's cache folder); dump_dir: write source and plan of every new kernel there (SPLAT_DUMP_DIR); threads: of a CPU
    launch (SPLAT_NUM_THREADS; None: as many as the process may use); emulate: run backend "cuda" on the emulator where
    arrays are not on a GPU (SPLAT_EMULATE, "1" for yes).
    """

    cache: bool = True
    cache_dir: Path | None = None
    dump_dir: Path | None = None
    threads: int | None = None
    emulate: bool = False


def current() -> Settings:
    """The settings that the environment gives now. Raises ArgumentError for values that make no sense."""
    threads = os.environ.get("SPLAT_NUM_THREADS", "").strip()
    if threads and not (threads.isdecimal() and int(threads) >= 1):
        raise ArgumentError(f"SPLAT_NUM_THREADS wanted as a whole number >= 1, got {threads!r}. Set it, or unset it.")
    return Settings(
        cache=os.environ.get("SPLAT_CACHE", "1") != "0",
        cache_dir=_path("SPLAT_CACHE_DIR"),
        dump_dir=_path("SPLAT_DUMP_DIR"),
        threads=int(threads) if threads else None,
        emulate=os.environ.get("SPLAT_EMULATE") == "1",
    )


def _path(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).expanduser() if value else None
