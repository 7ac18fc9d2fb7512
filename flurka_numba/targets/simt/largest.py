"""The largest number of each head's rows within its key length, which shifts the exponents of favor's slots.

A block a head. adding: what is in ``tops`` takes part, so that rows may come in several launches.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu_text import emit_shared_start, start_text
from flurka_numba.targets.simt.rows import columns_loop, emit_largest, emit_scratch
from flurka_numba.targets.simt.text import SHARED_ALIGNMENT, emit_length, result_parameters
from splat_numba.gen.entry import Entry

ENTRY = "largest"
THREADS = 256
COUNTS = ("heads", "rows", "columns", "limit_first", "adding")


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
        parameters = (*result_parameters("u"), ("tops", "l"), ("kv_lengths", "l"), *((name, "r") for name in COUNTS))
        return Entry(ENTRY, parameters, THREADS, 4, 16 * (THREADS // 32) + SHARED_ALIGNMENT)

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, "The largest number of every head.")
        with out.suite():
            emit_shared_start(out, "leaders", SHARED_ALIGNMENT)
            out.lines(
                """
                thread = ptx.thread_index()
                lane = u32(thread & u32(31))
                warp = u32(thread >> u32(5))
                pair = ptx.block_index()
                entry = u32(pair // heads)
                head = u32(pair - entry * heads)
                end = rows
                """
            )
            with out.block("if kv_lengths != u64(0)"):
                emit_length(out, "entry")
                out.line("end = u32(min(rows, length))")
            out.line("top = f32(-np.inf)")
            with out.block(f"for first_row in range(u32(0), end, u32({THREADS // 32}))"):
                out.line("row = u32(u32(first_row) + warp)")
                out.line("row = row if row < end else u32(first_row)  # once more, which changes nothing")
                out.line("u_at = u + u64(entry) * u_batch + u64(head) * u_head + u64(row) * u_row")
                with columns_loop(out, "columns"):
                    emit_scratch(out, "u", "x")
                    for i in range(4):
                        when = f"u32(1) if u32(column + u32({i})) < columns else u32(0)"
                        out.line(f"top = ptx.maximum(top, ptx.select_real(x_{i}, f32(-np.inf), {when}))")
            emit_largest(out, "top")
            out.line("leader = u32(1) if lane == u32(0) else u32(0)")
            out.line("ptx.store_shared_reals4(leaders + u32(16) * warp, top, top, top, top, leader)")
            out.line("ptx.block_barrier()")
            with out.block(f"for other in range({THREADS // 32})"):
                out.line("a, b, c, d = ptx.load_shared_reals4(leaders + u32(16) * u32(other))")
                out.line("top = ptx.maximum(top, a)")
            with out.block("if adding != u32(0)"):
                out.line("top = ptx.maximum(top, ptx.load_state(tops + u64(4) * u64(pair)))")
            out.line("ptx.store_real(tops + u64(4) * u64(pair), top, u32(1) if thread == u32(0) else u32(0))")
        return out.text()
