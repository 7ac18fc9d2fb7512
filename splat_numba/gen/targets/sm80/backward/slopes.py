"""Weights and slopes of a tile, in registers: P = exp2(score - lse), dS = P (dP - delta), less the scale.

A thread holds two rows of each atom; score[4 j + 2 r + x] is row r, column 8 j + column + x. lse is in base 2, and
infinite for a query that keeps nothing, whose weights are 0 then.
"""

from __future__ import annotations

from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.softmax import chunks_of, columns_of
from splat_numba.gen.writer import SourceWriter


def emit_slopes(out: SourceWriter, traits: GradientTraits) -> None:
    """The functions between a tile's first two products and its last."""
    if traits.columns_are_queries:
        _emit_by_columns(out, traits)
    else:
        _emit_by_rows(out, traits)


def _emit_by_rows(out: SourceWriter, traits: GradientTraits) -> None:
    """lse and delta are the thread's, of its rows."""
    tile, arrays = traits.boxes.tile_kv, ("score", "slope")
    text = "lse and delta of a query; of padding infinity and 0."
    with device_function(out, "read_level", ("row", "token", "levels_at", "seq", "lse", "delta"), text):
        out.lines(
            f"""
            there = token < seq
            at = levels_at + u64({LEVEL_BYTES}) * u64(token if there else u32(0))
            lse[row] = ptx.load_state(at) if there else INFINITE
            delta[row] = ptx.load_state(at + u64(4)) if there else f32(0.0)
            """
        )
    text = "Scores become weights, and dP slopes."
    with device_function(out, "weigh", (*arrays, "scale_log2", "lse", "delta"), text):
        for row in (0, 1):
            for first in chunks_of(tile):
                out.line(f"weigh_columns({first}, score, slope, scale_log2, {row}, lse[{row}], delta[{row}])")
    parameters = (*arrays, "scale_log2", "row", "level", "change")
    with columns_of(out, "weigh_columns", parameters, tile, "The same of 32 columns of a row."):
        for x in (0, 1):
            _emit_weight(out, traits, f"4 * j + 2 * row + {x}", "level", "change")


def _emit_by_columns(out: SourceWriter, traits: GradientTraits) -> None:
    """They are in shared memory, of the tile's queries."""
    tile, arrays = traits.boxes.tile_kv, ("score", *("slope",) * traits.slopes)
    text = "Scores become weights, and dP slopes." if traits.slopes else "Scores become weights."
    parameters = (*arrays, "scale_log2", "levels")
    with device_function(out, "weigh", parameters, text):
        for first in chunks_of(tile):
            out.line(f"weigh_columns({first}, {', '.join(parameters)})")
    with columns_of(out, "weigh_columns", parameters, tile, "The same of 32 columns."):
        for x in (0, 1):
            out.line(f"level, change = ptx.load_shared_reals2(levels + u32({LEVEL_BYTES}) * u32(8 * j + {x}))")
            for row in (0, 1):
                _emit_weight(out, traits, f"4 * j + {2 * row + x}", "level", "change")


def _emit_weight(out: SourceWriter, traits: GradientTraits, at: str, level: str, change: str) -> None:
    out.line(f"score[{at}] = ptx.exp2(score[{at}] * scale_log2 - {level})")
    if traits.slopes:
        out.line(f"slope[{at}] = score[{at}] * (slope[{at}] - {change})")
