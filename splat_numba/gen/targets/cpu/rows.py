"""What happens to a row block before and after its tiles: queries in, state of an earlier pass in, results out."""

from __future__ import annotations

from splat_numba.gen.writer import SourceWriter
from splat_numba.gen.targets.cpu.prelude import FUNCTION, from_storage, to_storage
from splat_numba.gen.targets.cpu.shape import TileShape


def emit_load_queries(out: SourceWriter, shape: TileShape) -> None:
    """load_queries: queries[x, lane] = scale * q[row, x]; lanes without a row hold zeros."""
    out.line()
    out.line()
    out.line(FUNCTION)
    with out.block(f"def load_queries_{shape.suffix}(q, row_stride, dim_stride, rows, scale, queries)"):
        out.line('"""queries[x, lane] = scale * q[rows[lane], x]; zero where rows[lane] is negative."""')
        out.line(f"TILE_Q = {shape.tile_q}")
        with out.block("for lane in range(TILE_Q)"):
            out.line("row = element(rows, lane)")
            with out.block("if row < 0"), out.block(f"for x in range({shape.head_dim})"):
                out.line("assign(queries, x * TILE_Q + lane, real(0.0))")
            with out.block("else"):
                out.line("here = advance(q, row * row_stride)")
                with out.block(f"for x in range({shape.head_dim})"):
                    value = from_storage(shape.dtype, "element(here, x * dim_stride)")
                    out.line(f"assign(queries, x * TILE_Q + lane, real({value} * scale))")


def emit_reset(out: SourceWriter, shape: TileShape) -> None:
    """reset: a row block that has seen no key yet."""
    out.line()
    out.line()
    out.line(FUNCTION)
    with out.block(f"def reset_{shape.suffix}(maxima, sums, total)"):
        out.line('"""Nothing seen: maximum -inf, sum 0, total 0."""')
        with out.block(f"for lane in range({shape.tile_q})"):
            out.line("assign(maxima, lane, real(-np.inf))")
            out.line("assign(sums, lane, real(0.0))")
        with out.block(f"for place in range({shape.value_dim * shape.tile_q})"):
            out.line("assign(total, place, real(0.0))")


def emit_resume(out: SourceWriter, shape: TileShape, out_dtype: str) -> None:
    """resume: take up the softmax where an earlier pass left it: out and lse are a sum of 1 at maximum lse."""
    out.line()
    out.line()
    out.line(FUNCTION)
    header = f"def resume_{shape.suffix}(out, row_stride, dim_stride, lse, lse_stride, rows, maxima, sums, total)"
    with out.block(header):
        out.line(
            '"""The state that (out, lse) of an earlier pass stands for: total = out, sum 1, maximum lse in base 2."""'
        )
        out.line(f"TILE_Q = {shape.tile_q}")
        with out.block("for lane in range(TILE_Q)"):
            out.line("row = element(rows, lane)")
            out.line("last = real(-np.inf) if row < 0 else element(lse, max(row, 0) * lse_stride)")
            out.line("seen = last != real(-np.inf)")
            out.line(f"assign(maxima, lane, real(last * real({LOG2_E!r})))")
            out.line("assign(sums, lane, real(1.0) if seen else real(0.0))")
            with out.block(f"for x in range({shape.value_dim})"):
                value = from_storage(out_dtype, "element(out, row * row_stride + x * dim_stride)")
                out.line(f"assign(total, x * TILE_Q + lane, {value} if seen else real(0.0))")


def emit_store(out: SourceWriter, shape: TileShape, out_dtype: str) -> None:
    """store_rows: out = total / sum, lse = maximum + log(sum); a row that attends to nothing gives 0 and -inf."""
    out.line()
    out.line()
    out.line(FUNCTION)
    header = f"def store_rows_{shape.suffix}(out, row_stride, dim_stride, lse, lse_stride, rows, maxima, sums, total)"
    with out.block(header):
        out.line('"""out[row] = total / sum and lse[row] = maximum + log(sum); an empty row gives 0 and -inf."""')
        out.line(f"TILE_Q = {shape.tile_q}")
        with out.block("for lane in range(TILE_Q)"):
            out.line("row = element(rows, lane)")
            with out.block("if row >= 0"):
                out.line("weight = element(sums, lane)")
                out.line("empty = weight == real(0.0)")
                out.line("inverse = real(1.0) / weight")
                out.line("here = advance(out, row * row_stride)")
                with out.block(f"for x in range({shape.value_dim})"):
                    # A choice, not a product with 0: the total of an empty row may hold 0 x NaN.
                    out.line("value = real(0.0) if empty else real(element(total, x * TILE_Q + lane) * inverse)")
                    out.line(f"assign(here, x * dim_stride, {to_storage(out_dtype, 'value')})")
                out.line(f"log_sum = element(maxima, lane) * real({LN_2!r}) + math.log(weight)")
                out.line("assign(lse, row * lse_stride, real(-np.inf) if empty else real(log_sum))")


def emit_stage(out: SourceWriter, shape: TileShape) -> None:
    """stage: a tile of keys (or values) converted to the compute type, or gathered by address, into packed rows."""
    out.line()
    out.line()
    out.line(FUNCTION)
    with out.block(f"def stage_{shape.suffix}(source, key_stride, dim_stride, count, dims, staged)"):
        out.line('"""staged[key, x] = source[key, x] in the compute type."""')
        with out.block("for key in range(count)"):
            out.line("here = advance(source, key * key_stride)")
            with out.block("for x in range(dims)"):
                value = from_storage(shape.dtype, "element(here, x * dim_stride)")
                out.line(f"assign(staged, key * dims + x, {value})")


def emit_gather(out: SourceWriter, shape: TileShape) -> None:
    """gather: as stage, for keys listed one by one."""
    out.line()
    out.line()
    out.line(FUNCTION)
    with out.block(f"def gather_{shape.suffix}(source, key_stride, dim_stride, cols, count, dims, staged)"):
        out.line('"""staged[key, x] = source[cols[key], x] in the compute type."""')
        with out.block("for key in range(count)"):
            out.line("here = advance(source, element(cols, key) * key_stride)")
            with out.block("for x in range(dims)"):
                value = from_storage(shape.dtype, "element(here, x * dim_stride)")
                out.line(f"assign(staged, key * dims + x, {value})")


LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453
