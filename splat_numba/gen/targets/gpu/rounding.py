"""Gradients that several launches added up in float32, rounded once to the arrays' dtype, in the rows listed."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import STEPS
from splat_numba.gen.targets.gpu.functions import wrapped

ENTRY = "round_gradients"
THREADS = 128
CHUNK = 8
PARAMETERS = (
    ("sums", "l"), ("result", "l"), ("rows", "l"), *((name, "r") for name in ("heads", "listed", "chunks")),
    *((f"{name}_{step}", "l") for name in ("sums", "result") for step in STEPS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RoundTraits:
    """dim: elements of a row; dtype: of the result."""

    dim: int
    dtype: str


def round_text(traits: RoundTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits."""
    name = f"attention_round_{arch}_d{traits.dim}_{traits.dtype}"
    return EmittedText(name, Entry(ENTRY, PARAMETERS, THREADS, 8, 0, arch=arch), render_rounding, (traits,))


def render_rounding(traits: RoundTraits) -> str:
    """Python source of the kernel: eight numbers a thread. Pure and deterministic."""
    out, quotes, a_row = SourceWriter(), '"' * 3, -(-traits.dim // CHUNK)
    out.lines(
        f"""
        {quotes}Sums of {traits.dim} numbers a row, rounded to {traits.dtype}: eight numbers a thread.{quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64


        """
    )
    wrapped(out, f"def {ENTRY}", [name for name, _ in PARAMETERS], end="):")
    with out.suite():
        out.lines(
            f"""
            number = u32(ptx.block_index() * u32({THREADS}) + ptx.thread_index())
            there = u32(1) if number < chunks else u32(0)
            number = number if there != u32(0) else u32(0)
            place = u32(number // u32({a_row}))
            column = u32((number - place * u32({a_row})) * u32({CHUNK}))
            pair = u32(place // listed)
            row = ptx.load_word(rows + u64(4) * u64(place - pair * listed))
            entry = u32(pair // heads)
            head = u32(pair - entry * heads)
            sums_at = sums + u64(entry) * sums_batch + u64(head) * sums_head + u64(row) * sums_row
            result_at = result + u64(entry) * result_batch + u64(head) * result_head + u64(row) * result_row
            x_0, x_1, x_2, x_3 = ptx.load_reals4(sums_at + u64(4) * u64(column))
            x_4, x_5, x_6, x_7 = ptx.load_reals4(sums_at + u64(4) * u64(column) + u64(16))
            to = result_at + u64(2) * u64(column)
            """
        )
        words = [f"ptx.pack_{traits.dtype}(x_{2 * i}, x_{2 * i + 1})" for i in range(4)]
        if traits.dim % CHUNK == 0 and traits.dim >= 32:
            out.line(f"ptx.store_words4(to, {', '.join(words)}, there)")
        else:
            for i, word in enumerate(words):
                when = f"there if u32(column + u32({2 * i})) < u32({traits.dim}) else u32(0)"
                out.line(f"ptx.store_word(to + u64({4 * i}), {word}, {when})")
    return out.text()
