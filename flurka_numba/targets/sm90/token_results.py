"""What the gradients of tokens write: rounded rows, spread columns put side by side."""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import OCTET, QUAD, WARP_OF_BLOCK
from flurka_numba.targets.sm90.lanes import CHUNK, CHUNK_NUMBERS, LANE_OF_ROW, LANE_ROW
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.token_shape import TILE_SPANS, TOKENS, TokenTraits
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, SUMS, sums_of
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.parts import KernelWriter


def emit_results(out: KernelWriter, traits: TokenTraits) -> None:
    """Rounded and stored, 16 bytes a lane."""
    for name, part in (("target", ""), ("row_bytes", "_row"), ("head_bytes", "_head"), ("batch_bytes", "_batch")):
        out.line(f"{name} = dv{part} if of_values else dk{part}")
    undone = ""
    if is_scaled(traits.dtype):
        undone = " * factor"
        out.line("factor = ptx.load_state(gradient_scales + u64(4) * u64(of_values))")
    out.line(f"dim = ptx.select(u32({traits.value_dim}), u32({traits.head_dim}), of_values)")
    for i in range(TILE_SPANS):
        with out.part("store_span", f"{SPAN} columns of a head.", number=str(i)):
            out.lines(
                f"""
                span = u32(first_span + u32(number))
                head = u32(span // spans)
                column = u32((span - head * spans) * u32({SPAN}) + u32({OCTET}) * {LANE_OF_ROW})
                width = dim if head < heads else u32(0)
                head_at = target + u64(entry) * batch_bytes + u64(head) * head_bytes + u64(2) * u64(column)
                """
            )
            for row in range(LANE_ROWS):
                _emit_row(out, traits, row, undone)


def _emit_row(out: KernelWriter, traits: TokenTraits, row: int, undone: str) -> None:
    """A token's columns of a span. undone: what its numbers are multiplied with, as text."""
    with out.part("store_row", "A token's columns of them.", row=str(row)):
        within = f"u32{WARP_OF_BLOCK} * u32({ATOM}) + {LANE_ROW} + u32({MATRIX}) * u32(row)"
        out.line(f"token = u32(token_tile * u32({TOKENS}) + {within})")
        out.line("to = head_at + u64(token) * row_bytes")
        for chunk in range(SPAN // CHUNK):
            out.line(f"at = {sums_of(SPAN)} * number + {CHUNK_NUMBERS * chunk} + {LANE_COLUMNS} * row")
            for j in range(QUAD):
                pair = ", ".join(f"total[at + {SUMS * j + x}]{undone}" for x in range(LANE_COLUMNS))
                out.line(f"word_{j} = ptx.pack_{traits.dtype}({pair})")
            out.line(f"there = u32(1) if token < seq_kv and column + u32({CHUNK * chunk}) < width else u32(0)")
            out.line(f"ptx.store_words4(to + u64({2 * CHUNK * chunk}), word_0, word_1, word_2, word_3, there)")
