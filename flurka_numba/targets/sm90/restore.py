"""After low-rank attention in float16: results of a head whose values F v have a power of two, times its inverse.

Values that are within range have none (collect.py), so that a block of such a head ends at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.scales import emit_slot_factors
from splat_numba.gen.language.entry import Entry

POINTERS = ("out", "slot_scales")
COUNTS = ("heads", "rows", "words", "blocks")
STRIDES = ("out_batch", "out_head", "out_row")
THREADS = 256


@dataclass(frozen=True, slots=True)
class RestoreTraits:
    """dtype: of the results."""

    dtype: str


def restore_entry() -> Entry:
    """How the kernel is called. words: of a row; blocks: of a head."""
    return Entry("restore", parameters_of(POINTERS, COUNTS, STRIDES), THREADS, 4, 0)


def render_restore(traits: RestoreTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out = start_text(restore_entry(), f"Results of attention in {traits.dtype} times the inverse scale of their head.")
    with out.suite():
        out.lines(
            """
            block = ptx.block_index()
            pair = u32(block // blocks)
            block = u32(block - pair * blocks)
            """
        )
        emit_slot_factors(out, "value_factor")
        with out.block("if value_factor != f32(1.0)"):
            out.lines(
                f"""
                number = u32(block * u32({THREADS}) + ptx.thread_index())
                real = u32(1) if number < rows * words else u32(0)
                number = ptx.select(number, u32(0), real)
                row = u32(number // words)
                entry = u32(pair // heads)
                head = u32(pair - entry * heads)
                out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(row) * out_row
                out_at = out_at + u64(4) * u64(number - row * words)
                low, high = ptx.unpack_{traits.dtype}(ptx.load_pair(out_at))
                ptx.store_word(out_at, ptx.pack_{traits.dtype}(low * value_factor, high * value_factor), real)
                """
            )
    return out.text()
