"""What a tensor-core product has summed up, to where it belongs: as simt's, once a lane has four numbers of a row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.simt.product_results import emit_finished_four, emit_result_start
from flurka_numba.targets.sm80.product_tiles import AnyShape
from splat_numba.gen.language.lane_layout import ATOM, MATRIX, ROW_LANES, SUMS
from splat_numba.gen.targets.gpu.parts import KernelWriter

FOUR = [f"four_{i}" for i in range(QUAD)]


def emit_results(out: KernelWriter, traits: AnyShape) -> None:
    """The tile, or this block's share of it as it is. ``warp_row``, ``warp_column``: where a warp's part begins."""
    emit_lane(out)
    with out.block("if shares > u32(1)"), out.part("store_share", "This block's share of the tile, as it is."):
        out.line("pairs = u64(ptx.grid_size() // (shares * tiles_of_pair))")
        out.line("part = parts + (u64(share) * pairs + u64(pair)) * u64(rows) * u64(part_row)")
        _emit_sixteens(out, traits, "store_sixteen_of_share", partial(_emit_share, out))
    with out.block("if shares == u32(1)"):
        emit_tile(out, traits)


def emit_lane(out: KernelWriter) -> None:
    """Which numbers of a tile are a lane's."""
    out.lines(
        f"""
        odd = u32(lane & u32(1))
        row_of_lane = u32(warp_row + u32(lane // u32({ROW_LANES})) + u32({MATRIX}) * odd)
        of_lane = u32(first_column + warp_column + u32(u32(lane & u32({ROW_LANES - 1})) >> u32(1)) * u32({QUAD}))
        """
    )


def emit_tile(out: KernelWriter, traits: AnyShape) -> None:
    """The tile of the result that begins at ``first_row``."""
    with out.part("store_tile", "The tile of the result."):
        if traits.end:
            traits.end.emit_rows(out, traits.sums)
        emit_result_start(out)
        out.line("from_result = result + u64(entry) * result_batch + u64(head) * result_head")
        out.line("from_addend = addend + u64(entry) * addend_batch + u64(head) * addend_head")
        _emit_sixteens(out, traits, "store_sixteen", partial(_emit_finished, out, traits))


def _emit_sixteens(out: KernelWriter, traits: AnyShape, name: str, emit_four: Callable[[], None]) -> None:
    """What is done with each four of a warp's sums, at ``row``, before ``rows_end``, in the eight ``j`` of all sums.

    A loop has the eights of one sixteen of rows: one of all is too long for the compiler to have sums in registers.
    """
    eights = traits.warp_columns // MATRIX
    for atom in range(traits.atoms):
        given = {"row": f"u32(first_row + row_of_lane + u32({ATOM * atom}))", "first_eight": str(eights * atom)}
        with out.part(name, "A warp's sums of sixteen rows.", **given):
            out.line("rows_end = u32(1) if row < rows else u32(0)")
            with out.block(f"for eight in range({eights})"):
                out.line("j = first_eight + eight")
                emit_four()


def _emit_share(out: KernelWriter) -> None:
    _emit_four(out)
    to = "part + u64(row) * u64(part_row) + u64(4) * u64(column)"
    out.line(f"ptx.store_reals4({to}, {', '.join(FOUR)}, when)")


def _emit_finished(out: KernelWriter, traits: AnyShape) -> None:
    _emit_four(out, traits.end.not_stored if traits.end else 0)
    if traits.end:
        traits.end.emit_number(out, FOUR)
    emit_finished_four(out, traits.result, FOUR)


def _emit_four(out: KernelWriter, not_stored: int = 0) -> None:
    """Neighbouring lanes have two numbers each of two rows: each gets the four of one. not_stored: last columns."""
    name = "take_four_stored" if not_stored else "take_four"
    with out.part(name, "Of eight columns a lane's four numbers of one row, two of which its neighbour had."):
        for x in (0, 1):
            here, there = (f"total[{SUMS} * j + {2 * row + x}]" for row in (0, 1))
            out.line(f"own_{x} = ptx.select_real({there}, {here}, odd)")
            out.line(f"got_{x} = ptx.shuffle_xor(ptx.select_real({here}, {there}, odd), u32(1))")
        for i, name in enumerate(FOUR):
            first, second = ("own", "got") if i < 2 else ("got", "own")
            out.line(f"{name} = ptx.select_real({second}_{i % 2}, {first}_{i % 2}, odd)")
        out.line(f"column = u32(of_lane + u32({MATRIX}) * u32(eight))")
        end = f"u32(columns - u32({not_stored}))" if not_stored else "columns"
        out.line(f"when = rows_end if column < {end} else u32(0)")
