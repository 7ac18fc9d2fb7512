"""Vectorised primitives on integer arrays under the run table: expansion, event sweeps, bounded chunks."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from splat_numba.memory import check_memory

Ints = NDArray[np.int64]

# Where elements must be written out (dense masks, CSR, lattices that no run describes), at most about this many
# are held at a time, a single longer row excepted: 4 million of them take 32 MiB per int64 array.
ELEMENT_BUDGET = 1 << 22
LISTED_BYTES = 32  # an element, twice in expand(), and with its owner in what asked for it


def expand(start: Ints, step: Ints, count: Ints) -> Ints:
    """Every element start + step * t, 0 <= t < count, run after run. All counts must be >= 1.

    Raises FormatError for more than the machine's memory holds.
    """
    if start.size == 0:
        return np.zeros(0, np.int64)
    ends = np.cumsum(count)
    needed = LISTED_BYTES * int(ends[-1])
    check_memory(f"mask with {ends[-1]:,} places to be listed one by one", needed, "Use shorter sequences.")
    elements = np.repeat(step, count)  # differences first, then one cumulative sum: half the memory of the direct form
    last = start + step * (count - 1)
    heads = ends[:-1]
    elements[0] = start[0]
    elements[heads] = start[1:] - last[:-1]
    np.cumsum(elements, out=elements)
    return elements


def exclusive_sum(count: Ints) -> Ints:
    """Sums of all earlier entries, with the total at the end: (n,) -> (n + 1,) int64."""
    total = np.zeros(count.size + 1, np.int64)
    np.cumsum(count, out=total[1:])
    return total


def distinct(values: Ints) -> Ints:
    """Every value once, ascending: np.unique, which imports numpy.ma at its first call (7 ms of a warm start)."""
    ordered = np.sort(values, kind="stable")
    fresh = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    return ordered[fresh]


def order_of(major: Ints, minor: Ints) -> Ints:
    """The stable permutation that sorts non-negative (major, minor) pairs."""
    if major.size == 0:
        return np.zeros(0, np.int64)
    width = int(minor.max()) + 1
    if (int(major.max()) + 1) * width >= 1 << 63:
        return np.lexsort((minor, major))
    # Timsort: inputs are mostly a few sorted sequences one after the other, which it merges in linear time.
    return np.argsort(major * width + minor, kind="stable")


def sweep(major: Ints, lo: Ints, hi: Ints, weight: NDArray[np.int8]) -> tuple[Ints, Ints, Ints, NDArray[np.int8]]:
    """Sum weighted intervals [lo, hi) within each `major`; give the pieces on which the sum is constant and not 0.

    Returns (major, lo, hi, value), sorted by (major, lo); neighbouring pieces of equal value may touch.
    Sums must stay within int8.
    """
    position = np.stack((lo, hi), axis=1).ravel()
    owner = np.repeat(major, 2)
    order = order_of(owner, position)
    position, owner = position[order], owner[order]
    value = np.cumsum(np.stack((weight, -weight), axis=1).ravel()[order], dtype=np.int8)
    # Weights of one major cancel, so a value that is not zero never reaches into the next major.
    kept = np.flatnonzero((value[:-1] != 0) & (position[1:] > position[:-1]))
    return owner[kept], position[kept], position[kept + 1], value[kept]


def chunks(weight: Ints, budget: int = ELEMENT_BUDGET) -> Iterator[tuple[int, int]]:
    """Cut range(len(weight)) into consecutive [lo, hi) of total weight <= budget, or of one entry that weighs more."""
    total = exclusive_sum(weight)
    lo = 0
    while lo < weight.size:
        hi = max(lo + 1, int(np.searchsorted(total, total[lo] + budget, side="right")) - 1)
        yield lo, hi
        lo = hi
