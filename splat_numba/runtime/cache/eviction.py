"""The folder on disk stays below a size: what was used longest ago goes first."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

KEPT = 0.8  # of the limit is what a removal leaves, so that not every new entry begins another one
ABANDONED = 3600.0  # seconds after which a temporary file is one of a process that was killed
# Of ours, also of older versions; __pycache__ is where Numba kept machine code for them. All else is left alone.
FOLDERS = ("numba-*", "numba-*/__pycache__")


def shrink(folder: Path, limit: int) -> None:
    """Remove what was used longest ago from all versions' folders until they are below the limit (bytes; 0: none), and
    what killed processes left. Other processes may read, write and remove at the same time: an entry that is gone is
    made anew.
    """
    files = files_of(folder.parent)
    now = time.time()
    for path, status in list(files.items()):
        if path.endswith(".tmp") and now - status.st_mtime > ABANDONED:
            remove(path)
            del files[path]
    total = sum(status.st_size for status in files.values())
    if limit == 0 or total <= limit:
        return
    for path, status in sorted(files.items(), key=lambda item: item[1].st_mtime):
        if total <= KEPT * limit:
            return
        if path.endswith(".lock") and now - status.st_mtime <= ABANDONED:  # somebody may hold it
            continue
        remove(path)
        total -= status.st_size


def files_of(base: Path) -> dict[str, os.stat_result]:
    """The files in the folders of all versions, and what is known of them."""
    found: dict[str, os.stat_result] = {}
    for folder in (one for pattern in FOLDERS for one in base.glob(pattern)):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False):
                        found[entry.path] = entry.stat(follow_symlinks=False)
    return found


def remove(path: str) -> bool:
    """Remove a file; whether it was there to be removed."""
    try:
        Path(path).unlink()
    except OSError:
        return False
    return True
