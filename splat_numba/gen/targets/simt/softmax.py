"""Mask and online softmax of a tile of scores, in registers. Scores are in base 2.

score[keys i + j] is a thread's row i and, of its lane's place `column`, key column + 16 j of the tile.
"""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.boxes.passes import SOME, Traits
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.simt.shape import LANES_OF_ROW, Numbers, Share, share_of, words_per_row


def emit_softmax(out: SourceWriter, traits: Traits) -> None:
    """All functions of this file."""
    share = share_of(traits)
    emit_scale(out, share)
    if traits.partial:
        emit_mask(out, traits, share)
    if traits.ragged:
        emit_limit(out, share)
    emit_over_row(out)
    _emit_weights(out, traits)


def emit_scale(out: SourceWriter, share: Share) -> None:
    """Before the mask, as the factor may be 0 or negative."""
    function = device_function(out, "scale_scores", ("score", "scale"), "Scores in base 2.")
    with function, out.block(f"for i in range({share.rows * share.keys})"):
        out.line("score[i] = score[i] * scale")


def emit_mask(out: SourceWriter, traits: Traits, share: Share) -> None:
    """A row's words are read as they are wanted: few tiles have a mask, and its rows are shared by heads."""
    words = words_per_row(traits)
    text = "Scores of pairs that are not kept become -inf, in a tile of which some are."
    function = device_function(out, "mask_scores", ("score", "status", "mask_at", "column"), text)
    with function, out.block(f"if status == u32({SOME})"):
        emit_for_rows(out, share.rows, "mask_row", ("score", "mask_at", "column"))
    with device_function(out, "mask_row", ("i", "score", "mask_at", "column"), "The same of one row."):
        for word in range(words):
            out.line(f"mask_{word} = ptx.load_word(mask_at + u64({4 * words} * i + {4 * word})) >> column")
        for j in range(share.keys):
            at, place = f"score[{share.keys} * i + {j}]", LANES_OF_ROW * j
            kept = f"u32(mask_{place // 32} >> u32({place % 32})) & u32(1)"
            out.line(f"{at} = {at} if ({kept}) != u32(0) else NONE_KEPT")


def emit_limit(out: SourceWriter, share: Share) -> None:
    """Of keys beyond a length."""
    parameters = ("score", "column", "corner", "inner_step", "outer_step", "box_shift", "limit")
    text = "Scores of keys beyond the batch entry's length become -inf."
    with device_function(out, "limit_scores", parameters, text):
        for j in range(share.keys):
            place = f"u32(column + u32({LANES_OF_ROW * j}))"
            out.line(f"below = token_of({place}, corner, inner_step, outer_step, box_shift) < limit")
            with out.block(f"for i in range({share.rows})"):
                at = f"score[{share.keys} * i + {j}]"
                out.line(f"{at} = {at} if below else NONE_KEPT")


def emit_over_row(out: SourceWriter) -> None:
    """Between the lanes that share a row."""
    for name, text, joined in (
        ("top_of_row", "The largest of what a row's lanes have.", "maximum(x, from_lane(x, u32({})))"),
        ("sum_of_row", "The sum of what a row's lanes have.", "x + from_lane(x, u32({}))"),
    ):
        with device_function(out, name, ("x",), text):
            for apart in (1, 2, 4, 8):
                out.line(f"x = {joined.format(apart)}")
            out.line("return x")


def _emit_weights(out: SourceWriter, traits: Traits) -> None:
    """A thread's part of a row's sum is added up by itself; only the last step needs all of it."""
    numbers, share = Numbers(traits.dtype), share_of(traits)
    of_row = share.pieces * numbers.of_chunk
    parameters = ("score", "weights", "peak", "added", "total")
    text = "Scores become weights relative to their row's peak, in shared memory; sums are brought to a new peak."
    with device_function(out, "softmax", parameters, text):
        emit_for_rows(out, share.rows, "weigh_row", parameters)
    with device_function(out, "weigh_row", ("i", *parameters), "The same of one row."):
        out.lines(
            f"""
            top = peak[i]
            for j in range({share.keys}):
                top = maximum(top, score[{share.keys} * i + j])
            top = top_of_row(top)
            safe = top if top > NONE_KEPT else ZERO
            rescale = exp2(peak[i] - safe)
            peak[i] = top
            weight_sum = ZERO
            for j in range({share.keys}):
                weight = exp2(score[{share.keys} * i + j] - safe)
                at = weights + u32({numbers.row_bytes(traits.tile_kv)} * i)
                write_number(at + u32({numbers.size * LANES_OF_ROW}) * u32(j), weight)
                weight_sum += weight
            added[i] = added[i] * rescale + weight_sum
            for n in range({of_row}):
                total[{of_row} * i + n] *= rescale
            """
        )


def emit_for_rows(out: SourceWriter, rows: int, function: str, arguments: Sequence[str]) -> None:
    """A call for each of a thread's rows: a loop so long would not be unrolled, and arrays be no registers then."""
    for row in range(rows):
        out.line(f"{function}({row}, {', '.join(arguments)})")
