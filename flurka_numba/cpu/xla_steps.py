"""What `targets.cpu.host` does in NumPy between launches, as compiled functions over (batch entry, head).

Results have the bits that NumPy's have; of a NaN the payload may differ. Powers of two are exact in any type.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from splat_numba.runtime.native import native


@native
def transposed(first: int, last: int, source: Any, target: Any) -> int:
    """Rows for columns."""
    for item in range(first, last):
        batch, head = item // target.shape[1], item % target.shape[1]
        for row in range(target.shape[2]):
            for column in range(target.shape[3]):
                target[batch, head, row, column] = source[batch, head, column, row]
    return 0


@native
def largest_of(first: int, last: int, splits: Any, target: Any) -> int:
    """Over splits; NaN where one is."""
    for item in range(first, last):
        batch, head = item // target.shape[1], item % target.shape[1]
        found = splits[batch, head, 0]
        for split in range(1, splits.shape[2]):
            one = splits[batch, head, split]
            if one > found or np.isnan(one):
                found = one
        target[batch, head] = found
    return 0


@native
def clear_without_keys(first: int, last: int, target: Any, lengths: Any) -> int:
    """Zeros where a batch entry has no keys."""
    for item in range(first, last):
        batch, head = item // target.shape[1], item % target.shape[1]
        if lengths[batch] == 0:
            target[batch, head, :, :] = 0
    return 0


@native
def scaled_by_head(first: int, last: int, source: Any, scales: Any, target: Any) -> int:
    """Times the head's number."""
    for item in range(first, last):
        batch, head = item // target.shape[1], item % target.shape[1]
        for row in range(target.shape[2]):
            for column in range(target.shape[3]):
                target[batch, head, row, column] = source[batch, head, row, column] * scales[batch, head]
    return 0


@native
def scaled(first: int, last: int, source: Any, target: Any, scale: Any) -> int:
    """Times a number."""
    for item in range(first, last):
        batch, head = item // target.shape[1], item % target.shape[1]
        for row in range(target.shape[2]):
            for column in range(target.shape[3]):
                target[batch, head, row, column] = source[batch, head, row, column] * scale
    return 0


@native
def add(first: int, last: int, target: Any, more: Any) -> int:
    """target += more, rows first .. last - 1 of (rows, width)."""
    for row in range(first, last):
        for column in range(target.shape[1]):
            target[row, column] += more[row, column]
    return 0


@native
def scaled_state(
    first: int, last: int, state: Any, sums: Any, new_state: Any, new_sums: Any, scales: Any, most: int, goal: int
) -> int:
    """State and sums times a power of two that brings the largest of the sums to 2^goal, and that."""
    for item in range(first, last):
        batch, head = item // scales.shape[1], item % scales.shape[1]
        largest = _largest(sums, batch, head)
        scales[batch, head] = math.ldexp(1.0, goal - _exponent(largest, -most, most))
        if np.isinf(largest):
            scales[batch, head] = np.nan
        _times(state, scales[batch, head], new_state, batch, head)
        _times(sums, scales[batch, head], new_sums, batch, head)
    return 0


@native
def random_weights(first: int, last: int, omega: Any, w: Any, w_t: Any, factor: Any) -> int:
    """w and w_t of the rows of omega times a factor; one item."""
    for _ in range(first, last):
        w_t[:, :, :, :] = 0
        for row in range(omega.shape[0]):
            for column in range(omega.shape[1]):
                w_t[0, 0, row, column] = omega[row, column] * factor
        _turned(w_t, w, 0, 0, omega.shape[0])
    return 0


@native
def slot_weights(
    first: int, last: int, slots: Any, w: Any, w_t: Any, scales: Any, scale: Any, size: float, sign: float,
    largest: Any, least: int, most: int,
) -> int:  # fmt: skip
    """Low-rank attention's w, w_t and scales, from its slots. scale: of the scores, of the slots' type; size, sign: it
    in two; largest: finite number of that type; least, most: exponents that are met.
    """
    for item in range(first, last):
        batch, head = item // scales.shape[1], item % scales.shape[1]
        exponent = _exponent(_largest(slots, batch, head), least, most)
        scales[batch, head] = math.ldexp(sign, -exponent)  # for a moment: in the type of the slots
        w_t[batch, head, :, :] = 0
        for row in range(slots.shape[2]):
            for column in range(slots.shape[3]):
                w_t[batch, head, row, column] = slots[batch, head, row, column] * scales[batch, head]
        _turned(w_t, w, batch, head, slots.shape[2])
        for row in range(slots.shape[2]):
            for column in range(slots.shape[3]):
                steep = slots[batch, head, row, column] * scale
                if steep > largest:
                    steep = largest
                elif steep < -largest:
                    steep = -largest
                w_t[batch, head, row, column] = steep
        stretch = math.ldexp(size, exponent)
        scales[batch, head] = min(largest, stretch)
    return 0


@native
def _largest(array: Any, batch: int, head: int) -> Any:
    """The largest magnitude; NaN where one is."""
    found = abs(array[batch, head, :0, :0].sum())  # 0 of the array's type
    for row in range(array.shape[2]):
        for column in range(array.shape[3]):
            one = abs(array[batch, head, row, column])
            if one > found or np.isnan(one):
                found = one
    return found


@native
def _exponent(number: Any, least: int, most: int) -> int:
    """Of the power of two above a number, within bounds; 0 of what is not finite, as C's frexp has it."""
    exponent = 0
    if np.isfinite(number):
        exponent = math.frexp(number)[1]
    return min(max(exponent, least), most)


@native
def _times(source: Any, factor: Any, target: Any, batch: int, head: int) -> None:
    for row in range(target.shape[2]):
        for column in range(target.shape[3]):
            target[batch, head, row, column] = source[batch, head, row, column] * factor


@native
def _turned(w_t: Any, w: Any, batch: int, head: int, kept: int) -> None:
    """w from w_t: its first column repeated beyond the kept ones."""
    for row in range(w.shape[2]):
        for column in range(w.shape[3]):
            w[batch, head, row, column] = w_t[batch, head, column if column < kept else 0, row]
