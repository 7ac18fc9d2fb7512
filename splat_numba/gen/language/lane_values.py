"""What the instructions on numbers mean, on NumPy: of each operand a vector of 32 lanes, or a number where all agree.

Bits are those of the hardware but for exp2, log2 and reciprocal: there it approximates, and these round what is exact.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.language.lane_layout import WARP

Words = NDArray[np.uint32]
Reals = NDArray[np.float32]

LANES: Final = WARP
LANE: Final = np.arange(LANES)
NAN: Final = np.uint32(0x7FFFFFFF).view(np.float32)  # the one that instructions give
SMALLEST_NORMAL: Final = np.finfo(np.float32).smallest_normal
TF32_BITS: Final = np.uint32(0xFFFFE000)  # of a float32, that TF32 has too: sign, exponent, 10 of the fraction
HALF_OF_TF32: Final = np.uint32(0x1000)  # of its last bit
LARGEST_TF32: Final = np.uint32(0x7F7FE000).view(np.float32)


def lanes(value: Any, dtype: Any) -> NDArray[Any]:
    """A number for each lane."""
    found = np.asarray(value, dtype)
    return found if found.ndim else np.full(LANES, found)


def exp2(x: Any) -> Reals:
    """2**x; subnormal results are 0 (ftz)."""
    with np.errstate(all="ignore"):
        found = np.exp2(np.asarray(x, np.float32).astype(np.float64)).astype(np.float32)
    return canonical(np.where(found < SMALLEST_NORMAL, np.float32(0), found))


def log2(x: Any) -> Reals:
    """The logarithm to base 2."""
    with np.errstate(all="ignore"):
        return canonical(np.log2(np.asarray(x, np.float32).astype(np.float64)).astype(np.float32))


def reciprocal(x: Any) -> Reals:
    """1 / x."""
    with np.errstate(all="ignore"):
        return canonical(np.float32(1) / np.asarray(x, np.float32))


def square_root(x: Any) -> Reals:
    """The square root; of subnormal numbers 0 (ftz)."""
    reals = np.asarray(x, np.float32)
    with np.errstate(all="ignore"):
        return canonical(np.sqrt(np.where(np.abs(reals) < SMALLEST_NORMAL, np.copysign(np.float32(0), reals), reals)))


def select_real(first: Any, second: Any, when: Any) -> Reals:
    """The first where the third is not 0, else the second."""
    found: Reals = np.where(np.asarray(when) != 0, np.asarray(first, np.float32), np.asarray(second, np.float32))
    return found


def sine_cosine(x: Any) -> tuple[Reals, Reals]:
    """Sine and cosine of an angle."""
    with np.errstate(all="ignore"):
        angle = np.asarray(x, np.float32).astype(np.float64)
        return canonical(np.sin(angle).astype(np.float32)), canonical(np.cos(angle).astype(np.float32))


def maximum(first: Any, second: Any) -> Reals:
    """The larger one; a number rather than NaN, and 0 rather than -0."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    with np.errstate(invalid="ignore"):
        return canonical(np.where((a > b) | np.isnan(b) | ((a == b) & ~np.signbit(a)), a, b))


def canonical(reals: Any) -> Reals:
    """The numbers, every NaN the one that instructions give."""
    found: Reals = np.where(np.isnan(reals), NAN, reals)
    return found


def widen(halves: NDArray[np.uint16], dtype: str) -> Reals:
    """16-bit numbers as float32; of bfloat16 the bits of a NaN too."""
    if dtype == "float16":
        return canonical(halves.view(np.float16).astype(np.float32))
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrowed(values: Any, dtype: str) -> Words:
    """float32 numbers rounded to 16 bits, to nearest even, as uint32."""
    reals = lanes(values, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "float16":
            rounded = reals.astype(np.float16).view(np.uint16).astype(np.uint32)
        else:
            word = reals.view(np.uint32)
            rounded = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    found: Words = np.where(np.isnan(reals), np.uint32(0x7FFF), rounded)
    return found


def pack_bfloat16(low: Any, high: Any) -> Words:
    """Two numbers in a word."""
    return narrowed(low, "bfloat16") | (narrowed(high, "bfloat16") << np.uint32(16))


def pack_float16(low: Any, high: Any) -> Words:
    """Two numbers in a word."""
    return narrowed(low, "float16") | (narrowed(high, "float16") << np.uint32(16))


def halves_of(word: Any) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The low and the high 16 bits of each lane's word."""
    words = lanes(word, np.uint32)
    return (words & np.uint32(0xFFFF)).astype(np.uint16), (words >> np.uint32(16)).astype(np.uint16)


def unpack_bfloat16(word: Any) -> tuple[Reals, Reals]:
    """The two numbers in a word."""
    low, high = halves_of(word)
    return widen(low, "bfloat16"), widen(high, "bfloat16")


def unpack_float16(word: Any) -> tuple[Reals, Reals]:
    """The two numbers in a word."""
    low, high = halves_of(word)
    return widen(low, "float16"), widen(high, "float16")


def real_bits(x: Any) -> Words:
    """The bits of a float32."""
    return lanes(x, np.float32).view(np.uint32)


def _real(words: Any) -> Reals:
    found: Reals = lanes(words, np.uint32).view(np.float32)
    return found


def tf32(word: Any) -> Words:
    """A float32's bits as products take them: what TF32 has no place for is cut off."""
    found: Words = lanes(word, np.uint32) & TF32_BITS
    return found


def round_tf32(word: Any) -> Words:
    """A float32's bits rounded to TF32's 10, to nearest, ties away from 0; beyond the largest it is infinite."""
    found = lanes(word, np.uint32)
    return np.where(np.isfinite(_real(found)), tf32(found + HALF_OF_TF32), tf32(found))


def split_rounded(word: Any) -> tuple[Words, Words]:
    """A float32 as the nearest finite number of TF32 and the rest, which is exact; infinite or NaN where it is."""
    big = _real(tf32(lanes(word, np.uint32) + HALF_OF_TF32))
    big = np.fmax(np.fmin(big, LARGEST_TF32), -LARGEST_TF32)
    with np.errstate(invalid="ignore"):
        return real_bits(big), real_bits(canonical(_real(word) - big))


def split_truncated(word: Any) -> tuple[Words, Words]:
    """A float32 as the number of TF32 towards 0 and the rest, which is exact; NaN where it is not finite."""
    with np.errstate(invalid="ignore"):
        return tf32(word), real_bits(canonical(_real(word) - _real(tf32(word))))


def split_by_mask(word: Any, mask: Any) -> tuple[Words, Words]:
    """A float32 as what a mask leaves of its bits and the rest; NaN where that is not a number."""
    big = lanes(word, np.uint32) & lanes(mask, np.uint32)
    with np.errstate(invalid="ignore"):
        return big, real_bits(canonical(_real(word) - _real(big)))


def join_double(low: Any, high: Any) -> NDArray[np.float64]:
    """The float64 of two words."""
    bits = lanes(low, np.uint32).astype(np.uint64) | (lanes(high, np.uint32).astype(np.uint64) << np.uint64(32))
    return bits.view(np.float64)


def split_double(x: Any) -> tuple[Words, Words]:
    """The low and the high word of a float64."""
    bits = lanes(x, np.float64).view(np.uint64)
    return (bits & np.uint64(0xFFFFFFFF)).astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32)


def select(first: Any, second: Any, when: Any) -> Words:
    """The first where ``when`` is not 0, else the second."""
    return np.where(np.asarray(when) != 0, np.asarray(first, np.uint32), np.asarray(second, np.uint32))


def shuffle_xor(value: Any, mask: Any) -> Reals:
    """The number of the lane whose own number differs by these bits."""
    found: Reals = lanes(value, np.float32)[LANE ^ (np.asarray(mask) & 31)]
    return found


def shuffle_xor_word(value: Any, mask: Any) -> Words:
    """The word of the lane whose own number differs by these bits."""
    found: Words = lanes(value, np.uint32)[LANE ^ (np.asarray(mask) & 31)]
    return found


def word_of_lane(value: Any, lane: Any) -> Any:
    """A lane's word for all of them."""
    return lanes(value, np.uint32)[np.asarray(lane) & (LANES - 1)]


def any_lane(value: Any) -> np.uint32:
    """1 if any lane's word is not 0."""
    return np.uint32(lanes(value, np.uint32).any())
