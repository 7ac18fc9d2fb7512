"""What schedules over arrays do in NumPy between launches, whatever CPU target makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.halves import narrow


def attend_to_nothing(out: NDArray[Any], lse: NDArray[Any], heads: NDArray[np.int64]) -> None:
    """Of these heads: what rows that keep nothing have."""
    out[:, heads] = 0
    lse[:, heads] = -np.inf


def round_staged(dtype: str, staged: NDArray[np.float32], out: NDArray[np.uint16], heads: NDArray[np.int64]) -> None:
    """Of these heads: a result that passes kept in float32, once it is whole."""
    out[:, heads] = narrow(staged[:, heads], dtype)


def clear(target: NDArray[Any], heads: NDArray[np.int64]) -> None:
    """Of these heads: zeros."""
    target[:, heads] = 0


def finish_sums(sums: NDArray[Any], dim: int, dtype: str, result: NDArray[Any]) -> None:
    """The gradient of keys or values from the sums of all shares, added in their order, rounded once. 16-bit types as
    bits; result: (batch, heads_kv, seq_kv, dim).
    """
    total = sums[0]
    for one in sums[1:]:
        total += one
    found = total[..., :dim]
    result[...] = narrow(found, dtype) if ITEMSIZE[dtype] == 2 else found
