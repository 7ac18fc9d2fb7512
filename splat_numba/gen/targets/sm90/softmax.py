"""Mask, online softmax and rounding of a tile of scores, in registers. Scores are in base 2.

A thread holds two rows; four neighbouring lanes share a row. score[4 j + 2 r + x] is row r, column 8 j + column + x.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from splat_numba.gen.boxes import SOME, Traits
from splat_numba.gen.targets.sm90.shape import shared_layout, value_columns, words_per_row
from splat_numba.gen.writer import SourceWriter

# The peak of a row may lag behind by 2**8: weights up to 256 lose nothing in float32 sums or 16-bit floats, and most
# tiles then leave the accumulator as it is.
LAG = 8.0


def emit_mask(out: SourceWriter, traits: Traits) -> None:
    """Scores of pairs that are not kept become -inf."""
    if traits.negate:
        with out.block(f"for i in range({traits.tile_kv // 2})"):
            out.line("score[i] = -score[i]")
    if traits.partial:
        with out.block(f"if ptx.any_lane(u32(1) if status == u32({SOME}) else u32(0)) != u32(0)"):
            for row in (0, 1):
                _emit_mask_row(out, traits, row)
    if traits.ragged:
        out.line("valid = word >> u32(8)")
        with out.block(f"if valid < u32({traits.tile_kv})"), _each_pair(out, traits.tile_kv):
            out.line("below = column + u32(8 * j + x) < valid")
            for row in (0, 1):
                at = f"score[4 * j + {2 * row} + x]"
                out.line(f"{at} = {at} if below else NONE_KEPT")


@contextmanager
def _each_pair(out: SourceWriter, columns: int) -> Iterator[None]:
    """Loops over a thread's columns: chunk j of 8, place x of 2."""
    with out.block(f"for j in range({columns // 8})"), out.block("for x in range(2)"):
        yield


def _emit_mask_row(out: SourceWriter, traits: Traits, row: int) -> None:
    """Read one row of the tile's mask, shifted so that bit 0 is this thread's first column, and apply it."""
    words = words_per_row(traits)
    at = f"mask_base + stage * u32({shared_layout(traits).mask_bytes}) + u32({row * 8 * words * 4})"
    for i in range(words):
        out.line(f"mask[{i}] = ptx.load_shared_word({at} + u32({4 * i})) >> column")
    with _each_pair(out, traits.tile_kv):
        score = f"score[4 * j + {2 * row} + x]"
        out.line(f"{score} = {score} if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT")


def emit_softmax(out: SourceWriter, traits: Traits) -> None:
    """Scores become weights relative to the row's peak; the factor for what was summed before is left in rescale."""
    for row in (0, 1):
        first, second = f"score[4 * j + {2 * row}]", f"score[4 * j + {2 * row + 1}]"
        out.lines(
            f"""
            top = NONE_KEPT
            for j in range({traits.tile_kv // 8}):
                top = ptx.maximum(top, ptx.maximum({first}, {second}))
            top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
            top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
            before = peak_{row}
            peak_{row} = top if top - before > f32({LAG}) else before
            safe = peak_{row} if peak_{row} > NONE_KEPT else f32(0.0)
            rescale_{row} = ptx.exp2(before - safe)
            added = f32(0.0)
            for j in range({traits.tile_kv // 8}):
                {first} = ptx.exp2({first} * scale_log2 - safe)
                {second} = ptx.exp2({second} * scale_log2 - safe)
                added += {first} + {second}
            sum_{row} = sum_{row} * rescale_{row} + added
            """
        )


def emit_pack(out: SourceWriter, traits: Traits) -> None:
    """Weights in the arrays' dtype, two a word: the left operand of the product with the values."""
    with out.block(f"for i in range({traits.tile_kv // 4})"):
        out.line(f"weight[i] = ptx.pack_{traits.dtype}(score[2 * i], score[2 * i + 1])")


def emit_rescale(out: SourceWriter, traits: Traits) -> None:
    """Bring the accumulator to the new peaks, where any row of the warp has one."""
    moved = "u32(1) if (rescale_0 != f32(1.0)) or (rescale_1 != f32(1.0)) else u32(0)"
    with out.block(f"if ptx.any_lane({moved}) != u32(0)"), _each_pair(out, value_columns(traits)):
        for row in (0, 1):
            out.line(f"total[4 * j + {2 * row} + x] *= rescale_{row}")
