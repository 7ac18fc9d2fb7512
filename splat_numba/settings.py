"""Settings, read from the environment once per call at the api's edge and passed down as a value."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from splat_numba.errors import ArgumentError

NAMES = (
    "SPLAT_CACHE", "SPLAT_CACHE_DIR", "SPLAT_CACHE_SIZE", "SPLAT_DUMP_DIR", "SPLAT_NUM_THREADS", "SPLAT_EMULATE",
    "SPLAT_CUDA_COMPILER", "SPLAT_PROGRESS",
)  # fmt: skip
CUDA_COMPILERS = ("numba-cuda", "mlir")
FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
AUTO = "auto"
UNITS = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t"))}
DEFAULT_CACHE_SIZE = 2 * 1024**3  # some 5,000 kernels of a CPU


@dataclass(frozen=True, slots=True)
class Settings:
    """cache: keep compiled kernels on disk (SPLAT_CACHE); cache_dir: where (SPLAT_CACHE_DIR; None: the user's cache
    folder), "~" not expanded yet; cache_size: bytes that they may take there, 0 for no limit (SPLAT_CACHE_SIZE);
    dump_dir: write source and plan of every new kernel there (SPLAT_DUMP_DIR); threads: of a CPU launch
    (SPLAT_NUM_THREADS; None: as many as the process may use); emulate: run backend "cuda" on the emulator where arrays
    are not on a GPU (SPLAT_EMULATE); cuda_compiler: what makes GPU kernels, of CUDA_COMPILERS (SPLAT_CUDA_COMPILER;
    None: the first that is installed); progress: show on standard error what is being compiled (SPLAT_PROGRESS; None:
    where that is a terminal or a notebook).
    """

    cache: bool = True
    cache_dir: Path | None = None
    dump_dir: Path | None = None
    threads: int | None = None
    emulate: bool = False
    cache_size: int = DEFAULT_CACHE_SIZE
    cuda_compiler: str | None = None
    progress: bool | None = None


def current() -> Settings:
    """The settings that the environment gives now. Raises ArgumentError for values that make no sense."""
    # What os.environ is made of: get() raises and catches an exception for each name that is not set, 3 us in all.
    stored = getattr(os.environ, "_data", None)
    if stored is None:
        return _settings(*map(os.environ.get, NAMES))
    return _stored_settings(*map(stored.get, _STORED_NAMES))


_STORED_NAMES = tuple(map(os.environ.encodekey, NAMES))


@lru_cache(maxsize=64)
def _stored_settings(*values: Any) -> Settings:
    """Of values as os.environ stores them."""
    return _settings(*(None if one is None else os.environ.decodevalue(one) for one in values))


@lru_cache(maxsize=64)
def _settings(
    cache: str | None,
    cache_dir: str | None,
    cache_size: str | None,
    dump_dir: str | None,
    threads: str | None,
    emulate: str | None,
    cuda_compiler: str | None,
    progress: str | None,
) -> Settings:
    return Settings(
        cache=_flag("SPLAT_CACHE", cache, default=True),
        cache_dir=Path(cache_dir) if cache_dir else None,
        dump_dir=Path(dump_dir) if dump_dir else None,
        threads=_threads(threads),
        emulate=_flag("SPLAT_EMULATE", emulate, default=False),
        cache_size=_size("SPLAT_CACHE_SIZE", cache_size),
        cuda_compiler=_cuda_compiler(cuda_compiler),
        progress=_progress(progress),
    )


def _cuda_compiler(value: str | None) -> str | None:
    text = (value or "").strip().lower()
    if text and text not in CUDA_COMPILERS:
        raise ArgumentError(
            f"SPLAT_CUDA_COMPILER wanted as one of {', '.join(CUDA_COMPILERS)}, got {value!r}. Set it, or unset it."
        )
    return text or None


def _progress(value: str | None) -> bool | None:
    text = (value or AUTO).strip().lower()
    if text and text != AUTO and text not in FLAGS:
        wanted = ", ".join((*FLAGS, AUTO))
        raise ArgumentError(f"SPLAT_PROGRESS wanted as one of {wanted}, got {value!r}. Set it, or unset it.")
    return FLAGS.get(text)


def _flag(name: str, value: str | None, *, default: bool) -> bool:
    text = (value or "").strip().lower()
    if text and text not in FLAGS:
        raise ArgumentError(f"{name} wanted as one of {', '.join(FLAGS)}, got {value!r}. Set it, or unset it.")
    return FLAGS.get(text, default)


def _size(name: str, value: str | None) -> int:
    text = (value or "").strip().lower()
    found = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(?:i?b)?", text)
    if text and found is None:
        raise ArgumentError(f"{name} wanted as a size such as 500M or 2G, or 0, got {value!r}. Set it, or unset it.")
    return int(found[1]) * UNITS[found[2]] if found else DEFAULT_CACHE_SIZE


def _threads(value: str | None) -> int | None:
    text = (value or "").strip()
    if text and not (text.isdecimal() and len(text) <= 4000 and int(text) >= 1):  # of more digits int() makes no number
        raise ArgumentError(f"SPLAT_NUM_THREADS wanted as a whole number >= 1, got {text[:40]!r}. Set it, or unset it.")
    return int(text) if text else None
