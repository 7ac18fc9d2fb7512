"""What the gradients of tokens write: rounded rows, spread columns put side by side."""

from __future__ import annotations

from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.token_shape import TILE_SPANS, TOKENS, TokenTraits
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.tensor_map import SPAN


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
        with out.part("store_span", "64 columns of a head.", number=str(i)):
            out.lines(
                f"""
                span = u32(first_span + u32(number))
                head = u32(span // spans)
                column = u32((span - head * spans) * u32({SPAN}) + u32(8) * (lane & u32(3)))
                width = dim if head < heads else u32(0)
                head_at = target + u64(entry) * batch_bytes + u64(head) * head_bytes + u64(2) * u64(column)
                """
            )
            for row in (0, 1):
                _emit_row(out, traits, row, undone)


def _emit_row(out: KernelWriter, traits: TokenTraits, row: int, undone: str) -> None:
    """A token's columns of a span. undone: what its numbers are multiplied with, as text."""
    with out.part("store_row", "A token's columns of them.", row=str(row)):
        within = "u32(thread >> u32(5)) * u32(16) + (lane >> u32(2)) + u32(8) * u32(row)"
        out.line(f"token = u32(token_tile * u32({TOKENS}) + {within})")
        out.line("to = head_at + u64(token) * row_bytes")
        for half in (0, 1):
            out.line(f"at = 32 * number + {16 * half} + 2 * row")
            for j in range(4):
                pair = f"total[at + {4 * j}]{undone}, total[at + {4 * j + 1}]{undone}"
                out.line(f"word_{j} = ptx.pack_{traits.dtype}({pair})")
            out.line(f"there = u32(1) if token < seq_kv and column + u32({32 * half}) < width else u32(0)")
            out.line(f"ptx.store_words4(to + u64({64 * half}), word_0, word_1, word_2, word_3, there)")
