"""Packed values of 16 bits, rounded once from what was computed: no instruction stores less than a word, and where an
odd number of pairs stands in a row, a word belongs to two of them.
"""

from __future__ import annotations

from splat_numba.gen.entry import Entry
from splat_numba.gen.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import emit_header
from splat_numba.gen.targets.simt.packed.traits import THREADS
from splat_numba.gen.writer import SourceWriter

ENTRY = "narrow"
NUMBERS = 4  # of a thread
PARAMETERS = (("source", "l"), ("result", "l"), ("numbers", "l"))


def narrowing_text(dtype: str, arch: str) -> EmittedText:
    """The text of the kernel that writes this dtype."""
    return EmittedText(
        f"packed_narrow_simt_{arch}_{dtype}", Entry(ENTRY, PARAMETERS, THREADS, 8, 0, arch=arch), render, (dtype,)
    )


def render(dtype: str) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out, quotes = SourceWriter(), '"' * 3
    out.lines(
        f"""
        {quotes}Float32 numbers rounded to {dtype}: four a thread. The word of an odd last one is written whole.{quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        u32, u64 = np.uint32, np.uint64
        """
    )
    emit_header(out, ENTRY, (tuple(name for name, _ in PARAMETERS),))
    with out.suite():
        out.lines(
            f"""
            first = u64({NUMBERS}) * (u64(ptx.block_index()) * u64({THREADS}) + u64(ptx.thread_index()))
            some = u32(1) if first < numbers else u32(0)
            more = u32(1) if first + u64(2) < numbers else u32(0)
            at = first if first < numbers else u64(0)
            x_0, x_1, x_2, x_3 = ptx.load_reals4(source + u64(4) * at)
            ptx.store_word(result + u64(2) * at, ptx.pack_{dtype}(x_0, x_1), some)
            ptx.store_word(result + u64(2) * at + u64(4), ptx.pack_{dtype}(x_2, x_3), more)
            """
        )
    return out.text()
