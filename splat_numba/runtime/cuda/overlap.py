"""Whether two strided arrays share an element, from addresses alone: NumPy's test wants arrays that may be read."""

from __future__ import annotations

from collections.abc import Sequence

LARGEST_WORK = 10_000


def share_elements(
    a: int, a_shape: Sequence[int], a_strides: Sequence[int], b: int, b_shape: Sequence[int], b_strides: Sequence[int]
) -> bool:
    """Whether some element of the array at address a is one of b's. Elements are of one size, and aligned to it.

    Exact unless that takes too long; then True if their ranges of addresses meet.
    """
    if 0 in a_shape or 0 in b_shape:
        return False
    # Shared where sum of stride * place over both arrays' axes, b's negated, is b - a: axes of one stride are one.
    ranges: dict[int, tuple[int, int]] = {}
    for sign, shape, strides in ((1, a_shape, a_strides), (-1, b_shape, b_strides)):
        for size, stride in zip(shape, strides, strict=True):
            if size > 1 and stride:
                low, high = ranges.get(abs(stride), (0, 0))
                forward = (stride > 0) == (sign > 0)
                ranges[abs(stride)] = (low, high + size - 1) if forward else (low - size + 1, high)
    steps = sorted(ranges, reverse=True)
    reach = [(0, 0)]  # of the last axes: the least and the largest sum
    for step in reversed(steps):
        low, high = ranges[step]
        reach.append((reach[-1][0] + step * low, reach[-1][1] + step * high))
    reach.reverse()
    work = LARGEST_WORK
    pending = [(0, b - a)]
    while pending:
        work -= 1
        if work < 0:
            return True
        axis, rest = pending.pop()
        low_sum, high_sum = reach[axis]
        if not low_sum <= rest <= high_sum:
            continue
        if axis == len(steps):
            return True
        step, (low, high) = steps[axis], ranges[steps[axis]]
        below, above = reach[axis + 1]
        first, last = max(low, -((above - rest) // step)), min(high, (rest - below) // step)
        if last - first > work:
            return True
        pending += [(axis + 1, rest - step * place) for place in range(first, last + 1)]
    return False
