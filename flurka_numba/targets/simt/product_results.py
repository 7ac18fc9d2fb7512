"""What a product has summed up, to where it belongs: shared by products and by what adds up their shares."""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.simt.product_shape import LIMITS, ProductShape
from flurka_numba.targets.simt.text import emit_four, emit_length_here
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.targets.gpu.parts import KernelWriter


def emit_results(out: KernelWriter, traits: ProductShape) -> None:
    """The tile, or this block's share of it as it is."""
    with out.block("if shares > u32(1)"), out.part("store_share", "This block's share of the tile, as it is."):
        out.line("pairs = u64(ptx.grid_size() // (shares * tiles_of_pair))")
        out.line("part = parts + (u64(share) * pairs + u64(pair)) * u64(rows) * u64(part_row)")
        for four in range(traits.thread_columns // QUAD):
            _emit_columns(out, traits, four)
            with out.block(f"for i in range({traits.thread_rows})"):
                _emit_row(out, traits)
                out.line("at = part + u64(row) * u64(part_row) + u64(4) * u64(column)")
                out.line(f"ptx.store_reals4(at, {', '.join(_totals(traits, four))}, when)")
    with out.block("if shares == u32(1)"), out.part("store_tile", "The tile of the result."):
        emit_result_start(out)
        out.line("from_result = result + u64(entry) * result_batch + u64(head) * result_head")
        out.line("from_addend = addend + u64(entry) * addend_batch + u64(head) * addend_head")
        for four in range(traits.thread_columns // QUAD):
            _emit_columns(out, traits, four)
            with out.block(f"for i in range({traits.thread_rows})"):
                _emit_row(out, traits)
                emit_finished_four(out, traits.result, _totals(traits, four))


def _totals(traits: ProductShape, four: int) -> list[str]:
    return [f"total[{traits.thread_columns} * i + {QUAD * four + j}]" for j in range(QUAD)]


def _emit_columns(out: KernelWriter, traits: ProductShape, four: int) -> None:
    """One of a thread's fours of columns."""
    apart = four * traits.column_hop
    out.lines(
        f"""
        column = u32(first_column + thread_column + u32({apart}))
        in_columns = u32(1) if column < columns else u32(0)
        rows_end = ptx.select(rows, u32(0), in_columns)
        """
    )


def _emit_row(out: KernelWriter, traits: ProductShape) -> None:
    """Loops have a row for i, four at a time."""
    apart = traits.row_hop
    out.line(f"row = u32(first_row + thread_row + u32(i // {QUAD}) * u32({apart}) + u32(i % {QUAD}))")
    out.line("when = u32(1) if row < rows_end else u32(0)")


def emit_result_start(out: KernelWriter) -> None:
    """``kept_end``: rows of the result from there on are 0."""
    out.line("kept_end = rows")
    with out.block("if kv_lengths != u64(0)"):
        emit_length_here(out, "entry")
        out.line(f"kept_end = length if limited == u32({LIMITS['rows']}) else rows")


def emit_finished_four(out: KernelWriter, dtype: str, totals: list[str]) -> None:
    """Four sums of products scaled, added onto what is there, limited and stored at ``row`` and ``column``."""
    given = {f"sum_{j}": total for j, total in enumerate(totals)}
    with out.part("store_four", "Four sums of products scaled, added onto what is there, limited and stored.", **given):
        _emit_finish(out)
        out.line(f"to = from_result + u64(row) * result_row + u64({ITEMSIZE[dtype]}) * u64(column)")
        emit_four(out, dtype, "to", [f"c_{j}" for j in range(QUAD)], "when")


def emit_finish_four(out: KernelWriter, totals: list[str]) -> None:
    """The same but for storing: ``c_0`` to ``c_3``."""
    given = {f"sum_{j}": total for j, total in enumerate(totals)}
    with out.part("finish_four", "Four sums of products scaled, added onto what is there, and limited.", **given):
        _emit_finish(out)


def _emit_finish(out: KernelWriter) -> None:
    """Of what is given."""
    for j in range(QUAD):
        out.line(f"c_{j} = sum_{j} * scale")
    with out.block("if addend != u64(0)"):
        out.line("at = from_addend + u64(row) * addend_row + u64(4) * u64(column)")
        out.line("at = at if when != u32(0) else addend")
        out.line("d_0, d_1, d_2, d_3 = ptx.load_reals4(at)")
        for j in range(QUAD):
            out.line(f"c_{j} += d_{j}")
    out.line("kept = u32(1) if row < kept_end else u32(0)")
    for j in range(QUAD):
        out.line(f"c_{j} = ptx.select_real(c_{j}, f32(0.0), kept)")
