"""Shares of a product's depth added up in their order, which is the same at every run."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.product_results import emit_finished_four, emit_result_start
from flurka_numba.targets.simt.text import result_parameters
from splat_numba.gen.language.entry import Entry

ENTRY = "add_up"
THREADS = 128
COUNTS = ("heads", "rows", "columns", "quads", "pairs", "shares", "part_row", "limited", "limit_first")


@dataclass(frozen=True, slots=True)
class AddUpTraits:
    """result: its dtype."""

    result: str

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_add_up_simt_{self.result}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        parameters = (
            *result_parameters("result", "addend"), ("parts", "l"), ("kv_lengths", "l"),
            *((name, "r") for name in COUNTS), ("scale", "f"),
        )  # fmt: skip
        return Entry(ENTRY, parameters, THREADS, 8, 0)

    def render(self) -> str:
        """Python source of the kernel: four columns a thread. Pure and deterministic."""
        out = start_text(self.entry, f"Shares of products of matrices, added up as {self.result}.")
        with out.suite():
            out.lines(
                f"""
                number = u32(ptx.block_index() * u32({THREADS}) + ptx.thread_index())
                when = u32(1) if number < pairs * rows * quads else u32(0)
                number = number if when != u32(0) else u32(0)
                pair_row = u32(number // quads)
                column = u32((number - pair_row * quads) * u32({QUAD}))
                pair = u32(pair_row // rows)
                row = u32(pair_row - pair * rows)
                entry = u32(pair // heads)
                head = u32(pair - entry * heads)
                at = parts + u64(pair_row) * u64(part_row) + u64(4) * u64(column)
                total = cuda.local.array({QUAD}, dtype=np.float32)
                for i in range({QUAD}):
                    total[i] = f32(0.0)
                for share in range(shares):
                    x_0, x_1, x_2, x_3 = ptx.load_reals4(at + u64(share) * u64(pairs) * u64(rows) * u64(part_row))
                    total[0] += x_0
                    total[1] += x_1
                    total[2] += x_2
                    total[3] += x_3
                """
            )
            emit_result_start(out)
            out.line("from_result = result + u64(entry) * result_batch + u64(head) * result_head")
            out.line("from_addend = addend + u64(entry) * addend_batch + u64(head) * addend_head")
            emit_finished_four(out, self.result, [f"total[{j}]" for j in range(QUAD)])
        return out.text()
