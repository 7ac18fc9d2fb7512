"""Online softmax of a tile of scores, in registers, as products of tensor cores leave them. Scores are in base 2.

A thread holds two rows; four neighbouring lanes share a row. score[4 j + 2 r + x] is row r, column 8 j + column + x.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS, MATRIX, sum_at, sums_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function

# The peak of a row may lag behind by 2**8: weights up to 256 lose nothing in float32 sums or 16-bit floats, and most
# tiles then leave the accumulator as it is.
LAG = 8.0
# Whether any row of the warp has a new one.
MOVED = "ptx.any_lane(u32(1) if (rescale[0] != f32(1.0)) or (rescale[1] != f32(1.0)) else u32(0)) != u32(0)"


def value_columns(traits: Traits) -> int:
    """Columns of the accumulator: value_dim rounded up to what a product can have."""
    return -(-traits.value_dim // MATRIX) * MATRIX


def each(out: SourceWriter, count: int) -> AbstractContextManager[None]:
    """A loop over so many registers."""
    return out.block(f"for i in range({count})")


@contextmanager
def each_pair(out: SourceWriter, columns: int) -> Iterator[None]:
    """Loops over a thread's columns: chunk j of 8, place x of 2."""
    with out.block(f"for j in range({columns // MATRIX})"), out.block(f"for x in range({LANE_COLUMNS})"):
        yield


def emit_negate(out: SourceWriter, traits: Traits) -> None:
    """Scores are those of the opposite scale."""
    with device_function(out, "negate", ("score",), "The scale was negative."), each(out, sums_of(traits.tile_kv)):
        out.line("score[i] = -score[i]")


def emit_valid(out: SourceWriter, traits: Traits) -> None:
    """How many keys count; the status that goes with a tile has it above bit 8, and is 0 where all groups skip."""
    text = "How many of a tile's keys lie below the length."
    with device_function(out, "valid_keys", ("token", "inner_step", "length"), text):
        out.lines(
            f"""
            if token >= length:
                return u32(0)
            return u32(min(u32(length - token + inner_step - u32(1)) // inner_step, u32({traits.tile_kv})))
            """
        )


def emit_limit(out: SourceWriter, traits: Traits) -> None:
    """Of keys beyond a length."""
    text = "Scores of keys beyond the batch entry's length become -inf."
    function = device_function(out, "limit_scores", ("score", "valid", "column"), text)
    with function, out.block(f"if valid < u32({traits.tile_kv})"), each_pair(out, traits.tile_kv):
        out.line(f"below = column + u32({MATRIX} * j + x) < valid")
        for row in range(LANE_ROWS):
            at = sum_at("score", row, "x")
            out.line(f"{at} = {at} if below else NONE_KEPT")


def emit_weights(out: SourceWriter, traits: Traits) -> None:
    """Weights of a tile, and what a new peak does to what was added up before."""
    parameters = ("score", "scale_log2", "peak", "added", "rescale")
    text = "Scores become weights relative to their row's peak; rescale is the factor for what was added up before."
    first, second = (sum_at("score", "row", x) for x in range(LANE_COLUMNS))
    with device_function(out, "softmax", parameters, text), out.block(f"for row in range({LANE_ROWS})"):
        out.lines(
            f"""
            top = NONE_KEPT
            for j in range({traits.tile_kv // MATRIX}):
                top = ptx.maximum(top, ptx.maximum({first}, {second}))
            """
        )
        emit_peak(out)
        out.lines(
            f"""
            weights = f32(0.0)
            for j in range({traits.tile_kv // MATRIX}):
                {first} = ptx.exp2({first} * scale_log2 - safe)
                {second} = ptx.exp2({second} * scale_log2 - safe)
                weights += {first} + {second}
            added[row] = added[row] * rescale[row] + weights
            """
        )


def emit_peak(out: SourceWriter) -> None:
    """A row's new peak, from the largest score that a thread has of it."""
    out.lines(
        f"""
        top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
        top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
        before = peak[row]
        now = top if top - before > f32({LAG}) else before
        safe = now if now > NONE_KEPT else f32(0.0)
        peak[row] = now
        rescale[row] = ptx.exp2(before - safe)
        """
    )


def emit_rescaling(out: SourceWriter, traits: Traits) -> None:
    """The accumulator, brought to new peaks."""
    text = "Bring the accumulator to the new peaks, where any row of the warp has one."
    function = device_function(out, "bring_to_peak", ("total", "rescale"), text)
    with function, out.block(f"if {MOVED}"), each_pair(out, value_columns(traits)):
        for row in range(LANE_ROWS):
            out.line(f"{sum_at('total', row, 'x')} *= rescale[{row}]")
