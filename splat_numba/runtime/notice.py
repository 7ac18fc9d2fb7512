"""Who waits is told for what: a logging record for every kernel that is compiled or read, and a line on the terminal,
or in the notebook, for one that takes longer than a second.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LOGGER = logging.getLogger("splat_numba")
PATIENCE = 1.0  # seconds without a word
COLD, CACHED = "cold", "cached"


@dataclass(frozen=True, slots=True)
class Told:
    """A kernel that was compiled, or read from disk (cached), and how long that took."""

    kernel: str
    seconds: float
    cached: bool


_listeners: list[list[Told]] = []


@contextmanager
def compiling(name: str, wanted: bool | None) -> Iterator[Callable[[bool], None]]:
    """While a kernel of this name is compiled, or read from disk; called with whether it came from there.

    The record is at level INFO where it was compiled, else at DEBUG; its ``kernel``, ``seconds`` and ``why`` (COLD or
    CACHED) are attributes. An error has no record: it is raised. wanted: whether a line is shown, None for where
    somebody looks.
    """
    began, found = time.monotonic(), [False]

    def tell(cached: bool) -> None:
        found[0] = cached

    with showing(name, wanted):
        yield tell
    log(Told(name, time.monotonic() - began, found[0]))


def log(told: Told) -> None:
    """The record of a kernel, for those who listen too."""
    level, what = (logging.DEBUG, "read from the cache") if told.cached else (logging.INFO, "compiled")
    extra = {"kernel": told.kernel, "seconds": told.seconds, "why": CACHED if told.cached else COLD}
    LOGGER.log(level, "%s %s in %.2f s", told.kernel, what, told.seconds, extra=extra)
    for heard_by in _listeners:
        heard_by.append(told)


@contextmanager
def heard() -> Iterator[list[Told]]:
    """What is compiled or read meanwhile, by whatever thread."""
    told: list[Told] = []
    _listeners.append(told)
    try:
        yield told
    finally:
        _listeners[:] = [one for one in _listeners if one is not told]


@contextmanager
def showing(words: str, wanted: bool | None) -> Iterator[None]:
    """While these are compiled, in words. wanted: as compiling() has it."""
    with _shown_after(PATIENCE, words, time.monotonic(), looked_at() if wanted is None else wanted):
        yield


def looked_at() -> bool:
    """Whether what is shown on standard error is seen at once: a terminal, or a notebook."""
    return "ipykernel" in sys.modules or is_terminal(sys.stderr)


def is_terminal(stream: Any) -> bool:
    """Whether a standard stream is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # there is none, or a program's own with write() alone; it is closed
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is shown: the caller has a line of its own there, and two would write over each other."""
    _display.quiet += 1
    try:
        yield
    finally:
        _display.quiet -= 1


@contextmanager
def _shown_after(seconds: float, name: str, began: float, wanted: bool) -> Iterator[None]:
    if not wanted or _display.quiet:
        yield
        return
    timer = threading.Timer(seconds, _display.show, (name, began))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # or it would show what is over
        _display.hide(name)


class _Display:
    """One line for each kernel that is being compiled, since several threads may do so."""

    def __init__(self) -> None:
        self.quiet = 0
        self._lock = threading.Lock()
        self._lines: dict[str, Any] = {}
        self._progress: Any = None

    def show(self, name: str, began: float) -> None:
        from rich.console import Console  # 40 ms, of those who wait for seconds
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        if not (console.is_terminal or console.is_jupyter):  # SPLAT_PROGRESS=1 and a file: nothing moves there
            console.print(f"compiling {name}", markup=False, highlight=False, soft_wrap=True)
            return
        with self._lock:
            if self._progress is None:
                columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
                self._progress = Progress(*columns, console=console, transient=True, get_time=time.monotonic)
                self._progress.start()
            line = self._lines[name] = self._progress.add_task(f"compiling {name}", total=None)
            for task in self._progress.tasks:
                if task.id == line:
                    task.start_time = began

    def hide(self, name: str) -> None:
        with self._lock:
            line = self._lines.pop(name, None)
            if line is None:
                return
            self._progress.remove_task(line)
            if not self._lines:
                self._progress.stop()
                self._progress = None


_display = _Display()
