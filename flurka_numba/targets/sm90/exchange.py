"""A product's results rounded, 16 bytes of a row in each lane.

The four lanes of a row have two adjacent columns each of every eight. Of four times eight columns each lane gets eight
adjacent ones, in two exchanges between neighbours.
"""

from __future__ import annotations

from splat_numba.gen.writer import SourceWriter


def emit_exchange_start(out: SourceWriter) -> None:
    """Which of its row's four lanes this one is."""
    out.line("odd = u32(lane & u32(1))")
    out.line("upper = u32((lane >> u32(1)) & u32(1))")


def emit_exchange(out: SourceWriter, dtype: str, at: str) -> str:
    """Four words: columns 8 t to 8 t + 7 of 32, for lane t of the row's four. at: where total has the first of them."""
    for j in range(4):
        out.line(f"w_{j} = ptx.pack_{dtype}(total[{at} + {4 * j}], total[{at} + {4 * j + 1}])")
    for name, low, high in (("a", "w_0", "w_1"), ("b", "w_2", "w_3")):
        out.lines(
            f"""
            kept = ptx.select({high}, {low}, odd)
            got = ptx.shuffle_xor_word(ptx.select({low}, {high}, odd), u32(1))
            {name}_0 = ptx.select(got, kept, odd)
            {name}_1 = ptx.select(kept, got, odd)
            """
        )
    for x in (0, 1):
        out.lines(
            f"""
            kept_{x} = ptx.select(b_{x}, a_{x}, upper)
            got_{x} = ptx.shuffle_xor_word(ptx.select(a_{x}, b_{x}, upper), u32(2))
            """
        )
    four = (("got_0", "kept_0"), ("got_1", "kept_1"), ("kept_0", "got_0"), ("kept_1", "got_1"))
    return ", ".join(f"ptx.select({upper}, {lower}, upper)" for upper, lower in four)
