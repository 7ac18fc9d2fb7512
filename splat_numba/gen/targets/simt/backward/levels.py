"""A small text before the gradients: lse in base 2, and delta = sum(dout out) - dlse, of every query.

A query that keeps nothing gets an infinite lse, whatever its dout is: its weights are 0 then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import STEPS, emit_header
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES
from splat_numba.gen.targets.gpu.levels import emit_row_place
from splat_numba.gen.targets.simt.arithmetic import emit_arithmetic
from splat_numba.gen.targets.simt.results import chunk_bytes, emit_load_chunk, emit_load_number, emit_store_number
from splat_numba.gen.targets.simt.shape import LANES_OF_ROW, Numbers, pieces
from splat_numba.gen.targets.simt.softmax import emit_over_row
from splat_numba.gen.targets.simt.tiles import emit_chunk_of

ENTRY = "attention_levels"
THREADS = 128
ROWS = THREADS // LANES_OF_ROW
ARRAYS = ("out", "dout", "lse", "dlse")
POINTERS = (*ARRAYS, "levels")
COUNTS = ("heads", "seq", "rows")
STRIDES = tuple(f"{name}_{step}" for name in ARRAYS for step in STEPS)
PARAMETERS = (*((name, "l") for name in (*POINTERS, *STRIDES)), *((name, "r") for name in COUNTS))


@dataclass(frozen=True, slots=True)
class LevelTraits:
    """value_dim: elements of a row; dtype: of the arrays."""

    value_dim: int
    dtype: str


def levels_text(traits: LevelTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits."""
    name = f"attention_levels_simt_{arch}_d{traits.value_dim}_{traits.dtype}"
    return EmittedText(name, Entry(ENTRY, PARAMETERS, THREADS, 8, 0, arch=arch), render_levels, (traits,))


def render_levels(traits: LevelTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out, numbers, quotes = SourceWriter(), Numbers(traits.dtype), '"' * 3
    out.lines(
        f"""
        {quotes}lse in base 2, and delta = sum(dout * out) - dlse, of each query, by {LANES_OF_ROW} lanes.{quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        """
    )
    emit_arithmetic(out, numbers)
    emit_header(out, ENTRY, (POINTERS, STRIDES, COUNTS))
    with out.suite():
        _emit_body(out, traits, numbers)
    emit_chunk_of(out)
    emit_over_row(out)
    emit_load_chunk(out, traits.dtype)
    emit_load_number(out, numbers.computed)
    emit_store_number(out, numbers.computed)
    return out.text()


def _emit_body(out: SourceWriter, traits: LevelTraits, numbers: Numbers) -> None:
    out.line("thread = ptx.thread_index()")
    emit_row_place(out, ARRAYS, ROWS, f"u32(thread // u32({LANES_OF_ROW}))")
    out.line("total = ZERO")
    _emit_sum(out, traits, numbers)
    out.lines(
        f"""
        total = sum_of_row(total)
        level = load_number(lse_at)
        if dlse != u64(0):
            total = total - load_number(dlse_at)
        kept = level != NONE_KEPT  # NaN counts
        delta = total if kept else ZERO
        level = level * real({math.log2(math.e)!r}) if kept else real(np.inf)
        one_lane = there if u32(thread & u32({LANES_OF_ROW - 1})) == u32(0) else u32(0)
        to = levels + u64({LEVEL_BYTES}) * u64(number)
        store_number(to, level, one_lane)
        store_number(to + u64({numbers.size}), delta, one_lane)
        """
    )


def _emit_sum(out: SourceWriter, traits: LevelTraits, numbers: Numbers) -> None:
    """sum(dout * out) of a lane's chunks; what is beyond the row counts as 0, whatever is there."""
    chunks, of = numbers.chunks(traits.value_dim), numbers.of_chunk
    with out.block(f"for piece in range({pieces(numbers, traits.value_dim)})"):
        out.lines(
            f"""
            chunk = chunk_of(piece)
            inside = chunk < u32({chunks})
            place = u64({chunk_bytes(traits.dtype)}) * u64(chunk if inside else u32(0))
            {", ".join(f"a_{y}" for y in range(of))} = load_chunk(out_at + place)
            {", ".join(f"b_{y}" for y in range(of))} = load_chunk(dout_at + place)
            """
        )
        tail = traits.value_dim - (chunks - 1) * of
        for y in range(of):
            within = "inside" if y < tail else f"chunk < u32({chunks - 1})"
            out.line(f"total = total + (a_{y} * b_{y} if {within} else ZERO)")
