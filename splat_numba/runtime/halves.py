"""float16 and bfloat16 as bits: Numba has no 16-bit floats on CPUs, so kernels see uint16 and convert with integers.

Conversion to 16 bits rounds to nearest, ties to even, as NumPy and ml_dtypes do; NaN stays NaN and quiet.
"""

from __future__ import annotations

import numpy as np

from splat_numba.runtime.native import inlined


@inlined
def from_bfloat16(half: np.uint16) -> np.float32:
    """The float32 whose upper half is ``half``."""
    return np.uint32(np.uint32(half) << np.uint32(16)).view(np.float32)


@inlined
def to_bfloat16(value: np.float32) -> np.uint16:
    """Bits of the bfloat16 nearest to ``value``."""
    word = np.float32(value).view(np.uint32)
    rounded = np.uint32(word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1)))
    quiet = np.uint32(word | np.uint32(0x400000))
    return np.uint16((quiet if np.isnan(value) else rounded) >> np.uint32(16))


@inlined
def from_float16(half: np.uint16) -> np.float32:
    """The float32 equal to the float16 with bits ``half``: its fields shifted into place, and scaled by 2**112.

    The product makes subnormals exact; an exponent of 31 becomes float32's 255 (inf and NaN).
    """
    word = np.uint32(half)
    shifted = np.uint32((word & np.uint32(0x7FFF)) << np.uint32(13))
    scaled = np.float32(shifted.view(np.float32) * np.float32(2.0**112)).view(np.uint32)
    special = np.uint32(shifted | np.uint32(0x7F800000))
    magnitude = special if (word & np.uint32(0x7C00)) == np.uint32(0x7C00) else scaled
    return np.uint32(magnitude | ((word & np.uint32(0x8000)) << np.uint32(16))).view(np.float32)


@inlined
def to_float16(value: np.float32) -> np.uint16:
    """Bits of the float16 nearest to ``value``; beyond 65519.99 infinity."""
    word = np.float32(value).view(np.uint32)
    sign = np.uint32((word >> np.uint32(16)) & np.uint32(0x8000))
    magnitude = np.uint32(word & np.uint32(0x7FFFFFFF))
    # Subnormal results: adding 1/2 puts the last kept bit at float32's last bit, and the adder rounds.
    tiny = np.uint32(np.float32(magnitude.view(np.float32) + np.float32(0.5)).view(np.uint32) - np.uint32(0x3F000000))
    rebiased = np.uint32(magnitude - np.uint32(0x38000000))
    normal = np.uint32((rebiased + np.uint32(0xFFF) + ((rebiased >> np.uint32(13)) & np.uint32(1))) >> np.uint32(13))
    result = tiny if magnitude < np.uint32(0x38800000) else normal
    result = np.uint32(0x7C00) if magnitude >= np.uint32(0x477FF000) else result
    result = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else result
    return np.uint16(sign | result)
