"""Sizes that no memory holds are refused before anything of that size is begun: a system may kill the process."""

from __future__ import annotations

import os
from functools import lru_cache

from splat_numba.errors import FormatError, SplatError


@lru_cache(maxsize=1)
def installed() -> int | None:
    """Bytes of memory of this machine, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def check_memory(what: str, needed: int, advice: str, error: type[SplatError] = FormatError) -> None:
    """Raise the error if ``needed`` bytes are more than the machine has. ``what`` begins with the argument's name."""
    limit = installed()
    if limit is not None and needed > limit:
        raise error(f"{what} would need {needed / 2**30:.3g} GiB, and this machine has {limit / 2**30:.3g}. {advice}")
