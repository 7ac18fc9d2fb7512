"""Weights and slopes of a tile, in registers: P = exp2(score - lse), dS = P (dP - delta), less the scale.

A thread holds two rows of each atom; score[4 j + 2 r + x] is row r, column 8 j + column + x. lse is in base 2, and
infinite for a query that keeps nothing, whose weights are 0 then. lse and delta are read of shared memory for each
tile: registers are for the sums.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, sum_at
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES
from splat_numba.gen.targets.sm80.backward.pairs import thread_of_rows
from splat_numba.gen.targets.sm80.backward.shape import atoms_of, columns_at_once
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.softmax import chunks_of, columns_of, emit_masks
from splat_numba.gen.targets.sm80.tiles import OPAQUE_THREAD, of_atoms


def emit_pairs(out: SourceWriter, traits: GradientTraits) -> None:
    """A tile's weights and slopes, from its first two products. A kernel of queries of 16 bits rounds weights, of which
    it wants slopes alone, before dP is there: 128 queries x 64 keys leave no registers for scores beside it. One of
    keys has both products' sums at once, as its compiler keeps that in registers, and not the other (ptxas 13.0).
    """
    atoms = atoms_of(traits)
    scores, slopes, weights = (of_atoms(name, atoms) for name in ("score", "slope", "weight"))
    second = ("multiply_second", (*slopes, "left_2", "right_2"))
    wrapped(out, "multiply_first", (*scores, "left_1", "right_1"))
    if traits.columns_are_queries:
        if traits.slopes:
            wrapped(out, *second)
        out.line(f"row, column = place_in_warp({thread_of_rows(traits)})")
        part, columns = part_of(traits), columns_at_once(traits)
        first = f"u32(column + u32({columns}) * {part})" if part else "column"
        out.line(f"levels = u32(tile + LEVELS + u32({LEVEL_BYTES}) * {first})")
        for one in zip(scores, slopes, strict=True):
            out.line(f"weigh({', '.join(one[: 1 + traits.slopes])}, scale_log2, levels)")
        emit_masks(out, traits.walked, [scores, *[slopes] * traits.slopes], part)
        return
    out.line(f"row, column = place_in_warp({OPAQUE_THREAD})")
    out.line(f"levels = u32(base + LEVELS + u32({LEVEL_BYTES}) * row)")
    own = [f"u32(levels + u32({ATOM * LEVEL_BYTES * atom}))" for atom in range(atoms)]
    for score, at in zip(scores, own, strict=True):
        out.line(f"weigh({score}, scale_log2, {at})")
    emit_masks(out, traits.walked, [scores])
    if traits.packs:
        for weight, score in zip(weights, scores, strict=True):
            out.line(f"round_weights({weight}, {score})")
    wrapped(out, *second)
    for slope, weight, at in zip(slopes, weights if traits.packs else scores, own, strict=True):
        out.line(f"make_slopes({slope}, {weight}, {at})")


def part_of(traits: GradientTraits) -> str:
    """The name of the number of the columns that are worked on, where those are not all of a tile."""
    return "part" * (columns_at_once(traits) < traits.boxes.tile_kv)


def emit_slopes(out: SourceWriter, traits: GradientTraits) -> None:
    """The functions that it calls."""
    if traits.columns_are_queries:
        _emit_by_columns(out, traits)
        return
    _emit_by_rows(out, traits, "weigh", ("score", "scale_log2"), "level")
    if traits.packs:
        _emit_round(out, traits)
    _emit_by_rows(out, traits, "make_slopes", ("slope", "weight"), "change")
    with columns_of(out, "weigh_columns", ("score", "scale_log2", "row", "level"), traits.boxes.tile_kv, "Of a row."):
        for x in range(LANE_COLUMNS):
            at = sum_at("score", "row", str(x))
            out.line(f"{at} = ptx.exp2({at} * scale_log2 - level)")
    parameters = ("slope", "weight", "row", "change")
    with columns_of(out, "make_slopes_columns", parameters, traits.boxes.tile_kv, "Of a row."):
        weights = [sum_at("weight", "row", str(x)) for x in range(LANE_COLUMNS)]
        if traits.packs:
            weights = ["low", "high"]
            out.line(f"low, high = ptx.unpack_{traits.boxes.dtype}(weight[{LANE_ROWS} * j + row])")
        for x, weight in enumerate(weights):
            at = sum_at("slope", "row", str(x))
            out.line(f"{at} = {weight} * ({at} - change)")


def _emit_by_rows(out: SourceWriter, traits: GradientTraits, name: str, given: tuple[str, ...], wanted: str) -> None:
    """levels: of the thread's first row of an atom."""
    text = {"level": "Scores become weights.", "change": "dP becomes slopes."}[wanted]
    names = {"level": "level, _", "change": "_, change"}[wanted]
    with device_function(out, name, (*given, "levels"), text):
        for row in range(LANE_ROWS):
            out.line(f"{names} = ptx.load_shared_reals2(levels + u32({MATRIX * LEVEL_BYTES * row}))")
            for first in chunks_of(traits.boxes.tile_kv):
                out.line(f"{name}_columns({first}, {', '.join(given)}, {row}, {wanted})")


def _emit_round(out: SourceWriter, traits: GradientTraits) -> None:
    text, tile = "Weights in the arrays' dtype, two a word.", traits.boxes.tile_kv
    with device_function(out, "round_weights", ("weight", "score"), text):
        for first in chunks_of(tile):
            out.line(f"round_columns({first}, weight, score)")
    with columns_of(out, "round_columns", ("weight", "score"), tile, "The same of 32 columns."):
        for row in range(LANE_ROWS):
            pair = ", ".join(sum_at("score", row, x) for x in range(LANE_COLUMNS))
            out.line(f"weight[{LANE_ROWS} * j + {row}] = ptx.pack_{traits.boxes.dtype}({pair})")


def _emit_by_columns(out: SourceWriter, traits: GradientTraits) -> None:
    """levels: of the thread's first column."""
    tile, arrays = columns_at_once(traits), ("score", *("slope",) * traits.slopes)
    text = "Scores become weights, and dP slopes." if traits.slopes else "Scores become weights."
    parameters = (*arrays, "scale_log2", "levels")
    with device_function(out, "weigh", parameters, text):
        for first in chunks_of(tile):
            out.line(f"weigh_columns({first}, {', '.join(parameters)})")
    with columns_of(out, "weigh_columns", parameters, tile, "The same of 32 columns."):
        for x in range(LANE_COLUMNS):
            at = f"levels + u32({LEVEL_BYTES}) * u32({MATRIX} * j + {x})"
            out.line(f"level, change = ptx.load_shared_reals2({at})")
            for row in range(LANE_ROWS):
                weight, slope = sum_at("score", row, x), sum_at("slope", row, x)
                out.line(f"{weight} = ptx.exp2({weight} * scale_log2 - level)")
                if traits.slopes:
                    out.line(f"{slope} = {weight} * ({slope} - change)")
