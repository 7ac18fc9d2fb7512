"""Sampled products in tiles: a dense product of sixteen queries a warp with 64 keys, of which what is kept is stored.

Scores go by way of shared memory, so that a lane stores two neighbours of a row, wherever in a word these begin.
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
    queries_of,
)
from splat_numba.gen.targets.sm80.shape import ATOM, CHUNK, row_bytes
from splat_numba.gen.targets.sm80.tiles import (
    RowProduct,
    emit_add,
    emit_load,
    emit_padding,
    emit_row_product,
    of_stages,
    padded,
)
from splat_numba.gen.writer import SourceWriter

ARRAYS = ("q", "k", "values")
AT_ONCE = 4  # rows that are stored together


def parameter_names() -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts. share: heads of queries that have one of keys."""
    return (*TABLES, *ARRAYS), ("scale",), COUNTS


def render_sddmm(traits: TiledTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    emit_head(out, traits, "Sampled products of queries and keys")
    emit_begin(out, "sddmm", groups)
    with out.suite():
        _emit_entry(out, traits)
    _emit_places(out, traits)
    _emit_put(out, traits)
    _emit_store(out)
    emit_row_of_tile(out)
    emit_keep_rows(out)
    keys = load_of("keys", traits, multiplied=True)
    for load in (queries_of(traits), keys):
        emit_load(out, load)
    if padded((traits.dim,)):
        emit_padding(out, [(queries_of(traits), ["base + QUERIES"]), (keys, of_stages("base", traits.stage_bytes))])
    emit_row_product(
        out,
        RowProduct(
            "multiply_keys", ("score",), "queries", "keys", TILE_PLACES, traits.dim,
            ("Scores of a warp's rows with a tile's keys.", "Sixteen numbers of each row and key."),
        ),
    )  # fmt: skip
    emit_add(out, traits.dtype)
    return out.text()


def _emit_entry(out: SourceWriter, traits: TiledTraits) -> None:
    where = ", ".join(PLACES)
    out.lines(
        f"""
        q_at = q + u64(entry) * q_batch + u64(head) * q_head
        k_at = k + u64(entry) * k_batch + u64(head // share) * k_head
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
        copy_keys(k_at, k_row, base, {where})
        ptx.async_commit()
        """
    )
    if padded((traits.dim,)):
        out.line("clear_padding(base)")
    out.lines(
        f"""
        score = cuda.local.array({TILE_PLACES // 2}, dtype=np.float32)
        queries, keys = places(base, lane, warp)
        while tiles > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            here, now = corner, u32(keys + stage)
            tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES})), u32(STAGE_BYTES - stage)
            if tiles > u32(0):
                copy_keys(k_at, k_row, u32(base + stage), {where})
            ptx.async_commit()
            multiply_keys(score, queries, now)
            put_scores(score, scale, packed, lane)
            ptx.warp_barrier()
            row, rows_here = u32(0), whole_rows(notes, values_at, here, lane)
            while row < u32({ATOM}):
                store_rows(row, rows_here, notes, values_at, here, lane, packed)
                row = u32(row + u32({AT_ONCE}))
            ptx.warp_barrier()
        """
    )


def _emit_places(out: SourceWriter, traits: TiledTraits) -> None:
    pitch = row_bytes(traits.dim)
    text = "Where a lane's rows of the first matrices of queries and keys begin."
    with device_function(out, "places", ("base", "lane", "warp"), text):
        out.lines(
            f"""
            upper = u32(u32(lane >> u32(4)) * u32({CHUNK}))
            row = u32(u32(warp * u32({ATOM})) + u32(lane & u32(15)))
            queries = u32(base + QUERIES + row * u32({pitch}) + upper)
            key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
            keys = u32(base + key_row * u32({pitch}) + u32(u32(lane >> u32(3)) & u32(1)) * u32({CHUNK}))
            return queries, keys
            """
        )


def _emit_put(out: SourceWriter, traits: TiledTraits) -> None:
    text = "A warp's scores as packed values of its rows, in shared memory."
    with device_function(out, "put_scores", ("score", "scale", "packed", "lane"), text):
        out.line(f"at = u32(packed + u32(lane >> u32(2)) * u32({PACKED_ROW}) + u32(lane & u32(3)) * u32(4))")
        with out.block(f"for j in range({TILE_PLACES // 8})"):
            for half in (0, 1):
                pair = ", ".join(f"score[4 * j + {2 * half + x}] * scale" for x in (0, 1))
                to = f"u32(at + u32({CHUNK} * j + {8 * PACKED_ROW * half}))"
                out.line(f"ptx.store_shared_word({to}, ptx.pack_{traits.dtype}({pair}), u32(1))")


def _emit_store(out: SourceWriter) -> None:
    """A few rows at a time, so that what is read of them is on its way together."""
    parameters = ("i", "rows_here", *OF_TILE, "lane", "packed")
    with device_function(out, "store_rows", parameters, "What is kept of a few rows of a tile, from row i on."):
        for x in range(AT_ONCE):
            row = f"u32(packed + u32({PACKED_ROW}) * u32(i + u32({x})) + u32(4) * lane)"
            out.line(f"known_{x} = ptx.word_of_lane(rows_here, u32(i + u32({x})))")
            out.line(f"word_{x} = ptx.load_shared_word({row})")
        for x in range(AT_ONCE):
            wrapped(out, "store_row", (f"u32(i + u32({x}))", f"known_{x}", f"word_{x}", *OF_TILE, "lane"))
    text = "What is kept of row i: two values a lane, and those whose word is another's too alone."
    with device_function(out, "store_row", ("i", "known", "word", *OF_TILE, "lane"), text):
        out.line("if known != u32(0):")
        with out.suite():
            out.lines(
                """
                first = u32(known >> u32(1))
                if odd_at(first, values_at) == u32(0):
                    ptx.store_word(values_at + u64(2) * u64(u32(first + lane + lane)), word, u32(1))
                else:
                    store_whole_odd(values_at + u64(2) * u64(u32(first + lane + lane)), word, lane)
                """
            )
        out.line("else:")
        with out.suite():
            wrapped(out, "store_part", ("i", "word", *OF_TILE, "lane"))
    text = "Column 0 and the last one alone; at: where the second value of the lane's word goes."
    with device_function(out, "store_whole_odd", ("at", "word", "lane"), text):
        out.lines(
            f"""
            ahead = u32(0) if lane == u32(0) else u32(1)
            end = u32(1) if (lane == u32(0)) or (lane == u32({WARP - 1})) else u32(0)
            ptx.store_word(at - u64(2), across(word, lane), ahead)
            ptx.store_half(at + u64(2) * u64(ahead), u32(word >> u32(u32(16) * ahead)), end)
            """
        )
    with device_function(out, "across", ("word", "lane"), "The second value of the lane before, and the lane's first."):
        out.line(f"before = ptx.word_of_lane(word, u32(u32(lane - u32(1)) & u32({WARP - 1})))")
        out.line("return u32(u32(before >> u32(16)) | u32(word << u32(16)))")
    with device_function(out, "store_part", ("i", "word", *OF_TILE, "lane"), "Row i where it begins or ends."):
        wrapped(out, "first, into, count, odd = row_of_tile", ("i", *OF_TILE))
        out.lines(
            f"""
            low, high, alone = kept_of_word(into, count, odd, lane)
            two = across(word, lane)
            two = two if odd != u32(0) else word
            second = values_at + u64(2) * u64(u32(first + lane + lane + u32(1) - odd))  # where its second value goes
            ptx.store_word(second - u64(2), two, low & high)
            ptx.store_half(second, u32(two >> u32(16)), high & u32(low ^ u32(1)))
            ptx.store_half(second - u64(2), two, low & u32(high ^ u32(1)))
            last = u32(1) if lane == u32({WARP - 1}) else u32(0)
            ptx.store_half(second + u64(2), u32(word >> u32(16)), alone & last)
            """
        )
