"""Shares of a product's depth added up in their order, which is the same at every run."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.product_results import emit_finished_four, emit_result_start
from flurka_numba.targets.simt.text import result_parameters
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.targets.gpu.parts import KernelWriter

ENTRY = "add_up"
THREADS = 128
COUNTS = ("heads", "rows", "columns", "quads", "pairs", "shares", "part_row", "limited", "limit_first")


@dataclass(frozen=True, slots=True)
class AddUpTraits:
    """result, part: their dtypes."""

    result: str
    part: str = "float32"

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_add_up_simt_{self.part}_{self.result}"

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
        out = start_text(self.entry, f"Shares of products of matrices in {self.part}, added up as {self.result}.")
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
                at = parts + u64(pair_row) * u64(part_row) + u64({ITEMSIZE[self.part]}) * u64(column)
                total = cuda.local.array({QUAD}, dtype=np.float32)
                for i in range({QUAD}):
                    total[i] = f32(0.0)
                """
            )
            with out.block("for share in range(shares)"):
                out.line("here = at + u64(share) * u64(pairs) * u64(rows) * u64(part_row)")
                self._emit_read(out)
                for i in range(QUAD):
                    out.line(f"total[{i}] += x_{i}")
            emit_result_start(out)
            out.line("from_result = result + u64(entry) * result_batch + u64(head) * result_head")
            out.line("from_addend = addend + u64(entry) * addend_batch + u64(head) * addend_head")
            emit_finished_four(out, self.result, [f"total[{j}]" for j in range(QUAD)])
        return out.text()

    def _emit_read(self, out: KernelWriter) -> None:
        """Four numbers of a share: padded rows have them."""
        if self.part == "float32":
            out.line("x_0, x_1, x_2, x_3 = ptx.load_reals4(here)")
            return
        for i in range(0, QUAD, 2):
            out.line(f"x_{i}, x_{i + 1} = ptx.unpack_{self.part}(ptx.load_pair(here + u64({2 * i})))")
