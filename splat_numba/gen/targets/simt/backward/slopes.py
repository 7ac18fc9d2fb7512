"""Weights and gradients of the scores of a tile, in registers, and their way into shared memory.

lse is in base 2, and infinite for a query that keeps nothing, whose weights are 0 then.
"""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES
from splat_numba.gen.targets.simt.attention import WHERE
from splat_numba.gen.targets.simt.backward.traits import GradientTraits, share_of
from splat_numba.gen.targets.simt.shape import LANES_OF_ROW, Numbers
from splat_numba.gen.targets.simt.softmax import emit_for_rows


def emit_slopes(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    """All functions of this file."""
    _emit_levels(out, traits, numbers)
    _emit_put(out, traits, numbers)


def _emit_levels(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    """Scores become weights, and dP becomes slopes, less the scale."""
    share, slopes = share_of(traits), ("slope",) * traits.slopes
    if not traits.columns_are_queries:
        text = "lse and delta of a query; of padding infinity and 0."
        with device_function(out, "read_level", ("i", "row_at", "levels_at", "seq_left", "lse", "delta"), text):
            out.lines(
                f"""
                token = ptx.load_word(row_at + u64(4 * i))
                there = token < seq_left
                at = levels_at + u64({LEVEL_BYTES}) * u64(token if there else u32(0))
                lse[i] = load_number(at) if there else INFINITE
                delta[i] = load_number(at + u64({numbers.size})) if there else ZERO
                """
            )
        parameters = ("score", *slopes, "lse", "delta")
        with device_function(out, "weigh", parameters, "Weights, and slopes less the scale."):
            emit_for_rows(out, share.rows, "weigh_row", parameters)
        with device_function(out, "weigh_row", ("i", *parameters), "Of one query."):
            out.line("level, change = lse[i], delta[i]")
            with out.block(f"for j in range({share.keys})"):
                _emit_weight(out, f"{share.keys} * i + j", traits)
        return
    parameters = ("score", *slopes, *WHERE, "column", "levels_at")
    with device_function(out, "weigh", parameters, "Weights, and slopes less the scale."):
        emit_for_rows(out, share.keys, "weigh_column", parameters)
    with device_function(out, "weigh_column", ("j", *parameters), "Of one query; beyond the last all are 0."):
        place = f"u32(column + u32({LANES_OF_ROW} * j))"
        out.lines(
            f"""
            token = token_of({place}, corner, inner_step, outer_step, box_shift)
            there = token < limit
            at = levels_at + u64({LEVEL_BYTES}) * u64(token if there else u32(0))
            level = load_number(at) if there else INFINITE
            """
        )
        if traits.slopes:
            out.line(f"change = load_number(at + u64({numbers.size})) if there else ZERO")
        with out.block(f"for i in range({share.rows})"):
            _emit_weight(out, f"{share.keys} * i + j", traits)


def _emit_weight(out: SourceWriter, at: str, traits: GradientTraits) -> None:
    out.line(f"score[{at}] = exp2(score[{at}] - level)")
    if traits.slopes:
        out.line(f"slope[{at}] = score[{at}] * (slope[{at}] - change)")


def _emit_put(out: SourceWriter, traits: GradientTraits, numbers: Numbers) -> None:
    """The rows of weights are of the warp that reads them."""
    share, pitch = share_of(traits), numbers.row_bytes(traits.boxes.tile_kv)
    function = device_function(out, "put_numbers", ("values", "place"), "A thread's numbers into shared memory.")
    with function, out.block(f"for i in range({share.rows})"), out.block(f"for j in range({share.keys})"):
        at = f"place + u32({pitch}) * u32(i) + u32({numbers.size * LANES_OF_ROW}) * u32(j)"
        out.line(f"write_number({at}, values[{share.keys} * i + j])")
