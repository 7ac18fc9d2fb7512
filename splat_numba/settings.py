"""Settings, declared once, read from the environment once per call at the api's edge and passed down as a value."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from splat_numba.errors import ArgumentError

PREFIX = "SPLAT_"
CUDA_COMPILERS = ("numba-cuda", "mlir")
FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
AUTO = "auto"
UNITS: dict[str, int] = {unit: 1024**power for power, unit in enumerate(("", "k", "m", "g", "t"))}
DEFAULT_CACHE_SIZE = 2 * 1024**3  # some 5,000 kernels of a CPU
LONGEST_SHOWN = 40  # characters of a value that makes no sense


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for a call: a field a variable, with what holds where that is unset. VARIABLES says what each means.

    cache_dir: "~" is not expanded yet; None: the user's cache folder. cache_size: bytes, 0 for no limit. threads: None
    for as many as the process may use. cuda_compiler: None for the first that is installed. progress: None for where
    standard error is a terminal or a notebook.
    """

    cache: bool = True
    cache_dir: Path | None = None
    dump_dir: Path | None = None
    threads: int | None = None
    emulate: bool = False
    cache_size: int = DEFAULT_CACHE_SIZE
    cuda_compiler: str | None = None
    progress: bool | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment. field: of Settings; meaning, values, unset: what docs/settings.md says of it;
    read: its text as a value, ValueError for one that makes no sense; wanted: what makes sense, for that message.
    """

    name: str
    field: str
    meaning: str
    values: str
    unset: str
    read: Callable[[str], Any]
    wanted: str

    def of(self, text: str) -> Any:
        """The value that a text, which is not empty, stands for. Raises ArgumentError for one that makes no sense."""
        try:
            return self.read(text)
        except ValueError:
            got = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
            raise ArgumentError(f"{self.name} wanted as {self.wanted}, got {got!r}. Set it, or unset it.") from None


def _one_of(choices: dict[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        word = text.strip().lower()
        if word not in choices:
            raise ValueError
        return choices[word]

    return read


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None:
        raise ValueError
    return int(found[1]) * UNITS[found[2]]


def _threads(text: str) -> int:
    word = text.strip()
    if not (word.isdecimal() and len(word) <= 4000 and int(word) >= 1):  # of more digits int() makes no number
        raise ValueError
    return int(word)


_FLAG, _FLAG_WANTED = _one_of(FLAGS), f"one of {', '.join(FLAGS)}"
_YES_NO = "1, true, yes, on; or 0, false, no, off"
VARIABLES = (
    Variable("SPLAT_NUM_THREADS", "threads", "threads of a call on the CPU", "1 or more",
             "as many as the process may use", _threads, "a whole number >= 1"),
    Variable("SPLAT_CACHE", "cache", "keep compiled kernels on disk; without them every process compiles anew", _YES_NO,
             "on", _FLAG, _FLAG_WANTED),
    Variable("SPLAT_CACHE_DIR", "cache_dir", "where they are kept", "a folder that others cannot write to",
             "the user's cache folder", Path, "a folder"),
    Variable("SPLAT_CACHE_SIZE", "cache_size", "how much they may take; the ones used longest ago go first",
             "a size such as 500M or 2G; 0 for no limit", "2G", _size, "a size such as 500M or 2G, or 0"),
    Variable("SPLAT_DUMP_DIR", "dump_dir", "write the text and the plan (JSON) of every kernel that is compiled",
             "a folder", "nothing is written", Path, "a folder"),
    Variable("SPLAT_CUDA_COMPILER", "cuda_compiler", "what makes GPU kernels, see [gpu.md](gpu.md)",
             "numba-cuda; or mlir for numba-cuda-mlir", "the first that is installed",
             _one_of({name: name for name in CUDA_COMPILERS}), f"one of {', '.join(CUDA_COMPILERS)}"),
    Variable("SPLAT_PROGRESS", "progress", "say on standard error which kernel is being compiled, after a second",
             f"{_YES_NO}; or auto", "auto: on a terminal and in notebooks", _one_of({**FLAGS, AUTO: None}),
             f"{_FLAG_WANTED}, {AUTO}"),
    Variable("SPLAT_EMULATE", "emulate", 'run `backend="cuda"` on the emulator, for arrays that are not on a GPU',
             _YES_NO, "off", _FLAG, _FLAG_WANTED),
)  # fmt: skip
NAMES = tuple(one.name for one in VARIABLES)


def current() -> Settings:
    """The settings that the environment gives now. Raises ArgumentError for values that make no sense."""
    # What os.environ is made of: get() raises and catches an exception for each name that is not set, 3 us in all.
    stored = getattr(os.environ, "_data", None)
    if stored is None:
        return _settings(*map(os.environ.get, NAMES))
    return _stored_settings(*map(stored.get, _STORED_NAMES))


def given() -> dict[str, str]:
    """What the environment has under the prefix SPLAT_, by name: empty texts too, and names that nothing reads."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(PREFIX)}


_STORED_NAMES = tuple(map(os.environ.encodekey, NAMES))


@lru_cache(maxsize=64)
def _stored_settings(*values: Any) -> Settings:
    """Of values as os.environ stores them."""
    return _settings(*(None if one is None else os.environ.decodevalue(one) for one in values))


@lru_cache(maxsize=64)
def _settings(*values: str | None) -> Settings:
    """Of VARIABLES' texts, in their order; an empty one counts as unset."""
    found = zip(VARIABLES, values, strict=True)
    return Settings(**{one.field: one.of(text) for one, text in found if text and text.strip()})
