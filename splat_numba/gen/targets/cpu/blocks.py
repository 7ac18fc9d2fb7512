"""The walk of one row block over its key tiles: by intervals of a closed form, or by the pieces of a table."""

from __future__ import annotations

from splat_numba.gen.writer import SourceWriter
from splat_numba.gen.targets.cpu.prelude import FUNCTION
from splat_numba.gen.targets.cpu.shape import TileShape

STATE = "queries, scores, maxima, sums, alpha, total"
SOURCES = "k, k_stride, k_dim, v, v_stride, v_dim"


def _emit_products(out: SourceWriter, shape: TileShape, start: str, stride: str, soften: str) -> None:
    """Scores, softmax and weighted values of ``count`` keys from number ``start`` on, ``stride`` rows apart."""
    operands = {}
    for name, dims in (("k", shape.head_dim), ("v", shape.value_dim)):
        apart = f"{stride} * {name}_stride" if stride else f"{name}_stride"
        operands[name] = f"advance({name}, ({start}) * {name}_stride), {apart}, {name}_dim"
        if shape.staged:
            operands[name] += f", count, {dims}, staged"
    if shape.staged:
        out.line(f"stage_{shape.suffix}({operands['k']})")
    _emit_multiplied(out, shape, None if shape.staged else operands, soften, f"stage_{shape.suffix}({operands['v']})")


def _emit_multiplied(
    out: SourceWriter, shape: TileShape, operands: dict[str, str] | None, soften: str, stage_values: str
) -> None:
    """The two products around the softmax; without ``operands`` they read the staged tile."""
    keys = operands["k"] if operands else f"staged, {shape.head_dim}, 1"
    values = operands["v"] if operands else f"staged, {shape.value_dim}, 1"
    out.line(f"multiply_keys_{shape.suffix}({keys}, count, queries, scores)")
    out.lines(soften)
    if not operands:
        out.line(stage_values)
    out.line(f"multiply_values_{shape.suffix}({values}, count, scores, alpha, total)")


def emit_attend_interval(out: SourceWriter, shape: TileShape) -> None:
    """attend_interval: one band of a row block; tiles start at the first key that a row needs and end at the last."""
    staged = ", staged" if shape.staged else ""
    out.line()
    out.line()
    out.line(FUNCTION)
    with out.block(f"def attend_interval_{shape.suffix}({SOURCES}, low, high, rows, {STATE}{staged})"):
        out.line(
            '"""Keys low[lane] <= key < high[lane] of one lattice; where all rows keep all keys no mask is needed."""'
        )
        out.lines(
            """
            start, stop, full_start, full_stop = 1 << 62, 0, 0, 1 << 62
            for lane in range(rows):
                here, end = np.int64(element(low, lane)), np.int64(element(high, lane))
                if here < end:
                    start, stop = min(start, here), max(stop, end)
                full_start, full_stop = max(full_start, here), min(full_stop, end)
            """
        )
        weights = "scores, count, maxima, sums, alpha"
        soften = f"""
            if full_start <= start and start + count <= full_stop:
                soften_full_{shape.suffix}({weights})
            else:
                soften_inside_{shape.suffix}({weights}, start, low, high)
            """
        with out.block("while start < stop"):
            out.line(f"count = min({shape.tile_kv}, stop - start)")
            _emit_products(out, shape, "start", "", soften)
            out.line("start += count")


def emit_attend_pieces(out: SourceWriter, shape: TileShape, gathers: bool, masks: bool) -> None:
    """attend_pieces: the pieces of a row block, as gen.plan.TileTable lists them."""
    staged = ", staged" if shape.staged or gathers else ""
    tables = "piece, first, last, lane_bits, cols, limit"
    out.line()
    out.line()
    out.line(FUNCTION)
    with out.block(f"def attend_pieces_{shape.suffix}({SOURCES}, {tables}, {STATE}{staged})"):
        out.line(
            '"""Pieces first .. last - 1, each (start, step, count, mask); keys at or beyond ``limit`` are left out."""'
        )
        with out.block("for number in range(first, last)"):
            out.line("start, step = element(piece, 4 * number), element(piece, 4 * number + 1)")
            out.line("keys, mask = element(piece, 4 * number + 2), element(piece, 4 * number + 3)")
            if gathers:
                with out.block("if step == 0"):
                    with out.block("while keys > 0 and element(cols, start + keys - 1) >= limit"):
                        out.line("keys -= 1")
                with out.block("else"):
                    out.line("keys = min(keys, (limit - start + step - 1) // step)")
            else:
                out.line("keys = min(keys, (limit - start + step - 1) // step)")
            with out.block(f"for done in range(0, keys, {shape.tile_kv})"):
                out.line(f"count = min({shape.tile_kv}, keys - done)")
                _emit_piece_tile(out, shape, gathers, _piece_softmax(shape, masks))


def _piece_softmax(shape: TileShape, masks: bool) -> str:
    weights = "scores, count, maxima, sums, alpha"
    if not masks:
        return f"soften_full_{shape.suffix}({weights})"
    return f"""
        if mask < 0:
            soften_full_{shape.suffix}({weights})
        else:
            soften_bits_{shape.suffix}({weights}, advance(lane_bits, mask + done))
        """


def _emit_piece_tile(out: SourceWriter, shape: TileShape, gathers: bool, soften: str) -> None:
    if not gathers:
        _emit_products(out, shape, "start + done * step", "step", soften)
        return
    with out.block("if step == 0"):
        keys = "advance(cols, start + done), count"
        out.line(f"gather_{shape.suffix}(k, k_stride, k_dim, {keys}, {shape.head_dim}, staged)")
        gather_values = f"gather_{shape.suffix}(v, v_stride, v_dim, {keys}, {shape.value_dim}, staged)"
        _emit_multiplied(out, shape, None, soften, gather_values)
    with out.block("else"):
        _emit_products(out, shape, "start + done * step", "step", soften)
