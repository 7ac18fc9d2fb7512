"""sddmm and spmm in tiles on FMA units: a dense product of 64 rows with 64 places of their lattice.

Sixteen lanes share a few rows, as in attention. Of sddmm's products what is kept is stored; of spmm's packed values a
tile is made first, with 0 where nothing is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES, TILE_ROWS
from splat_numba.gen.targets.gpu.addresses import emit_header
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.packed_walk import (
    COUNTS,
    PLACES,
    ROWS,
    TABLES,
    TOKEN_OF_PLACE,
    TOKEN_OF_ROW,
    emit_block,
    emit_keep_rows,
)
from splat_numba.gen.targets.simt import tiles
from splat_numba.gen.targets.simt.arithmetic import emit_arithmetic
from splat_numba.gen.targets.simt.attention import emit_start
from splat_numba.gen.targets.simt.packed.rows import emit_load_number, scale_name
from splat_numba.gen.targets.simt.packed.tile_traits import FmaTraits
from splat_numba.gen.targets.simt.results import emit_row, emit_store_chunk, emit_store_number
from splat_numba.gen.targets.simt.shape import CHUNK, LANES_OF_ROW

ARRAYS = {"sddmm": ("q", "k", "values"), "spmm": ("values", "v", "out")}
STEPS = {"sddmm": "dim_steps", "spmm": "place_steps"}  # of a product: a number that the compiler is not to know
OF_TILE = ("notes", "values_at", "values_row", "corner", "column")


def parameter_names(traits: FmaTraits) -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts. share: heads of the result that have one of keys or of v."""
    return (*TABLES, *ARRAYS[traits.family]), (scale_name(traits.numbers),), (*COUNTS, STEPS[traits.family])


def render_tiles(traits: FmaTraits, groups: Sequence[Sequence[str]]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    _emit_head(out, traits)
    emit_header(out, traits.family, groups)
    with out.suite():
        emit_start(out, traits.share.rows)
        if "scale" not in groups[2]:
            out.line("scale = double_of(scale_bits)")
        emit_block(out)
        out.line("keep_rows(rows_at, u32(base + NOTES), thread)")
        out.line(f"notes = u32(base + NOTES + u32({CHUNK}) * row)")
        (_emit_sddmm if traits.family == "sddmm" else _emit_spmm)(out, traits)
    (_emit_sddmm_parts if traits.family == "sddmm" else _emit_spmm_parts)(out, traits)
    emit_keep_rows(out)
    return out.text()


def _emit_head(out: SourceWriter, traits: FmaTraits) -> None:
    """Docstring, imports, arithmetic, places in shared memory."""
    quotes, share = '"' * 3, traits.share
    what = "Sampled products" if traits.family == "sddmm" else "Packed values times rows"
    other = "QUERIES" if traits.family == "sddmm" else "WEIGHTS"
    out.lines(
        f"""
        {quotes}{what} in tiles on any GPU, generated for every mask whose rows share columns.

        Rows of {traits.dim} numbers, {traits.dtype}, computed in {traits.numbers.computed};
        {TILE_ROWS} rows x {TILE_PLACES} places a tile, by {share.threads} threads:
        {LANES_OF_ROW} lanes share {share.rows} rows.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        """
    )
    emit_arithmetic(out, traits.numbers)
    out.line()
    out.line()
    out.lines(
        f"""
        # Shared memory, in bytes from its aligned start: keys or rows of v of a tile come first.
        {other}, NOTES = u32({traits.others_at}), u32({traits.notes_at})
        """
    )


def _emit_sddmm(out: SourceWriter, traits: FmaTraits) -> None:
    numbers, share = traits.numbers, traits.share
    pitch = numbers.row_bytes(traits.dim)
    out.lines(
        f"""
        q_at = q + u64(entry) * q_batch + u64(head) * q_head
        k_at = k + u64(entry) * k_batch + u64(head // share) * k_head
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        score = cuda.local.array({share.rows * share.keys}, dtype=np.{numbers.computed})
        load_queries(q_at, q_row, base + QUERIES, rows_at, seq_q)
        while tiles > u32(0):
            load_keys(k_at, k_row, base, {", ".join(PLACES)})
            ptx.block_barrier()
            multiply_keys(score, base + QUERIES + u32({pitch}) * row, base + u32({pitch}) * column, dim_steps)
            ptx.block_barrier()  # nobody reads the keys any more
        """
    )
    with out.suite():
        wrapped(out, "store_scores", ("score", "scale", *OF_TILE))
        out.line(f"tiles, corner = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES}))")


def _emit_sddmm_parts(out: SourceWriter, traits: FmaTraits) -> None:
    numbers, share = traits.numbers, traits.share
    parameters = ("score", "scale", *OF_TILE)
    function = device_function(out, "store_scores", parameters, "What is kept of a thread's rows of a tile.")
    with function, out.block(f"for i in range({share.rows})"):
        out.line(f"_, slot, begin, count = ptx.load_shared_words4(u32(notes + u32({CHUNK} * i)))")
        with out.block(f"for j in range({share.keys})"):
            out.lines(
                f"""
                place = u32(corner + column + u32({LANES_OF_ROW} * j))
                there = u32(1) if u32(place - begin) < count else u32(0)
                at = values_at + values_row * u64(u32(slot + place))
                store_number(at, score[{share.keys} * i + j] * scale, there)
                """
            )
    emit_store_number(out, traits.dtype)
    for load in (
        tiles.Load("queries", TILE_ROWS, traits.dim, ROWS, TOKEN_OF_ROW),
        tiles.Load("keys", TILE_PLACES, traits.dim, PLACES, TOKEN_OF_PLACE),
    ):
        tiles.emit_load(out, load, numbers, share.threads, tiles.AT_ONCE[numbers.size == ITEMSIZE["float32"]])
    text = "Products of a thread's rows with its keys."
    tiles.emit_row_product(out, "multiply_keys", numbers, share, traits.dim, text)


def _emit_spmm(out: SourceWriter, traits: FmaTraits) -> None:
    numbers, share = traits.numbers, traits.share
    count, pitch = share.rows * share.pieces * numbers.of_chunk, numbers.row_bytes(TILE_PLACES)
    out.lines(
        f"""
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
        weights = u32(base + WEIGHTS + u32({pitch}) * row)
        total = cuda.local.array({count}, dtype=np.{numbers.computed})
        for n in range({count}):
            total[n] = ZERO
        ptx.block_barrier()  # the list of rows is there
        while tiles > u32(0):
            load_rows_of_v(v_at, v_row, base, {", ".join(PLACES)})
        """
    )
    with out.suite():
        wrapped(out, "load_weights", ("weights", *OF_TILE))
        out.lines(
            f"""
            ptx.block_barrier()
            multiply_rows(total, weights, base, place_steps)
            ptx.block_barrier()  # nobody reads the tile any more
            tiles, corner = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES}))
            """
        )
    out.line("out_at = out + u64(entry) * out_batch + u64(head) * out_head")
    with out.block(f"for i in range({share.rows})"):
        out.line("store_row(i, total, notes, out_at, out_row, scale, seq_q)")


def _emit_spmm_parts(out: SourceWriter, traits: FmaTraits) -> None:
    numbers, share = traits.numbers, traits.share
    parameters = ("weights", *OF_TILE)
    text = "Packed values of a thread's rows of a tile, 0 where none is kept; all are on their way at once."
    with device_function(out, "load_weights", parameters, text):
        out.line(f"number = cuda.local.array({share.rows * share.keys}, dtype=np.{numbers.computed})")
        with out.block(f"for i in range({share.rows})"):
            out.line(f"_, slot, begin, count = ptx.load_shared_words4(u32(notes + u32({CHUNK} * i)))")
            with out.block(f"for j in range({share.keys})"):
                out.lines(
                    f"""
                    place = u32(corner + column + u32({LANES_OF_ROW} * j))
                    safe = u32(slot + place) if u32(place - begin) < count else u32(0)
                    number[{share.keys} * i + j] = load_number(values_at + values_row * u64(safe))
                    """
                )
        with out.block(f"for i in range({share.rows})"):
            out.line(f"_, slot, begin, count = ptx.load_shared_words4(u32(notes + u32({CHUNK} * i)))")
            with out.block(f"for j in range({share.keys})"):
                out.lines(
                    f"""
                    here = u32(column + u32({LANES_OF_ROW} * j))
                    x = number[{share.keys} * i + j] if u32(corner + here - begin) < count else ZERO
                    to = u32(weights + u32({numbers.row_bytes(TILE_PLACES)} * i))
                    write_number(u32(to + u32({numbers.size}) * here), x)
                    """
                )
    stored = ("i", "total", "notes", "out_at", "out_row", "scale", "seq_q")
    with device_function(out, "store_row", stored, "Row i of a thread's results."):
        out.lines(
            f"""
            row = ptx.load_shared_word(u32(notes + u32({CHUNK} * i)))
            there = u32(1) if row < seq_q else u32(0)
            """
        )
        emit_row(out, numbers, share.pieces, traits.dim, "total", "out_at + u64(row) * out_row", "scale")
    emit_store_chunk(out, traits.dtype)
    emit_load_number(out, numbers)
    load = tiles.Load("rows_of_v", TILE_PLACES, traits.dim, PLACES, TOKEN_OF_PLACE)
    tiles.emit_load(out, load, numbers, share.threads, tiles.AT_ONCE[numbers.size == ITEMSIZE["float32"]])
    text = "A thread's packed values times the tile's rows of v."
    tiles.emit_sum_product(out, "multiply_rows", numbers, share, (TILE_PLACES, traits.dim), "total", text)
    tiles.emit_chunk_of(out)
