"""A power of two for each head that its matrix is multiplied with, so that products with long rows do not overflow.

Of two kinds of matrix. A *state* has z, the sums of phi(k), as its last column: z comes to 2^SUMS, and so phi(q).z is
within float32 for queries of any length; or lower, so that S comes to 2^VALUES at most. Numerators and denominators
then have the same factor. *Keys*, which are slots that meet queries in scores, come to 1. ``scales`` has the power of
each head and, behind it, its inverse, by which whatever follows undoes it: both are exact.

finding: 0: the powers are there, and another matrix is multiplied with them: a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.powers import emit_inverse, emit_power, emit_scale
from flurka_numba.targets.simt.heads import emit_head_place, emit_largest_of_block, head_entry, head_rows_loop
from flurka_numba.targets.simt.rows import columns_loop, emit_scratch, four, place_of
from flurka_numba.targets.simt.text import emit_four, result_parameters
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.targets.gpu.parts import KernelWriter

SUMS = -16  # queries of 2^100, 1e30, then meet 256 features far from overflow
VALUES = 20  # and their products with S are below 2^128
LARGEST = 3.4028234663852886e38
SCALE_BYTES = 8  # of a head's power and its inverse


@dataclass(frozen=True, slots=True)
class HeadScaleTraits:
    """state: what the matrix x is; else keys. y, the result, may be x."""

    state: bool

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_scale_{'state' if self.state else 'keys'}_simt"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return head_entry("head_scale", (*result_parameters("x", "y"), ("scales", "l")), ("rows", "columns", "finding"))

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, f"{'States' if self.state else 'Keys'} times a power of two for each head.")
        with out.suite():
            emit_head_place(out)
            out.line(f"own = scales + u64({SCALE_BYTES}) * u64(pair)")
            out.line("factor = f32(1.0)")
            with out.block("if finding == u32(0)"):
                out.line("factor = ptx.load_state(own)")
            with out.block("if finding != u32(0)"):
                self._emit_find(out)
                out.line("writes = u32(1) if thread == u32(0) else u32(0)")
                out.line("ptx.store_real(own, factor, writes)")
                out.line("ptx.store_real(own + u64(4), inverse, writes)")
            with head_rows_loop(out, ["x", "y"], "rows"), columns_loop(out, "columns"):
                emit_scratch(out, "x", "x")
                products = [f"{x} * factor" for x in four("x")]
                emit_four(out, "float32", place_of("y", "float32"), products, "u32(there & here)")
        return out.text()

    def _emit_find(self, out: KernelWriter) -> None:
        """``factor`` and ``inverse``. What is infinite in S has no part in it; in z it makes results NaN, not 0."""
        out.line("top, top_sum = f32(0.0), f32(0.0)")
        with head_rows_loop(out, ["x"], "rows"), columns_loop(out, "columns"):
            emit_scratch(out, "x", "x", "columns")
            for i in range(QUAD):
                out.line(f"size = abs(x_{i})")
                if self.state:
                    out.line(f"is_sum = u32(1) if u32(column + u32({i + 1})) == columns else u32(0)")
                    out.line("top_sum = ptx.maximum(top_sum, ptx.select_real(size, f32(0.0), is_sum))")
                    out.line("size = ptx.select_real(f32(0.0), size, is_sum)")
                out.line(f"size = ptx.select_real(f32(0.0), size, u32(1) if size > f32({LARGEST!r}) else u32(0))")
                out.line("top = ptx.maximum(top, size)")
        emit_largest_of_block(out, ["top", "top_sum"] if self.state else ["top"])
        with out.part("find_power", "The power of two that does for what was found, and its inverse."):
            emit_scale(out, "factor", "top", VALUES if self.state else 0)
            if self.state:
                emit_scale(out, "of_sum", "top_sum", SUMS)
                out.line("factor_bits = factor_bits if factor_bits < of_sum_bits else of_sum_bits")
                emit_power(out, "factor")
            emit_inverse(out, "inverse", "factor")
            if self.state:
                out.line(f"beyond = u32(1) if top_sum > f32({LARGEST!r}) else u32(0)")
                out.line("factor = ptx.select_real(f32(np.nan), factor, beyond)")
