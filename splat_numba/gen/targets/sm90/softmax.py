"""Mask, online softmax and rounding of a tile of scores, in registers. Scores are in base 2.

A thread holds two rows; four neighbouring lanes share a row. score[4 j + 2 r + x] is row r, column 8 j + column + x.
"""

from __future__ import annotations

from splat_numba.gen.boxes.passes import GROUP_ROWS, SOME, Traits
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, MATRIX, ROW_LANES, WARP, log2, sum_at, words_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.softmax import each, each_pair, emit_limit, emit_negate, emit_rescaling, emit_weights
from splat_numba.gen.targets.sm90.shape import group_mask_bytes, words_per_row


def masks(traits: Traits, *, limited: bool) -> list[str]:
    """Calls of the functions that leave scores of kept pairs as they are, and make others -inf. limited: tiles reach
    beyond the key length.
    """
    calls = ["negate(score)"] if traits.negate else []
    if traits.partial:
        calls.append("mask_scores(score, status, mask_base + stage * MASK_BYTES, column)")
    if limited:
        calls.append("limit_scores(score, word >> u32(8), column)")
    return calls


def emit_place(out: SourceWriter) -> None:
    """A consumer thread's first row of its group's 64, and its first column of each eight."""
    warp, lane = f"((thread >> u32({log2(WARP)})) & u32({GROUP_ROWS // ATOM - 1}))", f"(thread & u32({WARP - 1}))"
    row = f"{warp} * u32({ATOM}) + ({lane} >> u32({log2(ROW_LANES)}))"
    out.line(f"row_in_group = {row}  # and that {MATRIX} further on")
    out.line(f"column = (thread & u32({ROW_LANES - 1})) * u32({LANE_COLUMNS})")


def emit_mask_place(out: SourceWriter, traits: Traits) -> None:
    """Where the words of this thread's first row begin in the first stage's masks."""
    at = f"warpgroup * u32({group_mask_bytes(traits)}) + row_in_group * u32({4 * words_per_row(traits)})"
    out.line(f"mask_base = base + MASK_TILE + {at}")


def emit_softmax(out: SourceWriter, traits: Traits) -> None:
    """All functions of this file."""
    if traits.negate:
        emit_negate(out, traits)
    if traits.partial:
        emit_mask(out, traits)
    if traits.ragged:
        emit_limit(out, traits)
    emit_weights(out, traits)
    _emit_rounding(out, traits)
    emit_rescaling(out, traits)


def emit_mask(out: SourceWriter, traits: Traits) -> None:
    """A row's words are shifted so that bit 0 is this thread's first column."""
    words = words_per_row(traits)
    text = "Scores of pairs that are not kept become -inf, if this group keeps only some."
    with device_function(out, "mask_scores", ("score", "status", "mask_at", "column"), text):
        out.lines(
            f"""
            if ptx.any_lane(u32(1) if status == u32({SOME}) else u32(0)) != u32(0):
                mask_row(score, 0, mask_at, column)
                mask_row(score, 1, mask_at + u32({MATRIX * words * 4}), column)
            """
        )
    with device_function(out, "mask_row", ("score", "row", "mask_at", "column"), "The same of one row."):
        out.line(f"mask = cuda.local.array({words}, dtype=np.uint32)")
        with each(out, words):
            out.line("mask[i] = ptx.load_shared_word(mask_at + u32(4) * u32(i)) >> column")
        with each_pair(out, traits.tile_kv):
            at, of_word = sum_at("score", "row", "x"), 32 // MATRIX  # eights of columns
            bit = f"u32(1 << ({MATRIX} * (j & {of_word - 1}) + x))"
            out.line(f"{at} = {at} if mask[j >> {log2(of_word)}] & {bit} else NONE_KEPT")


def _emit_rounding(out: SourceWriter, traits: Traits) -> None:
    text = "Weights in the arrays' dtype, two a word: the left operand of the product with the values."
    with device_function(out, "round_weights", ("weight", "score"), text), each(out, words_of(traits.tile_kv)):
        out.line(f"weight[i] = ptx.pack_{traits.dtype}(score[2 * i], score[2 * i + 1])")
