"""The arithmetic of a text by its dtype: float32 has instructions, of float64 some are made of others here.

Words of float64 pass through shared memory and between lanes as pairs of 32 bits.
"""

from __future__ import annotations

import math

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function
from splat_numba.gen.targets.simt.shape import Numbers

ROUNDER = 1.5 * 2.0**52  # added to a number, it leaves the nearest whole one in the low bits
TERMS = 13  # of exp2's series: the next is 4e-18 at 1/2


def emit_arithmetic(out: SourceWriter, numbers: Numbers) -> None:
    """Names that the rest of a text uses: real, exp2, log2, reciprocal, maximum, from_lane, read_chunk,
    write_number.
    """
    out.line()
    out.lines(
        f"""
        real, f32, u32, u64 = np.{numbers.computed}, np.float32, np.uint32, np.uint64
        NONE_KEPT, ZERO = real(-np.inf), real(0.0)
        {DEVICE}
        """
    )
    if numbers.computed == "float64":
        _emit_doubles(out)
        return
    out.lines(
        """
        exp2, log2, reciprocal, maximum = ptx.exp2, ptx.log2, ptx.reciprocal, ptx.maximum
        from_lane, read_chunk = ptx.shuffle_xor, ptx.load_shared_reals4
        """
    )
    with device_function(out, "write_number", ("place", "x"), "A number into shared memory."):
        out.line("ptx.store_shared_word(place, ptx.real_bits(x), u32(1))")


def _emit_doubles(out: SourceWriter) -> None:
    """What float64 has no instructions for."""
    out.line("joined, words_of = ptx.join_double, ptx.split_double")
    with device_function(out, "double_of", ("bits",), "The float64 of these bits."):
        out.line("return joined(u32(bits & u64(4294967295)), u32(bits >> u64(32)))")
    _emit_exp2(out)
    _emit_log2(out)
    with device_function(out, "reciprocal", ("x",), "1 / x, from 23 bits of it in two steps of Newton's."):
        out.lines(
            """
            y = real(ptx.reciprocal(f32(x)))
            y = y * (real(2.0) - x * y)
            return y * (real(2.0) - x * y)
            """
        )
    with device_function(out, "maximum", ("a", "b"), "The larger one; a number rather than NaN."):
        out.line("return a if (a > b) or (b != b) else b")
    with device_function(out, "from_lane", ("x", "apart"), "x of the lane whose number differs by these bits."):
        out.lines(
            """
            low, high = words_of(x)
            return joined(ptx.shuffle_xor_word(low, apart), ptx.shuffle_xor_word(high, apart))
            """
        )
    with device_function(out, "read_chunk", ("place",), "Two numbers of shared memory."):
        out.lines(
            """
            a, b, c, d = ptx.load_shared_words4(place)
            return joined(a, b), joined(c, d)
            """
        )
    with device_function(out, "write_number", ("place", "x"), "A number into shared memory."):
        out.lines(
            """
            low, high = words_of(x)
            ptx.store_shared_word(place, low, u32(1))
            ptx.store_shared_word(place + u32(4), high, u32(1))
            """
        )


def _emit_exp2(out: SourceWriter) -> None:
    """2**x = 2**whole * 2**part with |part| <= 1/2, whose series is good to the last bit."""
    terms = [math.log(2) ** k / math.factorial(k) for k in range(TERMS + 1)]
    with device_function(out, "exp2", ("x",), "2**x for x < 1024; subnormal results are 0."):
        out.lines(
            f"""
            shifted = x + real({ROUNDER})
            part = x - (shifted - real({ROUNDER}))
            whole, _ = words_of(shifted)
            power = joined(u32(0), u32(u32(whole + u32(1023)) & u32(2047)) << u32(20))
            y = real({terms[-1]!r})
            """
        )
        for one in reversed(terms[:-1]):
            out.line(f"y = y * part + real({one!r})")
        out.line("return ZERO if x < real(-1022.0) else y * power")


def _emit_log2(out: SourceWriter) -> None:
    """log2(x) = y + log2(x * 2**-y), where y is good to 2**-22: three terms of the logarithm's series."""
    with device_function(out, "log2", ("x",), "The logarithm to base 2 of what float32 can hold."):
        out.lines(
            f"""
            y = real(ptx.log2(f32(x)))
            rest = x * exp2(-y) - real(1.0)
            series = rest * (real(1.0) - rest * (real(0.5) - rest * real({1 / 3!r})))
            return y + series * real({1 / math.log(2)!r}) if y > NONE_KEPT else y
            """
        )
