"""A chunk of packed values of 16 bits of which a row has some: stored by words, and one number at each of its ends."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function

NUMBERS = 8  # of a chunk


def emit_store_ends(out: SourceWriter) -> None:
    """``store_ends(row_at, a, b, c, d, place, count, when)``. row_at: of the row's first value; place: of the chunk's
    first one in the row, which may be before it; the chunk begins with one of memory's.
    """
    text = "A chunk's words of which the row has both numbers; of those at its first and last place, one."
    with device_function(out, "store_ends", ("row_at", *"abcd", "place", "count", "when"), text):
        for y, word in enumerate("abcd"):
            here = f"u32(place + u32({2 * y}))"
            out.line(f"kept = when if ({here} < count) and (u32({here} + u32(1)) < count) else u32(0)")
            out.line(f"ptx.store_word(row_at + u64(2) * u64({here}), {word}, kept)")
        out.lines(
            f"""
            before, left = u32(u32(0) - place), u32(count - place)
            odd = when if (before < u32({NUMBERS})) and (u32(before & u32(1)) != u32(0)) else u32(0)
            odd = odd if count > u32(0) else u32(0)
            ptx.store_half(row_at, u32(word_of(a, b, c, d, before) >> u32(16)), odd)
            odd = when if (left < u32({NUMBERS})) and (u32(left & u32(1)) != u32(0)) else u32(0)
            odd = odd if count > u32(0) else u32(0)
            ptx.store_half(row_at + u64(2) * u64(u32(count - u32(1))), word_of(a, b, c, d, left), odd)
            """
        )
    with device_function(out, "word_of", (*"abcd", "number"), "The word that a number of a chunk is in."):
        out.lines(
            """
            low, high = ptx.select(b, a, number & u32(2)), ptx.select(d, c, number & u32(2))
            return ptx.select(high, low, number & u32(4))
            """
        )
