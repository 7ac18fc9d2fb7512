"""The two matrix products of a tile, held in registers: scores = K Q^T and out^T = alpha * out^T + V^T P^T."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.prelude import FUNCTION
from splat_numba.gen.targets.cpu.shape import TileShape

VECTORS = 2  # vectors of queries in a register tile


def _cleared(rows: int) -> str:
    """Text of a register tile of zeros."""
    return f"({', '.join(['zero'] * (rows * VECTORS))})"


def _emit_score_rows(out: SourceWriter, shape: TileShape, rows: int) -> None:
    """Scores of ``rows`` keys from ``key`` on against all queries of the tile."""
    with out.block(f"for lane in range(0, {shape.tile_q}, {VECTORS} * WIDTH)"):
        out.line(f"tile = {_cleared(rows)}")
        with out.block(f"for x in range({shape.head_dim})"):
            left = "advance(k, key * key_stride + x * dim_stride), key_stride"
            out.line(f"tile = multiply_add(tile, {left}, advance(queries, x * {shape.tile_q} + lane))")
        out.line(f"store_tile(tile, advance(scores, key * {shape.tile_q} + lane), {shape.tile_q})")


def emit_score_tile(out: SourceWriter, shape: TileShape, name: str = "multiply_keys") -> None:
    """multiply_keys, or another name: scores[key, lane] of the first ``count`` keys at pointer ``k``."""
    rows = shape.rows
    with out.function(
        FUNCTION,
        f"{name}_{shape.suffix}(k, key_stride, dim_stride, count, queries, scores)",
        f"scores[key, lane] = sum over x of k[key, x] * queries[x, lane], {rows} keys at a time.",
    ):
        out.line("zero = splat(real(0.0))")
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
    with out.block(f"for lane in range(0, {shape.tile_q}, {VECTORS} * WIDTH)"):
        out.line(f"place = advance(total, dim * {shape.tile_q} + lane)")
        out.line(f"tile = load_scaled({_cleared(rows)}, place, {shape.tile_q}, advance(alpha, lane))")
        with out.block("for key in range(count)"):
            left = "advance(v, key * key_stride + dim * dim_stride), dim_stride"
            out.line(f"tile = multiply_add(tile, {left}, advance(weights, key * {shape.tile_q} + lane))")
        out.line(f"store_tile(tile, place, {shape.tile_q})")


def emit_value_tile(out: SourceWriter, shape: TileShape, name: str = "multiply_values") -> None:
    """multiply_values, or another name: total[dim, lane] rescaled, plus weighted values of ``count`` keys at ``v``."""
    rows = shape.rows
    whole = shape.value_dim - shape.value_dim % rows
    with out.function(
        FUNCTION,
        f"{name}_{shape.suffix}(v, key_stride, dim_stride, count, weights, alpha, total)",
        "total[x, lane] = alpha[lane] * total[x, lane] + sum over key of v[key, x] * weights[key, lane].",
    ):
        out.line("zero = splat(real(0.0))")
        if whole:
            with out.block(f"for dim in range(0, {whole}, {rows})"):
                _emit_value_rows(out, shape, rows)
        if shape.value_dim % rows:
            out.line(f"dim = {whole}")
            _emit_value_rows(out, shape, shape.value_dim % rows)
