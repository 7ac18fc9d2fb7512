"""Gradients of 16-bit arrays that several launches added up in float32, rounded once: a chunk of 16 bytes a thread."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.entry import Entry
from splat_numba.gen.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import STEPS, emit_header
from splat_numba.gen.targets.simt.arithmetic import emit_arithmetic
from splat_numba.gen.targets.simt.results import chunk_bytes, emit_store_chunk
from splat_numba.gen.targets.simt.shape import CHUNK, Numbers
from splat_numba.gen.writer import SourceWriter

ENTRY = "round_gradients"
THREADS = 128
POINTERS, COUNTS = ("sums", "result"), ("heads", "seq", "chunks")
STRIDES = tuple(f"{name}_{step}" for name in POINTERS for step in STEPS)
PARAMETERS = (*((name, "l") for name in (*POINTERS, *STRIDES)), *((name, "r") for name in COUNTS))


@dataclass(frozen=True, slots=True)
class RoundTraits:
    """dim: elements of a row; dtype: of the result."""

    dim: int
    dtype: str

    @property
    def chunks(self) -> int:
        """Threads of a row."""
        return Numbers("float32").chunks(self.dim)


def round_text(traits: RoundTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits."""
    name = f"attention_round_simt_{arch}_d{traits.dim}_{traits.dtype}"
    return EmittedText(name, Entry(ENTRY, PARAMETERS, THREADS, 8, 0, arch=arch), render_rounding, (traits,))


def render_rounding(traits: RoundTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out, quotes = SourceWriter(), '"' * 3
    out.lines(
        f"""
        {quotes}Sums of {traits.dim} numbers a row, rounded to {traits.dtype}: four numbers a thread.{quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        """
    )
    emit_arithmetic(out, Numbers(traits.dtype))
    emit_header(out, ENTRY, (POINTERS, STRIDES, COUNTS))
    with out.suite():
        out.lines(
            f"""
            number = u32(ptx.block_index() * u32({THREADS}) + ptx.thread_index())
            there = u32(1) if number < chunks else u32(0)
            number = number if there != u32(0) else u32(0)
            place = u32(number // u32({traits.chunks}))
            chunk = u32(number - place * u32({traits.chunks}))
            pair = u32(place // seq)
            row = u32(place - pair * seq)
            entry = u32(pair // heads)
            head = u32(pair - entry * heads)
            sums_at = sums + u64(entry) * sums_batch + u64(head) * sums_head + u64(row) * sums_row
            result_at = result + u64(entry) * result_batch + u64(head) * result_head + u64(row) * result_row
            a, b, c, d = ptx.load_reals4(sums_at + u64({CHUNK}) * u64(chunk))
            store_chunk(result_at + u64({chunk_bytes(traits.dtype)}) * u64(chunk), a, b, c, d, there)
            """
        )
    emit_store_chunk(out, traits.dtype)
    return out.text()
