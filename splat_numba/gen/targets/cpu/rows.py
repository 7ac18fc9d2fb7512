"""What happens to a row block before and after its tiles: queries in, state of an earlier pass in, results out.

Rows lie along memory, lanes across it: blocks of WIDTH x WIDTH numbers are transposed in registers. Number by number
the same took 1.1 ns each, a third of the whole time of a mask that keeps few pairs a row.
"""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.prelude import FUNCTION, LN_2, LOG2_E, from_storage, to_storage
from splat_numba.gen.targets.cpu.shape import TileShape

RESULT = "out, row_stride, dim_stride, lse, lse_stride"


def _emit_squares(out: SourceWriter, shape: TileShape, dtype: str, factor: str, steps: tuple[str, ...]) -> None:
    """Squares of numbers side by side that need no conversion; ``whole`` dims are done so. factor: of all lanes, if
    any; steps: of a square, whose type ``empty`` has, as Python of ``lane`` and ``x``.
    """
    out.line("whole = 0")
    if dtype != shape.compute_dtype:
        return
    names, values = (", factor", f", splat({factor})") if factor else ("", "")
    with out.block("if dim_stride == 1"):
        out.line(f"whole, zero{names} = dims - dims % WIDTH, splat(real(0.0)){values}")
        out.line(f"empty = ({', '.join(['zero'] * shape.width)})")
        with (
            out.block(f"for lane in range(0, {shape.tile_q}, WIDTH)"),
            out.block("for x in range(0, whole, WIDTH)"),
        ):
            for step in steps:
                out.line(step)


def emit_rows_to_lanes(out: SourceWriter, shape: TileShape, dtype: str) -> None:
    """rows_to_lanes: tile[x, lane] = scale * source[row, x]. Lanes without a row repeat the first row."""
    with out.function(
        FUNCTION,
        f"rows_to_lanes_{dtype}_{shape.tile_q}(source, row_stride, dim_stride, rows, dims, scale, tile)",
        "tile[x, lane] = scale * source[rows[lane], x]; a lane without a row repeats the first row.",
    ):
        steps = (
            "square = transpose(gather_rows(empty, advance(source, x), row_stride, rows, lane))",
            f"store_each(times(square, factor), advance(tile, x * {shape.tile_q} + lane), {shape.tile_q})",
        )
        _emit_squares(out, shape, dtype, "scale", steps)
        with out.block(f"for lane in range({shape.tile_q})"):
            out.line("here = advance(source, row_of(rows, lane) * row_stride)")
            with out.block("for x in range(whole, dims)"):
                value = from_storage(dtype, "element(here, x * dim_stride)")
                out.line(f"assign(tile, x * {shape.tile_q} + lane, real({value} * scale))")


def emit_lanes_to_rows(out: SourceWriter, shape: TileShape, dtype: str) -> None:
    """lanes_to_rows: target[row, x] = factor[lane] * tile[x, lane], exactly 0 where the factor is."""
    with out.function(
        FUNCTION,
        f"lanes_to_rows_{dtype}_{shape.tile_q}(tile, factor, target, row_stride, dim_stride, rows, dims)",
        "target[rows[lane], x] = factor[lane] * tile[x, lane]; 0 where factor is, whatever the tile holds.",
    ):
        steps = (
            f"square = load_each(empty, advance(tile, x * {shape.tile_q} + lane), {shape.tile_q})",
            "square = transpose(times_or_zero(square, load(factor, lane)))",
            "scatter_rows(square, advance(target, x), row_stride, rows, lane)",
        )
        _emit_squares(out, shape, dtype, "", steps)
        with out.block(f"for lane in range({shape.tile_q})"):
            out.line("row, f = element(rows, lane), element(factor, lane)")
            with out.block("if row >= 0"):
                out.line("here = advance(target, row * row_stride)")
                with out.block("for x in range(whole, dims)"):
                    out.line(f"value = real(element(tile, x * {shape.tile_q} + lane) * f)")
                    out.line("value = real(0.0) if f == real(0.0) else value")
                    out.line(f"assign(here, x * dim_stride, {to_storage(dtype, 'value')})")


def emit_reset(out: SourceWriter, shape: TileShape) -> None:
    """reset: a row block that has seen no key yet."""
    with out.function(
        FUNCTION,
        f"reset_{shape.suffix}(maxima, sums, total)",
        "Nothing seen: the smallest maximum, sum 0, total 0.",
    ):
        with out.block(f"for lane in range(0, {shape.tile_q}, WIDTH)"):
            out.line("store(maxima, lane, splat(LOWEST))")
            out.line("store(sums, lane, splat(real(0.0)))")
        with out.block(f"for place in range(0, {shape.value_dim * shape.tile_q}, WIDTH)"):
            out.line("store(total, place, splat(real(0.0)))")


def emit_resume(out: SourceWriter, shape: TileShape, out_dtype: str) -> None:
    """resume: take up the softmax where an earlier pass left it: out and lse are a sum of 1 at maximum lse."""
    with out.function(
        FUNCTION,
        f"resume_{shape.suffix}({RESULT}, rows, maxima, sums, total)",
        "The state that (out, lse) of an earlier pass stands for: total = out, sum 1, maximum lse in base 2.",
    ):
        transfer = f"rows_to_lanes_{out_dtype}_{shape.tile_q}"
        out.line(f"{transfer}(out, row_stride, dim_stride, rows, {shape.value_dim}, real(1.0), total)")
        with out.block(f"for lane in range({shape.tile_q})"):
            out.line("last = element(lse, row_of(rows, lane) * lse_stride)")
            out.line(f"top = real(last * real({LOG2_E!r}))")
            out.line("assign(maxima, lane, LOWEST if top < LOWEST else top)")
            out.line("assign(sums, lane, real(0.0) if last == real(-np.inf) else real(1.0))")


def emit_store(out: SourceWriter, shape: TileShape, out_dtype: str) -> None:
    """store_rows: out = total / sum, lse = maximum + log(sum); a row that attends to nothing gives 0 and -inf."""
    with out.function(
        FUNCTION,
        f"store_rows_{shape.suffix}({RESULT}, rows, maxima, sums, inverse, total)",
        "out[row] = total / sum and lse[row] = maximum + log(sum); an empty row gives 0 and -inf.",
    ):
        with out.block(f"for lane in range({shape.tile_q})"):
            out.line("row, weight = element(rows, lane), element(sums, lane)")
            out.line("empty = weight == real(0.0)")
            out.line("assign(inverse, lane, real(0.0) if empty else real(1.0) / weight)")
            with out.block("if row >= 0"):
                out.line(f"log_sum = element(maxima, lane) * real({LN_2!r}) + math.log(weight)")
                out.line("assign(lse, row * lse_stride, real(-np.inf) if empty else real(log_sum))")
        transfer = f"lanes_to_rows_{out_dtype}_{shape.tile_q}"
        out.line(f"{transfer}(total, inverse, out, row_stride, dim_stride, rows, {shape.value_dim})")


def emit_stage(out: SourceWriter, shape: TileShape) -> None:
    """stage: a tile of keys (or values) in the compute type, as packed rows."""
    with (
        out.function(
            FUNCTION,
            f"stage_{shape.suffix}(source, key_stride, dim_stride, count, dims, staged)",
            "staged[key, x] = source[key, x] in the compute type.",
        ),
        out.block("for key in range(count)"),
    ):
        out.line("here = advance(source, key * key_stride)")
        _emit_stage_row(out, shape)


def emit_gather(out: SourceWriter, shape: TileShape) -> None:
    """gather: as stage, for keys listed one by one."""
    with (
        out.function(
            FUNCTION,
            f"gather_{shape.suffix}(source, key_stride, dim_stride, cols, count, dims, staged)",
            "staged[key, x] = source[cols[key], x] in the compute type.",
        ),
        out.block("for key in range(count)"),
    ):
        out.line("here = advance(source, element(cols, key) * key_stride)")
        _emit_stage_row(out, shape)


def _emit_stage_row(out: SourceWriter, shape: TileShape) -> None:
    out.line("whole = 0")
    if not shape.staged:
        with out.block("if dim_stride == 1"):
            out.line("whole = dims - dims % WIDTH")
            with out.block("for x in range(0, whole, WIDTH)"):
                out.line("store(staged, key * dims + x, load(here, x))")
    with out.block("for x in range(whole, dims)"):
        value = from_storage(shape.dtype, "element(here, x * dim_stride)")
        out.line(f"assign(staged, key * dims + x, {value})")
