"""What is in the cache folder: to be listed and removed by those whose it is."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from splat_numba.runtime.cache.eviction import ABANDONED, files_of, remove

CODE = ".code"
HELD = (".lock", ".holder", ".tmp")
OURS = (CODE, ".py", ".json", *HELD, ".nbi", ".nbc")  # the last two of older versions


@dataclass(frozen=True, slots=True)
class Kept:
    """A kernel's machine code on disk. used: seconds since it was, to the hour."""

    name: str
    path: Path
    size: int
    used: float


def kept(folder: Path) -> list[Kept]:
    """The kernels in a cache folder, what was used last first."""
    found, now = [], time.time()
    with os.scandir(folder) as entries:
        for one in entries:
            if one.name.endswith(CODE) and one.is_file(follow_symlinks=False):
                status = one.stat(follow_symlinks=False)
                name = one.name.removesuffix(CODE).rpartition("-")[0]
                found.append(Kept(name, Path(one.path), status.st_size, max(now - status.st_mtime, 0.0)))
    return sorted(found, key=lambda one: (one.used, one.name))


def clear(folder: Path) -> tuple[int, int]:
    """Remove kernels, their texts and measured choices from the folders of all versions beside this one; how many files
    that were, and their bytes. Locks that somebody may hold stay, and whatever is not ours. A kernel that is in use is
    not disturbed: it is in memory.
    """
    count = total = 0
    now = time.time()
    for path, status in files_of(folder.parent).items():
        held = path.endswith(HELD) and now - status.st_mtime <= ABANDONED
        if path.endswith(OURS) and not held and remove(path):
            count, total = count + 1, total + status.st_size
    return count, total
