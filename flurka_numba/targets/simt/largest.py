"""The largest number of each head's rows within its key length, which shifts the exponents of favor's slots.

A block a head. adding: what is in ``tops`` takes part, so that rows may come in several launches.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.heads import emit_head_place, emit_largest_of_block, head_entry, head_rows_loop
from flurka_numba.targets.simt.rows import columns_loop, emit_scratch
from flurka_numba.targets.simt.text import emit_length_here, result_parameters
from splat_numba.gen.language.entry import Entry


@dataclass(frozen=True, slots=True)
class LargestTraits:
    """Of float32 numbers."""

    @property
    def name(self) -> str:
        """Of the text."""
        return "flurka_largest_simt"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        pointers = (*result_parameters("u"), ("tops", "l"), ("kv_lengths", "l"))
        return head_entry("largest", pointers, ("rows", "columns", "limit_first", "adding"))

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, "The largest number of every head.")
        with out.suite():
            emit_head_place(out)
            out.line("end = rows")
            with out.block("if kv_lengths != u64(0)"):
                emit_length_here(out, "entry")
                out.line("end = u32(min(rows, length))")
            out.line("top = f32(-np.inf)")
            with head_rows_loop(out, ["u"], "end"), columns_loop(out, "columns"):
                emit_scratch(out, "u", "x")
                for i in range(QUAD):
                    when = f"u32(1) if u32(column + u32({i})) < columns else u32(0)"
                    out.line(f"top = ptx.maximum(top, ptx.select_real(x_{i}, f32(-np.inf), {when}))")
            emit_largest_of_block(out, ["top"])
            with out.block("if adding != u32(0)"):
                out.line("top = ptx.maximum(top, ptx.load_state(tops + u64(4) * u64(pair)))")
            out.line("ptx.store_real(tops + u64(4) * u64(pair), top, u32(1) if thread == u32(0) else u32(0))")
        return out.text()
