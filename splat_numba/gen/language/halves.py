"""16-bit numbers as bits, on NumPy arrays: widened exactly, and rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def widen(bits: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Numbers from the bits of a 16-bit type, float32; other arrays as they are."""
    if dtype == "float16":
        return bits.view(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits


def narrow(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint16]:
    """float32 numbers rounded to the bits of a 16-bit type, to nearest, ties to even."""
    if dtype == "float16":
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(np.float16).view(np.uint16)
    word = values.view(np.uint32)
    rounded = word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))
    quiet = word | np.uint32(0x400000)
    return (np.where(np.isnan(values), quiet, rounded) >> np.uint32(16)).astype(np.uint16)
