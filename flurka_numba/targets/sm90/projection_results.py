"""What the gradients of projections write: rounded rows, 16 bytes a lane."""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import OCTET, QUAD, WARP_OF_BLOCK
from flurka_numba.targets.sm90.lanes import CHUNK, CHUNK_NUMBERS, LANE_OF_ROW, LANE_ROW
from flurka_numba.targets.sm90.projection_shape import ProjectionTraits
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, SUMS
from splat_numba.gen.targets.gpu.parts import KernelWriter


def emit_results(out: KernelWriter, traits: ProjectionTraits) -> None:
    """Rounded and stored, 16 bytes a lane."""
    out.line("odd = u32(lane & u32(1))")
    out.line("upper = u32((lane >> u32(1)) & u32(1))")
    for name, part in (("target", ""), ("row_bytes", "_row"), ("head_bytes", "_head")):
        of_keys = f"dproj_k{part}"
        out.line(f"{name} = {of_keys if traits.shared else f'dproj_v{part} if of_values else {of_keys}'}")
    if traits.scaled:
        out.line("factor = ptx.load_state(gradient_scales + u64(4) * u64(of_values))")
    out.line(f"column = u32(first_token + u32({OCTET}) * {LANE_OF_ROW})")
    for row in range(LANE_ROWS):
        with out.part("store_row", "A row of the tile.", further=str(MATRIX * row), first=str(LANE_COLUMNS * row)):
            out.lines(
                f"""
                slot = u32(first_slot + u32{WARP_OF_BLOCK} * u32({ATOM}) + {LANE_ROW} + u32(further))
                to = target + u64(head_of_tile) * head_bytes + u64(slot) * row_bytes + u64(2) * u64(column)
                """
            )
            with out.block(f"for i in range({traits.columns // CHUNK})"):
                with out.part(
                    "exchange_words", "The row's lanes have two numbers each of every eight; each gets one eight."
                ):
                    _emit_exchange(out, traits, f"{CHUNK_NUMBERS} * i + first")
                out.line(f"there = u32(1) if slot < slots and column + u32({CHUNK} * i) < seq_kv else u32(0)")
                out.line(f"ptx.store_words4(to + u64({2 * CHUNK} * i), word_0, word_1, word_2, word_3, there)")


def _emit_exchange(out: KernelWriter, traits: ProjectionTraits, at: str) -> None:
    """``word_0`` to ``word_3``: columns 8 t to 8 t + 7 of 32, for lane t of the row's four. at: where total has the
    first of them.

    The lanes have two adjacent columns each of every eight. Of four times eight each gets one eight, in two exchanges.
    """
    undone = " * factor" if traits.scaled else ""
    for j in range(QUAD):
        pair = ", ".join(f"total[{at} + {SUMS * j + x}]{undone}" for x in range(LANE_COLUMNS))
        out.line(f"w_{j} = ptx.pack_{traits.dtype}({pair})")
    for name, low, high in (("a", "w_0", "w_1"), ("b", "w_2", "w_3")):
        out.lines(
            f"""
            kept = ptx.select({high}, {low}, odd)
            got = ptx.shuffle_xor_word(ptx.select({low}, {high}, odd), u32(1))
            {name}_0 = ptx.select(got, kept, odd)
            {name}_1 = ptx.select(kept, got, odd)
            """
        )
    for x in range(LANE_COLUMNS):
        out.lines(
            f"""
            kept_{x} = ptx.select(b_{x}, a_{x}, upper)
            got_{x} = ptx.shuffle_xor_word(ptx.select(a_{x}, b_{x}, upper), u32(2))
            """
        )
    four = (("got_0", "kept_0"), ("got_1", "kept_1"), ("kept_0", "got_0"), ("kept_1", "got_1"))
    for i, (upper, lower) in enumerate(four):
        out.line(f"word_{i} = ptx.select({upper}, {lower}, upper)")
