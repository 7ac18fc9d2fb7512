"""Ctrl-C waits where what it would leave half done cannot be done again: Numba's modules and its declarations.

Interrupted in its first second, Numba could compile nothing more in this process: modules that were imported in part
import each other in a circle, and declarations that were taken from a registry are never offered again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGINT is held back meanwhile, and raised afterwards. In other threads than the main one there is none."""
    before = signal.getsignal(signal.SIGINT)
    elsewhere = threading.current_thread() is not threading.main_thread()
    if elsewhere or before is None:  # a handler that is not Python's
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)
