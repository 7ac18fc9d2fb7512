"""Mask, online softmax and rounding of a tile of scores, in registers. Scores are in base 2.

A thread holds two rows; four neighbouring lanes share a row. score[4 j + 2 r + x] is row r, column 8 j + column + x.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from splat_numba.gen.boxes import SOME, Traits
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.sm90.shape import value_columns, words_per_row
from splat_numba.gen.writer import SourceWriter

# The peak of a row may lag behind by 2**8: weights up to 256 lose nothing in float32 sums or 16-bit floats, and most
# tiles then leave the accumulator as it is.
LAG = 8.0


def masks(traits: Traits) -> list[str]:
    """Calls of the functions that leave scores of kept pairs as they are, and make others -inf."""
    calls = ["negate(score)"] if traits.negate else []
    if traits.partial:
        calls.append("mask_scores(score, status, mask_base + stage * MASK_BYTES, column)")
    if traits.ragged:
        calls.append("limit_scores(score, word >> u32(8), column)")
    return calls


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


def emit_negate(out: SourceWriter, traits: Traits) -> None:
    """Scores are those of the opposite scale."""
    with device_function(out, "negate", ("score",), "The scale was negative."), each(out, traits.tile_kv // 2):
        out.line("score[i] = -score[i]")


def each(out: SourceWriter, count: int) -> AbstractContextManager[None]:
    """A loop over so many registers."""
    return out.block(f"for i in range({count})")


@contextmanager
def each_pair(out: SourceWriter, columns: int) -> Iterator[None]:
    """Loops over a thread's columns: chunk j of 8, place x of 2."""
    with out.block(f"for j in range({columns // 8})"), out.block("for x in range(2)"):
        yield


def emit_mask(out: SourceWriter, traits: Traits) -> None:
    """A row's words are shifted so that bit 0 is this thread's first column."""
    words = words_per_row(traits)
    text = "Scores of pairs that are not kept become -inf, if this group keeps only some."
    with device_function(out, "mask_scores", ("score", "status", "mask_at", "column"), text):
        out.lines(
            f"""
            if ptx.any_lane(u32(1) if status == u32({SOME}) else u32(0)) != u32(0):
                mask_row(score, 0, mask_at, column)
                mask_row(score, 1, mask_at + u32({8 * words * 4}), column)
            """
        )
    with device_function(out, "mask_row", ("score", "row", "mask_at", "column"), "The same of one row."):
        out.line(f"mask = cuda.local.array({words}, dtype=np.uint32)")
        with each(out, words):
            out.line("mask[i] = ptx.load_shared_word(mask_at + u32(4) * u32(i)) >> column")
        with each_pair(out, traits.tile_kv):
            at = "score[4 * j + 2 * row + x]"
            out.line(f"{at} = {at} if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT")


def emit_limit(out: SourceWriter, traits: Traits) -> None:
    """Of keys beyond a length."""
    text = "Scores of keys beyond the batch entry's length become -inf."
    function = device_function(out, "limit_scores", ("score", "valid", "column"), text)
    with function, out.block(f"if valid < u32({traits.tile_kv})"), each_pair(out, traits.tile_kv):
        out.line("below = column + u32(8 * j + x) < valid")
        for row in (0, 1):
            at = f"score[4 * j + {2 * row} + x]"
            out.line(f"{at} = {at} if below else NONE_KEPT")


def emit_weights(out: SourceWriter, traits: Traits) -> None:
    """Weights of a tile, and what a new peak does to what was added up before."""
    parameters = ("score", "scale_log2", "peak", "added", "rescale")
    text = "Scores become weights relative to their row's peak; rescale is the factor for what was added up before."
    first, second = "score[4 * j + 2 * row]", "score[4 * j + 2 * row + 1]"
    with device_function(out, "softmax", parameters, text), out.block("for row in range(2)"):
        out.lines(
            f"""
            top = NONE_KEPT
            for j in range({traits.tile_kv // 8}):
                top = ptx.maximum(top, ptx.maximum({first}, {second}))
            top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
            top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
            before = peak[row]
            now = top if top - before > f32({LAG}) else before
            safe = now if now > NONE_KEPT else f32(0.0)
            peak[row] = now
            rescale[row] = ptx.exp2(before - safe)
            weights = f32(0.0)
            for j in range({traits.tile_kv // 8}):
                {first} = ptx.exp2({first} * scale_log2 - safe)
                {second} = ptx.exp2({second} * scale_log2 - safe)
                weights += {first} + {second}
            added[row] = added[row] * rescale[row] + weights
            """
        )


def _emit_rounding(out: SourceWriter, traits: Traits) -> None:
    text = "Weights in the arrays' dtype, two a word: the left operand of the product with the values."
    with device_function(out, "round_weights", ("weight", "score"), text), each(out, traits.tile_kv // 4):
        out.line(f"weight[i] = ptx.pack_{traits.dtype}(score[2 * i], score[2 * i + 1])")


def emit_rescaling(out: SourceWriter, traits: Traits) -> None:
    """The accumulator, brought to new peaks."""
    moved = "u32(1) if (rescale[0] != f32(1.0)) or (rescale[1] != f32(1.0)) else u32(0)"
    text = "Bring the accumulator to the new peaks, where any row of the warp has one."
    function = device_function(out, "bring_to_peak", ("total", "rescale"), text)
    with function, out.block(f"if ptx.any_lane({moved}) != u32(0)"), each_pair(out, value_columns(traits)):
        for row in (0, 1):
            out.line(f"total[4 * j + {2 * row} + x] *= rescale[{row}]")
