"""What a tensor-core product has summed up, to where it belongs: as simt's, once a lane has four numbers of a row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.simt.product_results import emit_finish_four, emit_finished_four, emit_result_start
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
        _emit_sixteens(out, traits, "store_sixteen_of_share", partial(_emit_share, out, traits))
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


def _emit_sixteens(out: KernelWriter, traits: AnyShape, name: str, emit_eights: Callable[[], None]) -> None:
    """What is done with a warp's sums of each sixteen of rows, at ``row``, before ``rows_end``, from ``first_eight`` of
    all sums on. A loop has the eights of one sixteen: of all it is too long for the compiler to have sums in registers.
    """
    eights = traits.warp_columns // MATRIX
    for atom in range(traits.atoms):
        given = {"row": f"u32(first_row + row_of_lane + u32({ATOM * atom}))", "first_eight": str(eights * atom)}
        with out.part(name, "A warp's sums of sixteen rows.", **given):
            out.line("rows_end = u32(1) if row < rows else u32(0)")
            emit_eights()


def _emit_share(out: KernelWriter, traits: AnyShape) -> None:
    with out.block(f"for eight in range({traits.warp_columns // MATRIX})"):
        _emit_four(out)
        to = "part + u64(row) * u64(part_row) + u64(4) * u64(column)"
        out.line(f"ptx.store_reals4({to}, {', '.join(FOUR)}, when)")


def _emit_finished(out: KernelWriter, traits: AnyShape) -> None:
    if traits.result != "float32":
        _emit_finished_chunks(out, traits)
        return
    with out.block(f"for eight in range({traits.warp_columns // MATRIX})"):
        _emit_finished_sums(out, traits)
        emit_finished_four(out, traits.result, FOUR)


def _emit_finished_sums(out: KernelWriter, traits: AnyShape) -> None:
    """Of an eight, with what the end makes of them."""
    _emit_four(out, traits.end.not_stored if traits.end else 0)
    if traits.end:
        traits.end.emit_number(out, FOUR)


def _emit_finished_chunks(out: KernelWriter, traits: AnyShape) -> None:
    """Eight numbers of 16 bits a lane, so that a row's two lanes write 32 bytes: what memory writes at once."""
    with out.block(f"for two in range({traits.warp_columns // MATRIX // 2})"):
        for number in (0, 1):
            out.line(f"eight = 2 * two + {number}")
            _emit_finished_sums(out, traits)
            emit_finish_four(out, FOUR)
            words = (f"ptx.pack_{traits.result}(c_{i}, c_{i + 1})" for i in (0, 2))
            out.line(f"four_word_{2 * number}, four_word_{2 * number + 1} = {', '.join(words)}")
        with out.part("store_chunk", "A row's two lanes have eights of columns for the fours of two; they are stored."):
            out.line("far = u32(u32(lane >> u32(1)) & u32(1))")
            for i in (0, 1):
                out.line(f"near = ptx.select(four_word_{i}, four_word_{2 + i}, far)  # of the other lane's eight")
                out.line(f"got_{i} = ptx.shuffle_xor_word(near, u32(2))")
            for i in (0, 1):
                out.line(f"word_{i} = ptx.select(got_{i}, four_word_{i}, far)")
            for i in (0, 1):
                out.line(f"word_{2 + i} = ptx.select(four_word_{2 + i}, got_{i}, far)")
            out.line(f"column = u32(first_column + warp_column + u32({MATRIX}) * u32(u32(2 * two) + far))")
            out.line(f"when = rows_end if column < {_columns_end(traits)} else u32(0)")
            out.line("to = from_result + u64(row) * result_row + u64(2) * u64(column)")
            out.line("ptx.store_words4(to, word_0, word_1, word_2, word_3, when)")


def _columns_end(traits: AnyShape) -> str:
    """Where stored columns end."""
    return f"u32(columns - u32({traits.end.not_stored}))" if traits.end and traits.end.not_stored else "columns"


def _emit_four(out: KernelWriter, not_stored: int = 0) -> None:
    """Neighbouring lanes have two numbers each of two rows: each gets the four of one. not_stored: last columns."""
    name = "take_four_stored" if not_stored else "take_four"
    out.line("j = first_eight + eight")
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
