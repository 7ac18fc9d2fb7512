"""Weights and gradients of the scores of a tile, in registers: P = exp2(score - lse), dS = P (dP - delta).

A thread holds two rows; score[4 j + 2 r + x] is row r, column 8 j + column + x. lse is in base 2, and infinite for a
query that keeps nothing, whose weights are 0 then.
"""

from __future__ import annotations

from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, LEFT_WORDS, MATRIX, sum_at, words_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.gradient_kernels import LEVEL_BYTES, READ, WRITTEN
from splat_numba.gen.targets.gpu.softmax import each, each_pair, emit_limit, emit_negate
from splat_numba.gen.targets.sm90.backward.traits import IMAGE_PART, BackwardTraits
from splat_numba.gen.targets.sm90.softmax import emit_mask


def emit_slopes(out: SourceWriter, traits: BackwardTraits) -> None:
    """All functions of this file."""
    if not traits.columns_are_queries:
        _emit_read_levels(out)
    if traits.kept == READ:
        _emit_load(out, traits)
        return
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
    if traits.kept == WRITTEN:
        _emit_keep(out, traits)


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
    at = f"base + LEVELS_TILE + stage * LEVELS_BYTES + (column + u32({MATRIX} * j + {place})) * u32({LEVEL_BYTES})"
    out.line(f"{names} = ptx.load_shared_reals2({at})")


def _emit_weigh(out: SourceWriter, traits: BackwardTraits) -> None:
    by_column = traits.columns_are_queries
    levels = ("base", "stage", "column") if by_column else ("lse",)
    function = device_function(out, "weigh", ("score", "scale_log2", *levels), "Scores become weights.")
    with function, each_pair(out, traits.boxes.tile_kv):
        if by_column:
            _emit_level(out, "lse, _", "x")
        for row in range(LANE_ROWS):
            at = sum_at("score", row, "x")
            out.line(f"{at} = ptx.exp2({at} * scale_log2 - {'lse' if by_column else f'lse[{row}]'})")


def _emit_make_slopes(out: SourceWriter, traits: BackwardTraits) -> None:
    """Where weights are rounded for dv anyway, dS takes them as they are then: so the scores' registers are free, and
    tiles of 64 queries instead of 48 fit (head_dim 128).
    """
    by_column = traits.columns_are_queries
    levels = ("base", "stage", "column") if by_column else ("delta",)
    given = "weight" if traits.weights else "score"
    function = device_function(out, "make_slopes", ("slope", given, *levels), "dP becomes dS, less the scale.")
    with function, out.block(f"for j in range({traits.boxes.tile_kv // MATRIX})"):
        if by_column:
            for x in range(LANE_COLUMNS):
                _emit_level(out, f"_, delta_{x}", str(x))
        for row in range(LANE_ROWS):
            weights = [sum_at("score", row, x) for x in range(LANE_COLUMNS)]
            if traits.weights:
                out.line(f"first, second = ptx.unpack_{traits.boxes.dtype}(weight[{LANE_ROWS} * j + {row}])")
                weights = ["first", "second"]
            for x, weight in enumerate(weights):
                at = sum_at("slope", row, x)
                out.line(f"{at} = {weight} * ({at} - {f'delta_{x}' if by_column else f'delta[{row}]'})")


def _emit_round(out: SourceWriter, traits: BackwardTraits, name: str, to: str, source: str) -> None:
    text = "Numbers in the arrays' dtype, two a word: the left operand of a product."
    boxes = traits.boxes
    with device_function(out, name, (to, source), text), each(out, words_of(boxes.tile_kv)):
        out.line(f"{to}[i] = ptx.pack_{boxes.dtype}({source}[2 * i], {source}[2 * i + 1])")


def _emit_keep(out: SourceWriter, traits: BackwardTraits) -> None:
    """A warp has 16 keys of all queries of the tile; of the 16 queries that a warp of the reader multiplies a thread
    has four words. They are stored as they are: the reader, which waits for memory, has the time to transpose them.
    """
    parameters = ("change", "slopes", "image", "image_place", *("keep_0", "keep_1") * traits.padded)
    with device_function(out, "keep_slopes", parameters, "Slopes to memory, four words for each warp of the reader."):
        out.line(f"to = slopes + u64({IMAGE_BYTES}) * u64(image) + u64(image_place)")
        if traits.padded:
            with out.block(f"for j in range({traits.boxes.tile_kv // MATRIX})"):
                for row in range(LANE_ROWS):
                    word = f"change[{LANE_ROWS} * j + {row}]"
                    out.line(f"{word} = u32({word} & keep_{row})")
        for w in range(traits.boxes.tile_kv // ATOM):
            words = ", ".join(f"change[{LEFT_WORDS * w + i}]" for i in range(LEFT_WORDS))
            out.line(f"ptx.store_words4(to + u64({IMAGE_PART * w}), {words}, u32(1))")


def _emit_load(out: SourceWriter, traits: BackwardTraits) -> None:
    """Of 16 keys and 16 queries: (8, 8) matrices of keys x queries, transposed in the order that a product wants."""
    with device_function(out, "load_slopes", ("change", "base", "stage", "image_place"), "This thread's of an image."):
        out.line("at = base + SLOPES_TILE + stage * SLOPES_BYTES + image_place")
        with out.block(f"for step in range({traits.boxes.tile_kv // ATOM})"):
            out.line(f"words = ptx.load_shared_words4(at + u32({4 * IMAGE_PART}) * u32(step))")
            for i, place in enumerate((0, 2, 1, 3)):
                out.line(f"change[{LEFT_WORDS} * step + {i}] = ptx.transpose_matrix(words[{place}])")
