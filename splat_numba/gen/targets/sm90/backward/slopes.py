"""Weights and gradients of the scores of a tile, in registers: P = exp2(score - lse), dS = P (dP - delta).

A thread holds two rows; score[4 j + 2 r + x] is row r, column 8 j + column + x. lse is in base 2, and infinite for a
query that keeps nothing, whose weights are 0 then.
"""

from __future__ import annotations

from splat_numba.gen.targets.sm90.backward.traits import LEVEL_BYTES, BackwardTraits
from splat_numba.gen.targets.sm90.functions import device_function
from splat_numba.gen.targets.sm90.softmax import each, each_pair, emit_limit, emit_mask, emit_negate
from splat_numba.gen.writer import SourceWriter


def masks(traits: BackwardTraits) -> list[str]:
    """Calls of the functions that leave scores of kept pairs as they are, and make others -inf, of weight 0."""
    calls = ["negate(score)"] if traits.boxes.negate else []
    if traits.boxes.partial:
        calls.append("mask_scores(score, status, mask_base + stage * MASK_BYTES, column)")
    if traits.clears:
        calls.append("limit_scores(score, word >> u32(8), column)")
    return calls


def emit_slopes(out: SourceWriter, traits: BackwardTraits) -> None:
    """All functions of this file."""
    if not traits.columns_are_queries:
        _emit_read_levels(out)
    if traits.boxes.negate:
        emit_negate(out, traits.boxes)
    if traits.boxes.partial:
        emit_mask(out, traits.boxes)
    if traits.clears:
        emit_limit(out, traits.boxes)
    _emit_weigh(out, traits)
    if traits.weights:
        _emit_round(out, traits, "round_weights", "weight", "score")
    if traits.slopes:
        _emit_make_slopes(out, traits)
        _emit_round(out, traits, "round_slopes", "change", "slope")


def _emit_read_levels(out: SourceWriter) -> None:
    parameters = ("row", "place", "levels_at", "seq", "lse", "delta")
    with device_function(out, "read_levels", parameters, "lse and delta of a query; of padding those of the first."):
        out.lines(
            """
            safe = place if place < seq else u32(0)
            lse[row], delta[row], _, _ = ptx.load_reals4(levels_at + u64(16) * u64(safe))
            """
        )


def _emit_level(out: SourceWriter, names: str, place: str) -> None:
    """lse and delta of this thread's column 8 j + column + place."""
    at = f"base + LEVELS_TILE + stage * LEVELS_BYTES + (column + u32(8 * j + {place})) * u32({LEVEL_BYTES})"
    out.line(f"{names} = ptx.load_shared_reals2({at})")


def _emit_weigh(out: SourceWriter, traits: BackwardTraits) -> None:
    by_column = traits.columns_are_queries
    levels = ("base", "stage", "column") if by_column else ("lse",)
    function = device_function(out, "weigh", ("score", "scale_log2", *levels), "Scores become weights.")
    with function, each_pair(out, traits.boxes.tile_kv):
        if by_column:
            _emit_level(out, "lse, _", "x")
        for row in (0, 1):
            at = f"score[4 * j + {2 * row} + x]"
            out.line(f"{at} = ptx.exp2({at} * scale_log2 - {'lse' if by_column else f'lse[{row}]'})")


def _emit_make_slopes(out: SourceWriter, traits: BackwardTraits) -> None:
    """Where weights are rounded for dv anyway, dS takes them as they are then: so the scores' registers are free, and
    tiles of 64 queries instead of 48 fit (head_dim 128).
    """
    by_column = traits.columns_are_queries
    levels = ("base", "stage", "column") if by_column else ("delta",)
    given = "weight" if traits.weights else "score"
    function = device_function(out, "make_slopes", ("slope", given, *levels), "dP becomes dS, less the scale.")
    with function, out.block(f"for j in range({traits.boxes.tile_kv // 8})"):
        if by_column:
            for x in (0, 1):
                _emit_level(out, f"_, delta_{x}", str(x))
        for row in (0, 1):
            weights = [f"score[4 * j + {2 * row + x}]" for x in (0, 1)]
            if traits.weights:
                out.line(f"first, second = ptx.unpack_{traits.boxes.dtype}(weight[2 * j + {row}])")
                weights = ["first", "second"]
            for x, weight in enumerate(weights):
                at = f"slope[4 * j + {2 * row + x}]"
                out.line(f"{at} = {weight} * ({at} - {f'delta_{x}' if by_column else f'delta[{row}]'})")


def _emit_round(out: SourceWriter, traits: BackwardTraits, name: str, to: str, source: str) -> None:
    text = "Numbers in the arrays' dtype, two a word: the left operand of a product."
    boxes = traits.boxes
    with device_function(out, name, (to, source), text), each(out, boxes.tile_kv // 4):
        out.line(f"{to}[i] = ptx.pack_{boxes.dtype}({source}[2 * i], {source}[2 * i + 1])")
