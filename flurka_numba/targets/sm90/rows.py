"""Rows of 16-bit numbers between memory and registers, as the stages that go along a sequence have them.

A tile is 64 rows. A lane has two of them, and of every chunk of 32 columns 8 adjacent ones, which are 16 bytes: columns
8 t to 8 t + 7 for lane t of the row's four; word 4 (2 chunk + row) + i holds columns 8 t + 2 i and the next. As the
left operand of a product, place 16 s + 8 h + 2 t + x of a chunk then is column 8 t + 4 s + 2 h + x. In a product's
result, if the right operand's rows stand in the same order, 4 (4 chunk + i) + 2 row + x is column 8 t + 2 i + x.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import LANE, OCTET, QUAD, QUAD_BYTES, WARP_OF_BLOCK
from flurka_numba.targets.powers import emit_scale
from flurka_numba.targets.sm90.lanes import (
    CHUNK,
    CHUNK_WORDS,
    COLUMN_OF_WORD,
    LANE_OF_ROW,
    LANE_ROW,
    LANES_OF_ROW,
    first_word,
    words_of_chunk,
)
from flurka_numba.targets.sm90.scales import TOP
from flurka_numba.targets.sm90.shape import chunks
from splat_numba.gen.language.lane_layout import ATOM, LANE_ROWS, LEFT_WORDS, MATRIX
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import GROUP


def emit_lane(out: SourceWriter) -> None:
    """Names for a lane's rows and columns."""
    out.lines(
        f"""
        lane = u32{LANE}
        eighth = u32({LANE_OF_ROW} * u32({OCTET}))
        row_in_tile = u32({WARP_OF_BLOCK} * u32({ATOM}) + {LANE_ROW})  # and the row {MATRIX} further on
        """
    )


def emit_tiles(out: KernelWriter, rows: str) -> None:
    """``pair`` (``entry`` and ``head``) and the tiles of 64 rows, from ``tile`` to ``last``, that are this block's."""
    with out.part("find_tiles", "Which head is this block's, and which of its tiles."):
        out.lines(
            f"""
            block = ptx.block_index()
            pair = u32(block // blocks)
            tile = u32((block - pair * blocks) * tiles_of_block)
            last = u32(min(tile + tiles_of_block, ({rows} + u32({GROUP - 1})) // u32({GROUP})))
            entry = u32(pair // heads)
            head = u32(pair - entry * heads)
            """
        )


def emit_barrier(out: KernelWriter) -> None:
    """The barrier ``full``, for copies that one thread has begun."""
    with out.part("make_barrier", "The barrier of one phase's copies, before anybody uses it."):
        out.lines(
            """
            if thread == u32(0):
                ptx.mbarrier_init(full, u32(1))
                ptx.fence_mbarrier_init()
            ptx.block_barrier()
            """
        )


def words(dim: int) -> int:
    """Registers of a thread for the rows of a tile."""
    return CHUNK_WORDS * chunks(dim)


def emit_load(out: KernelWriter, source: str, dim: int, rows: int | str, to: str) -> None:
    """``to``[...]: the lane's numbers of the rows from ``first_row`` on, 0 at or beyond ``rows`` and the last column.

    source: a name, with ``source``_at (address of the lane's columns of row 0) and ``source``_row (bytes of a row).
    """
    with out.part(f"load_{source}", "A lane's numbers of a tile's two rows, 0 beyond the last row or column."):
        for row in range(LANE_ROWS):
            out.line(f"row_{row} = u32(first_row + row_in_tile + u32({MATRIX * row}))")
            out.line(f"real_{row} = u32(1) if row_{row} < {rows} else u32(0)")
            for chunk in range(chunks(dim)):
                names = words_of_chunk(to, chunk, row)
                at = f"{source}_at + u64(row_{row}) * {source}_row + u64({2 * CHUNK * chunk})"
                out.line(f"{names} = ptx.load_words4_when({at}, {when(f'real_{row}', chunk, dim)})")


def emit_store(out: KernelWriter, target: str, dim: int, source: str) -> None:
    """Write the lane's words of both rows, as emit_load() reads them."""
    with out.part(f"store_{target}", "A lane's words of both rows."):
        for row in range(LANE_ROWS):
            for chunk in range(chunks(dim)):
                four = words_of_chunk(source, chunk, row)
                at = f"{target}_at + u64(row_{row}) * {target}_row + u64({2 * CHUNK * chunk})"
                out.line(f"ptx.store_words4({at}, {four}, {when(f'real_{row}', chunk, dim)})")


def emit_spread(out: KernelWriter, target: str, dim: int, source: str) -> None:
    """Write the words of both rows once more, as emit_load() reads them, with the columns of each chunk in the order in
    which a product that has them as its own leaves a lane eight adjacent ones: place 8 i + 2 t + x has column
    8 t + 2 i + x. ``target``_at: the address of row 0's chunk 0 and 4 t bytes.
    """
    with out.part(
        f"store_{target}",
        "A lane's words of both rows, columns in the order in which products leave eight adjacent ones.",
    ):
        for row in range(LANE_ROWS):
            for chunk in range(chunks(dim)):
                for i in range(QUAD):
                    at = f"{target}_at + u64(row_{row}) * {target}_row + u64({2 * CHUNK * chunk + QUAD_BYTES * i})"
                    word = f"{source}[{first_word(chunk, row) + i}]"
                    out.line(f"ptx.store_word({at}, {word}, {when(f'real_{row}', chunk, dim)})")


def when(real: str, chunk: int, dim: int) -> str:
    """Whether a lane's columns of a chunk are there."""
    if CHUNK * (chunk + 1) <= dim:
        return real
    return f"{real} if eighth < u32({dim - CHUNK * chunk}) else u32(0)"


def emit_share(
    out: SourceWriter, name: str, total: str, denominator: str, eps: float, scale: str | None = None
) -> None:
    """``name``: 1 / denominator of a row, whose sum is ``total``; 0 where that is 0. denominator: see Problem. scale:
    what the sum has been multiplied with, as text, and so has the denominator then.
    """
    out.line(f"divisor = {total}")
    least = f"f32({eps!r})"
    if scale and uses_eps(denominator, eps):
        out.line(f"least = f32({eps!r}) * {scale}")
        least = "least"
    if denominator == "plus_eps" and eps:
        out.line(f"divisor = divisor + {least}")
    if denominator == "guarded":
        out.line(f"signed = -{least} if divisor < f32(0.0) else {least}")
        out.line(f"divisor = signed if -{least} < divisor and divisor < {least} else divisor  # NaN stays")
    out.line(f"{name} = ptx.reciprocal(divisor) if divisor != f32(0.0) else f32(0.0)")


def uses_eps(denominator: str, eps: float) -> bool:
    """Whether a row's divisor is not its sum alone."""
    return denominator == "guarded" or (denominator == "plus_eps" and eps > 0.0)


def emit_real_columns(out: SourceWriter, dim: int, names: tuple[str, str]) -> None:
    """In a loop over words i: 0 for columns behind the last, where a row ends within 16 bytes and NaN may follow."""
    if dim % OCTET == 0:
        return
    for x, name in enumerate(names):
        kept = f"u32(1) if {COLUMN_OF_WORD} < u32({dim - x}) else u32(0)"
        out.line(f"{name} = ptx.select_real({name}, f32(0.0), {kept})")


def left_operand(name: str, chunk: int, step: int) -> str:
    """The four words of a product's step of 16 columns."""
    row_0, row_1 = (first_word(chunk, row) + LEFT_WORDS // LANE_ROWS * step for row in range(LANE_ROWS))
    return ", ".join(f"{name}[{i}]" for i in (row_0, row_1, row_0 + 1, row_1 + 1))


def emit_row_scales(out: SourceWriter, numbers: str, first: str, words: int, row_1: str) -> None:
    """``row_scale_0`` and ``row_scale_1``: the scales of two rows' features, of which four lanes have one.

    numbers: an array, of which word i is made from first + 2 i and the next. row_1: whether it is of the second row.
    """
    out.line("top_0 = top_1 = f32(0.0)")
    with out.block(f"for i in range({words})"):
        out.line(f"most = ptx.maximum({numbers}[{first} + 2 * i], {numbers}[{first} + 1 + 2 * i])")
        out.line(f"top_0 = top_0 if {row_1} else ptx.maximum(top_0, most)")
        out.line(f"top_1 = ptx.maximum(top_1, most) if {row_1} else top_1")
    for row in range(LANE_ROWS):
        for apart in LANES_OF_ROW:
            out.line(f"top_{row} = ptx.maximum(top_{row}, ptx.shuffle_xor(top_{row}, u32({apart})))")
        emit_scale(out, f"row_scale_{row}", f"top_{row}", TOP)
