"""Text of the functions that move and multiply tiles: matrices in scratch, rows ``apart`` numbers apart."""

from __future__ import annotations

from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter

VECTORS = 2  # of a register tile's row, as in splat_numba.runtime.tiles
DTYPES = tuple(ITEMSIZE)
HALVES = ("float16", "bfloat16")


def emit_stage(out: SourceWriter, _plan: CpuPlan, dtype: str) -> None:
    """stage_<dtype>: numbers of any dtype, at any strides, into a tile."""
    value = "element(here, x * dim_stride)"
    out.line(f'read_{dtype} = reader("{dtype}", WIDTH, WIDTH, True)')
    with out.function(
        FUNCTION,
        f"stage_{dtype}(source, row_stride, dim_stride, rows, dims, target, apart)",
        "target[row, x] = source[row, x] in the compute type.",
    ):
        out.line("whole = dims - dims % WIDTH if dim_stride == 1 else 0")
        with out.block("for row in range(rows)"):
            out.line("here, there = advance(source, row * row_stride), advance(target, row * apart)")
            with out.block("for x in range(0, whole, WIDTH)"):
                out.line(f"store(there, x, read_{dtype}(here, x, 1))")
            with out.block("for x in range(whole, dims)"):
                out.line(f"assign(there, x, {f'from_{dtype}({value})' if dtype in HALVES else value})")


def emit_store(out: SourceWriter, _plan: CpuPlan, dtype: str) -> None:
    """store_<dtype>: a tile into an array of any dtype, at any strides."""
    value = "element(here, x)"
    with out.function(
        FUNCTION,
        f"store_{dtype}(tile, apart, rows, dims, target, row_stride, dim_stride)",
        "target[row, x] = tile[row, x], rounded to the stored type.",
    ):
        out.line(f"whole = {'0' if dtype in HALVES else 'dims - dims % WIDTH if dim_stride == 1 else 0'}")
        with out.block("for row in range(rows)"):
            out.line("here, there = advance(tile, row * apart), advance(target, row * row_stride)")
            if dtype not in HALVES:
                with out.block("for x in range(0, whole, WIDTH)"):
                    out.line("store(there, x, load(here, x))")
            with out.block("for x in range(whole, dims)"):
                out.line(f"assign(there, x * dim_stride, {f'to_{dtype}({value})' if dtype in HALVES else value})")


def emit_padded(out: SourceWriter, plan: CpuPlan) -> None:
    """padded: as CpuPlan's."""
    with out.function(FUNCTION, "padded(size)", "The size, rounded up to whole register tiles."):
        out.line(f"return (size + {plan.unit - 1}) // {plan.unit} * {plan.unit}")


def emit_clear(out: SourceWriter, _plan: CpuPlan) -> None:
    """clear: zeros."""
    with (
        out.function(FUNCTION, "clear(target, count)", "Zeros; count is a multiple of WIDTH."),
        out.block("for place in range(0, count, WIDTH)"),
    ):
        out.line("store(target, place, splat(real(0.0)))")


def emit_add_rows(out: SourceWriter, _plan: CpuPlan) -> None:
    """add_rows: the sum of a tile's rows."""
    with (
        out.function(FUNCTION, "add_rows(tile, rows, size, total)", "total[x] += sum over row of tile[row, x]."),
        out.block("for x in range(0, size, WIDTH)"),
    ):
        out.line("value = load(total, x)")
        with out.block("for row in range(rows)"):
            out.line("value = value + load(tile, row * size + x)")
        out.line("store(total, x, value)")


def emit_spread_row(out: SourceWriter, _plan: CpuPlan) -> None:
    """spread_row: one row, in every row of a tile."""
    with (
        out.function(FUNCTION, "spread_row(row, rows, size, tile)", "tile[each] = row."),
        out.block("for each in range(rows)"),
        out.block("for x in range(0, size, WIDTH)"),
    ):
        out.line("store(tile, each * size + x, load(row, x))")


def emit_scale_rows(out: SourceWriter, _plan: CpuPlan) -> None:
    """scale_rows: every row of a tile times its factor."""
    docstring = "tile[row] *= factor[row]; exactly 0 where the factor is, whatever the tile holds."
    with (
        out.function(FUNCTION, "scale_rows(tile, apart, rows, factor)", docstring),
        out.block("for row in range(rows)"),
    ):
        out.line("here, f, zero = advance(tile, row * apart), splat(element(factor, row)), splat(real(0.0))")
        with out.block("for x in range(0, apart, WIDTH)"):
            out.line("store(here, x, select(f == zero, zero, load(here, x) * f))")


def emit_multiply(out: SourceWriter, plan: CpuPlan, *, onto: bool) -> None:
    """multiply, multiply_onto: the product that all the time goes into.

    Sizes are arguments: 247 GFLOP/s of one Zen 5 core's 260 for 256 x 128 x 64 numbers, with literals 249.
    """
    rows = plan.rows
    name, sign = ("multiply_onto", "+=") if onto else ("multiply", "=")
    cleared = f"({', '.join(['zero'] * (rows * VECTORS))})"
    start = f"load_tile({cleared}, place, apart)" if onto else cleared
    with out.function(
        FUNCTION,
        f"{name}(left, row_step, step, rows, depth, right, cols, target, apart)",
        f"target[row, col] {sign} sum over x of left[row * row_step + x * step] * right[x, col]; whole register tiles.",
    ):
        out.line("zero = splat(real(0.0))")
        with (
            out.block(f"for col in range(0, cols, {VECTORS} * WIDTH)"),
            out.block(f"for row in range(0, rows, {rows})"),
        ):
            out.line("place = advance(target, row * apart + col)")
            out.line(f"tile = {start}")
            with out.block("for x in range(depth)"):
                factor = "advance(left, row * row_step + x * step), row_step"
                out.line(f"tile = multiply_add(tile, {factor}, advance(right, x * cols + col))")
            out.line("store_tile(tile, place, apart)")
