"""One process makes a file, the others wait for it, but not for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from splat_numba.runtime.cache.place import warn_once

PATIENCE = 60.0  # seconds that one process waits for another: few kernels take ten


@contextmanager
def making(path: Path, patience: float | None = None) -> Iterator[None]:
    """Held by the one process that makes this file. Who has waited for another (a minute, or ``patience`` seconds) goes
    on beside it, after a warning; so does who cannot lock at all, such as in a folder that can only be read.
    """
    from filelock import FileLock, Timeout  # 10 ms to import, which a kernel from disk need not wait for

    seconds = PATIENCE if patience is None else patience
    lock = FileLock(path.with_suffix(".lock"), timeout=seconds)
    holder = path.with_suffix(".holder")
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # Timeout is an OSError, too
        if isinstance(error, Timeout):
            warn_once(
                f"cache entry {path} was waited for {seconds:.0f} s: {_named(holder)} holds {lock.lock_file}. "
                "It is made here, too. End that process if it hangs."
            )
        yield
        return
    try:
        with suppress(OSError):
            holder.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _named(holder: Path) -> str:
    try:
        return f"process {int(holder.read_text(encoding='ascii'))}"
    except (OSError, ValueError):
        return "another process"
