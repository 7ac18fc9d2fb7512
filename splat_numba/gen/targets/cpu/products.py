"""The two matrix products of a tile, held in registers: scores = K Q^T and out^T = alpha * out^T + V^T P^T."""

from __future__ import annotations

from splat_numba.gen.targets.cpu.prelude import FUNCTION
from splat_numba.gen.targets.cpu.shape import TileShape
from splat_numba.gen.writer import SourceWriter

VECTORS = 2  # vectors of queries in a register tile
SHIFT = ("", " + WIDTH")  # place of each vector behind ``lane``


def _behind(place: str, row: int) -> str:
    """Text of ``place + row``."""
    return f"({place} + {row})" if row else place


def _emit_register_tile(out: SourceWriter, rows: int, depth: str, left: str, left_step: str, right: str) -> None:
    """The inner loop: t{row}_{vector} += left{row}[x] * right[x], x below ``depth``; one operand scalar, one vector."""
    with out.block(f"for x in range({depth})"):
        for vector in range(VECTORS):
            out.line(f"b{vector} = load({right}, x * TILE_Q + lane{SHIFT[vector]})")
        for row in range(rows):
            out.line(f"a = splat(element({left}{row}, x * {left_step}))")
            for vector in range(VECTORS):
                out.line(f"t{row}_{vector} = fma(a, b{vector}, t{row}_{vector})")


def _emit_score_rows(out: SourceWriter, shape: TileShape, rows: int) -> None:
    """Scores of ``rows`` keys from ``key`` on against all queries of the tile."""
    for row in range(rows):
        out.line(f"k{row} = advance(k, {_behind('key', row)} * key_stride)")
    with out.block(f"for lane in range(0, {shape.tile_q}, {VECTORS} * WIDTH)"):
        names = [f"t{row}_{vector}" for row in range(rows) for vector in range(VECTORS)]
        out.line(" = ".join([*names, "splat(real(0.0))"]))
        _emit_register_tile(out, rows, str(shape.head_dim), "k", "dim_stride", "queries")
        for row in range(rows):
            for vector in range(VECTORS):
                place = f"{_behind('key', row)} * TILE_Q + lane{SHIFT[vector]}"
                out.line(f"store(scores, {place}, t{row}_{vector})")


def emit_score_tile(out: SourceWriter, shape: TileShape) -> None:
    """multiply_keys: scores[key, lane] of the first ``count`` keys at pointer ``k``."""
    rows = shape.rows
    with out.function(
        FUNCTION,
        f"multiply_keys_{shape.suffix}(k, key_stride, dim_stride, count, queries, scores)",
        f"scores[key, lane] = sum over x of k[key, x] * queries[x, lane], {rows} keys at a time.",
    ):
        out.line(f"TILE_Q = {shape.tile_q}")
        with out.block(f"if count < {rows}"):
            with out.block("for key in range(count)"):
                _emit_score_rows(out, shape, 1)
            out.line("return")
        with out.block(f"for start in range(0, count, {rows})"):
            out.line(
                f"key = min(start, count - {rows})  # the last group overlaps its neighbour: same keys, same scores"
            )
            _emit_score_rows(out, shape, rows)


def _emit_value_rows(out: SourceWriter, shape: TileShape, rows: int) -> None:
    """``rows`` value dimensions from ``dim`` on, over all queries of the tile."""
    for row in range(rows):
        out.line(f"v{row} = advance(v, {_behind('dim', row)} * dim_stride)")
    with out.block(f"for lane in range(0, {shape.tile_q}, {VECTORS} * WIDTH)"):
        for vector in range(VECTORS):
            out.line(f"scale = load(alpha, lane{SHIFT[vector]})")
            for row in range(rows):
                place = f"{_behind('dim', row)} * TILE_Q + lane{SHIFT[vector]}"
                out.line(f"t{row}_{vector} = load(total, {place}) * scale")
        _emit_register_tile(out, rows, "count", "v", "key_stride", "weights")
        for row in range(rows):
            for vector in range(VECTORS):
                place = f"{_behind('dim', row)} * TILE_Q + lane{SHIFT[vector]}"
                out.line(f"store(total, {place}, t{row}_{vector})")


def emit_value_tile(out: SourceWriter, shape: TileShape) -> None:
    """multiply_values: total[dim, lane] rescaled, plus the weighted values of ``count`` keys at pointer ``v``."""
    rows = shape.rows
    whole = shape.value_dim - shape.value_dim % rows
    with out.function(
        FUNCTION,
        f"multiply_values_{shape.suffix}(v, key_stride, dim_stride, count, weights, alpha, total)",
        "total[x, lane] = alpha[lane] * total[x, lane] + sum over key of v[key, x] * weights[key, lane].",
    ):
        out.line(f"TILE_Q = {shape.tile_q}")
        if whole:
            with out.block(f"for dim in range(0, {whole}, {rows})"):
                _emit_value_rows(out, shape, rows)
        if shape.value_dim % rows:
            out.line(f"dim = {whole}")
            _emit_value_rows(out, shape, shape.value_dim % rows)
