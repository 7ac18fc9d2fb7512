"""How much memory there is, and the refusal of sizes that need more, before anything is made."""

from __future__ import annotations

import os
from pathlib import Path

from splat_numba.cli.options import CommandError
from splat_numba.plain import memory_size


def available_bytes() -> int | None:
    """Memory that a new array may take: what is free, and not more than this process's limit; None if unknown."""
    found = [_free(), _limit()]
    return min((size for size in found if size is not None), default=None)


def _free() -> int | None:
    """What the system has for new programs without swapping; all of its memory where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _limit() -> int | None:
    """What `ulimit -v` allows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def check_memory(needed: int, sizes: str, smaller: str) -> None:
    """Raise CommandError where ``needed`` bytes are more than there are. sizes: what asks for them; smaller: what to
    give less of.
    """
    there = available_bytes()
    if there is not None and needed > there:
        raise CommandError(
            f"{sizes} needs about {memory_size(needed)} of memory, of which {memory_size(there)} are free. "
            f"Give a smaller {smaller}."
        )
