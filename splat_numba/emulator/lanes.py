"""Lanes one by one: the operands of those that a predicate chooses, and how a message names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import EmulationError
from splat_numba.gen.language.lane_values import lanes

SHOWN = 3  # values in a message


def chosen(when: Any, *operands: Any) -> Iterator[tuple[int, ...]]:
    """The operands, whole numbers, of each lane whose ``when`` is not 0."""
    columns = [lanes(one, np.uint64) for one in operands]
    for lane in np.flatnonzero(lanes(when, np.uint32)):
        yield tuple(int(column[lane]) for column in columns)


def uniform(value: Any, what: str) -> int:
    """The number that all lanes have. Raises EmulationError."""
    found = np.asarray(value)
    if found.ndim and (found != found[0]).any():
        raise EmulationError(f"{what} wanted equal in all lanes, got {listed(np.unique(found))}")
    return int(found[0] if found.ndim else found)


def named(numbers: Any, kind: str = "lane") -> str:
    """'lane 3' or 'lanes 0-5, 9', for increasing numbers."""
    found = [int(one) for one in numbers]
    firsts = [one for one in found if one - 1 not in found]
    lasts = [one for one in found if one + 1 not in found]
    ranges = [str(a) if a == b else f"{a}-{b}" for a, b in zip(firsts, lasts, strict=True)]
    return f"{kind}{'s' if len(found) > 1 else ''} {', '.join(ranges)}"


def who(bad: NDArray[np.bool_]) -> str:
    """The lanes where ``bad``; a number stands for all lanes."""
    return "every lane" if bad.ndim == 0 else named(np.flatnonzero(bad))


def listed(addresses: NDArray[Any]) -> str:
    """The first of them, in base 16."""
    flat = addresses.reshape(-1)
    more = f" and {flat.size - SHOWN} more" if flat.size > SHOWN else ""
    return ", ".join(f"{int(one):#x}" for one in flat[:SHOWN]) + more
