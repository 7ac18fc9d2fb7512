"""What NumPy does between the launches of a schedule (fills, rounding, sums), as compiled functions over ranges.

Results have the bits that NumPy's have; of a NaN the payload may differ. An item is a (batch entry, head) unless the
function says what else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from splat_numba.runtime.halves import to_bfloat16, to_float16
from splat_numba.runtime.native import inlined, native


@native
def attend_to_nothing(first: int, last: int, out: Any, lse: Any, heads: Any) -> int:
    """What rows that keep nothing have: out = 0 and lse = -inf."""
    for item in range(first, last):
        batch, head = item // heads.size, heads[item % heads.size]
        out[batch, head, :, :] = 0
        lse[batch, head, :] = -np.inf
    return 0


@native
def clear(first: int, last: int, target: Any, heads: Any) -> int:
    """Zeros for these heads."""
    for item in range(first, last):
        target[item // heads.size, heads[item % heads.size], :, :] = 0
    return 0


@native
def clear_rows(first: int, last: int, target: Any) -> int:
    """Zeros in rows first .. last - 1 of (rows, width)."""
    for row in range(first, last):
        target[row, :] = 0
    return 0


@native
def round_float16(first: int, last: int, staged: Any, out: Any, heads: Any) -> int:
    """float32 to the bits of float16, of these heads."""
    for item in range(first, last):
        batch, head = item // heads.size, heads[item % heads.size]
        for row in range(out.shape[2]):
            for column in range(out.shape[3]):
                out[batch, head, row, column] = to_float16(staged[batch, head, row, column])
    return 0


@native
def round_bfloat16(first: int, last: int, staged: Any, out: Any, heads: Any) -> int:
    """float32 to the bits of bfloat16, of these heads."""
    for item in range(first, last):
        batch, head = item // heads.size, heads[item % heads.size]
        for row in range(out.shape[2]):
            for column in range(out.shape[3]):
                out[batch, head, row, column] = to_bfloat16(staged[batch, head, row, column])
    return 0


@native
def finish_sums(first: int, last: int, sums: Any, target: Any) -> int:
    """A gradient from (shares, batch, heads, seq, padded dim), the shares added in their order."""
    for item in range(first, last):
        batch, head = item // target.shape[1], item % target.shape[1]
        for row in range(target.shape[2]):
            for column in range(target.shape[3]):
                target[batch, head, row, column] = _total(sums, batch, head, row, column)
    return 0


@native
def finish_float16(first: int, last: int, sums: Any, target: Any) -> int:
    """The same, rounded to the bits of float16."""
    for item in range(first, last):
        batch, head = item // target.shape[1], item % target.shape[1]
        for row in range(target.shape[2]):
            for column in range(target.shape[3]):
                target[batch, head, row, column] = to_float16(_total(sums, batch, head, row, column))
    return 0


@native
def finish_bfloat16(first: int, last: int, sums: Any, target: Any) -> int:
    """The same, rounded to the bits of bfloat16."""
    for item in range(first, last):
        batch, head = item // target.shape[1], item % target.shape[1]
        for row in range(target.shape[2]):
            for column in range(target.shape[3]):
                target[batch, head, row, column] = to_bfloat16(_total(sums, batch, head, row, column))
    return 0


@inlined
def _total(sums: Any, batch: int, head: int, row: int, column: int) -> Any:
    total = sums[0, batch, head, row, column]
    for share in range(1, sums.shape[0]):
        total += sums[share, batch, head, row, column]
    return total


@native
def widen_lengths(first: int, last: int, given: Any, lengths: Any, most: int) -> int:
    """Key lengths as kernels read them; fails where one is not from 0 to ``most``. An item is a batch entry."""
    for batch in range(first, last):
        if given[batch] < 0 or given[batch] > most:
            raise ValueError
        lengths[batch] = given[batch]
    return 0
