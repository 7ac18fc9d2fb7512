"""Sparse times dense in tiles: packed values of sixteen rows a warp, spread to a dense tile, times the rows of v.

A warp's values are loaded a tile ahead, as they are, and put into shared memory when their tile is computed.
"""

from __future__ import annotations

from splat_numba.gen.machine import WARP
from splat_numba.gen.packed_tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.packed_walk import COUNTS, PLACES, TABLES, emit_keep_rows
from splat_numba.gen.targets.sm80.packed.traits import PACKED_ROW, TiledTraits
from splat_numba.gen.targets.sm80.packed.walk import (
    OF_TILE,
    emit_begin,
    emit_head,
    emit_row_of_tile,
    load_of,
)
from splat_numba.gen.targets.sm80.shape import ATOM, CHUNK, loads, row_bytes, steps
from splat_numba.gen.targets.sm80.tiles import emit_add, emit_load, emit_padding, of_stages, padded
from splat_numba.gen.writer import SourceWriter

ARRAYS = ("values", "v", "out")


def parameter_names() -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts. share: heads of values that have one of v."""
    return (*TABLES, *ARRAYS), ("scale",), COUNTS


def render_spmm(traits: TiledTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    emit_head(out, traits, "Packed values times the rows of a dense array")
    emit_begin(out, "spmm", groups)
    with out.suite():
        _emit_entry(out, traits)
    _emit_places(out, traits)
    _emit_fetch(out)
    _emit_put(out)
    _emit_multiply(out, traits)
    _emit_store(out, traits)
    emit_row_of_tile(out)
    emit_keep_rows(out)
    rows = load_of("rows_of_v", traits, multiplied=False)
    emit_load(out, rows)
    if padded((traits.dim,)):
        emit_padding(out, [(rows, of_stages("base", traits.stage_bytes))])
    emit_add(out, traits.dtype)
    return out.text()


def _emit_entry(out: SourceWriter, traits: TiledTraits) -> None:
    where, of_tile = ", ".join(PLACES), ", ".join((*OF_TILE, "lane"))
    out.lines(
        f"""
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
        copy_rows_of_v(v_at, v_row, base, {where})
        ptx.async_commit()
        """
    )
    if padded((traits.dim,)):
        out.line("clear_padding(base)")
    out.lines(
        f"""
        words = cuda.local.array({ATOM}, dtype=np.uint32)
        total = cuda.local.array({ATOM // 2 * steps(traits.dim)}, dtype=np.float32)
        for n in range({ATOM // 2 * steps(traits.dim)}):
            total[n] = f32(0.0)
        weights, right = places(base, packed, lane)
        ptx.block_barrier()  # the list of rows is there
        rows_here = whole_rows({of_tile})
        alone = fetch_values(words, rows_here, {of_tile})
        while tiles > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            for i in range({ATOM}):
                put_row(i, rows_here, words[i], alone, {of_tile}, packed)
            now = u32(right + stage)
            tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES})), u32(STAGE_BYTES - stage)
            if tiles > u32(0):
                rows_here = whole_rows({of_tile})
                alone = fetch_values(words, rows_here, {of_tile})
                copy_rows_of_v(v_at, v_row, u32(base + stage), {where})
            ptx.async_commit()
            ptx.warp_barrier()
            multiply_rows(total, weights, now)
        out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(4) * u64(lane & u32(3))
        for half in range(2):
            store_row(total, half, notes, out_at, out_row, lane, scale, seq_q)
        """
    )


def _emit_places(out: SourceWriter, traits: TiledTraits) -> None:
    text = "Where a lane's rows of the first matrices of packed values and of v begin."
    with device_function(out, "places", ("base", "packed", "lane"), text):
        out.lines(
            f"""
            upper, row = u32(u32(lane >> u32(4)) * u32({CHUNK})), u32(lane & u32(15))
            weights = u32(packed + row * u32({PACKED_ROW}) + upper)
            return weights, u32(base + row * u32({row_bytes(traits.dim)}) + upper)
            """
        )


def _emit_fetch(out: SourceWriter) -> None:
    """A word is loaded if one of its values is kept: all of them are the array's own."""
    text = "A tile's packed values on their way: a word of each row; of a lane's row the word beyond the last lane's."
    with device_function(out, "fetch_values", ("words", "rows_here", *OF_TILE, "lane"), text):
        with out.block(f"for i in range({ATOM})"):
            out.lines(
                """
                known = ptx.word_of_lane(rows_here, u32(i))
                if known != u32(0):
                    first = u32(known >> u32(1))
                    at = values_at + u64(2) * u64(u32(first + lane + lane))
                    words[i] = ptx.real_bits(ptx.load_state(at - u64(2) * u64(odd_at(first, values_at))))
                """
            )
            out.line("else:")
            with out.suite():
                wrapped(out, "words[i] = part_of_row", ("i", *OF_TILE, "lane"))
        wrapped(out, "first, into, count, odd = row_of_tile", (f"u32(lane & u32({ATOM - 1}))", *OF_TILE))
        out.lines(
            f"""
            low, high, alone = kept_of_word(into, count, odd, lane)
            at = values_at + u64(2) * u64(u32(first + u32({TILE_PLACES - 1})))
            return ptx.real_bits(ptx.load_real_when(at, alone))
            """
        )
    with device_function(out, "part_of_row", ("i", *OF_TILE, "lane"), "A lane's word of row i, or 0."):
        wrapped(out, "first, into, count, odd = row_of_tile", ("i", *OF_TILE))
        out.lines(
            """
            low, high, alone = kept_of_word(into, count, odd, lane)
            at = values_at + u64(2) * u64(u32(first + lane + lane + u32(1) - odd)) - u64(2)
            return ptx.real_bits(ptx.load_real_when(at, low | high))
            """
        )


def _emit_put(out: SourceWriter) -> None:
    parameters = ("i", "rows_here", "word", "last_words", *OF_TILE, "lane", "packed")
    with device_function(out, "put_row", parameters, "Row i of a tile in shared memory, 0 where nothing is kept."):
        out.lines(
            f"""
            to = u32(packed + u32({PACKED_ROW} * i) + u32(4) * lane)
            known = ptx.word_of_lane(rows_here, u32(i))
            if known != u32(0):
                if odd_at(u32(known >> u32(1)), values_at) == u32(0):
                    ptx.store_shared_word(to, word, u32(1))
                else:
                    ptx.store_shared_word(to, across(word, ptx.word_of_lane(last_words, u32(i)), lane), u32(1))
            """
        )
        out.line("else:")
        with out.suite():
            wrapped(out, "kept = kept_values", ("i", "word", "last_words", *OF_TILE, "lane"))
            out.line("ptx.store_shared_word(to, kept, u32(1))")
    with device_function(out, "across", ("word", "last", "lane"), "The lane's second value and the first after it."):
        out.lines(
            f"""
            after = ptx.word_of_lane(word, u32(u32(lane + u32(1)) & u32({WARP - 1})))
            after = last if lane == u32({WARP - 1}) else after
            return u32(u32(word >> u32(16)) | u32(after << u32(16)))
            """
        )
    values = ("i", "word", "last_words", *OF_TILE, "lane")
    with device_function(out, "kept_values", values, "Of row i where it begins or ends: what is kept."):
        wrapped(out, "first, into, count, odd = row_of_tile", ("i", *OF_TILE))
        out.lines(
            """
            low, high, alone = kept_of_word(into, count, odd, lane)
            upper, lower = u32(u32(u32(0) - high) << u32(16)), u32(u32(u32(0) - low) >> u32(16))
            word = u32(word & u32(upper | lower))
            last = ptx.word_of_lane(last_words, u32(i))
            last = last if alone != u32(0) else u32(0)
            two = across(word, last, lane)
            return two if odd != u32(0) else word
            """
        )


def _emit_multiply(out: SourceWriter, traits: TiledTraits) -> None:
    pitch, parameters = row_bytes(traits.dim), ("total", "weights", "right")
    with device_function(out, "multiply_rows", parameters, "A warp's packed values times a tile's rows of v."):
        for step in range(TILE_PLACES // ATOM):
            left, below = f"u32(weights + u32({2 * CHUNK * step}))", f"u32(right + u32({ATOM * pitch * step}))"
            wrapped(out, "multiply_step", ("total", left, below))
    left = ", ".join(f"a_{i}" for i in range(4))
    with device_function(out, "multiply_step", parameters, "Sixteen places of each row."):
        out.line(f"{left} = ptx.load_matrices(weights)")
        for j in range(steps(traits.dim)):
            out.line(f"b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32({2 * CHUNK * j})))")
            for half in (0, 1):
                out.line(f"add_product(total, {8 * j + 4 * half}, {left}, b_{2 * half}, b_{2 * half + 1})")


def _emit_store(out: SourceWriter, traits: TiledTraits) -> None:
    parameters = ("total", "half", "notes", "out_at", "out_row", "lane", "scale", "seq_q")
    with device_function(out, "store_row", parameters, "A lane's numbers of one of its two rows."):
        out.lines(
            f"""
            row = ptx.load_shared_word(u32(notes + u32({CHUNK}) * u32(u32(lane >> u32(2)) + u32(8 * half))))
            there = u32(1) if row < seq_q else u32(0)
            to = out_at + u64(row) * out_row
            """
        )
        with out.block(f"for j in range({loads(traits.dim)})"):
            pair = ", ".join(f"total[4 * j + 2 * half + {x}] * scale" for x in (0, 1))
            out.line(f"ptx.store_word(to + u64({CHUNK} * j), ptx.pack_{traits.dtype}({pair}), there)")
