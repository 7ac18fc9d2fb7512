"""Sampled products in tiles: a dense product of a warp's queries with 64 keys, of which what is kept is stored.

Scores wait in shared memory, each row at its own ``shift``, until they fill chunks: up to sixteen values of a tile are
stored with the next one, so that all but a row's ends goes by whole sectors of 32 bytes.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, MATRIX, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.packed_walk import COUNTS, PLACES, TABLES, emit_keep_rows
from splat_numba.gen.targets.sm80.packed.traits import PACKED_ROW, TiledTraits
from splat_numba.gen.targets.sm80.packed.walk import emit_begin, emit_head, emit_kept_chunk, load_of, queries_of
from splat_numba.gen.targets.sm80.shape import CHUNK, NUMBERS, STAGES, row_bytes
from splat_numba.gen.targets.sm80.tiles import (
    ZEROS,
    RowProduct,
    emit_add,
    emit_load,
    emit_padding,
    emit_row_product,
    of_atoms,
    of_stages,
    padded,
)

ARRAYS = ("q", "k", "values")
SECTOR = 16  # values of one
WAITING = 2  # chunks of a row that may wait for the next tile
CHUNKS = TILE_PLACES // NUMBERS  # of a row that are stored with each tile
OF_TILE = ("notes", "packed", "values_at", "corner")


def parameter_names() -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts. share: heads of queries that have one of keys."""
    return (*TABLES, *ARRAYS), ("scale",), COUNTS


def render_sddmm(traits: TiledTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    emit_head(out, traits, "Sampled products of queries and keys")
    out.line(f"PACKED, NOTES, QUERIES = u32({traits.packed_at}), u32({traits.notes_at}), u32({traits.queries_at})")
    emit_begin(out, traits, groups)
    with out.suite():
        _emit_entry(out, traits)
    _emit_places(out, traits)
    _emit_put(out, traits)
    _emit_store(out, traits)
    emit_kept_chunk(out)
    emit_keep_rows(out, traits.rows)
    keys = load_of("keys", traits, multiplied=True)
    for load in (queries_of(traits), keys):
        emit_load(out, load)
    if padded((traits.dim,)):
        emit_padding(
            out, [(queries_of(traits), ["base + QUERIES"]), (keys, of_stages("base", traits.stage_bytes, STAGES))]
        )
    texts = ("Scores of a warp's rows with a tile's keys.", "Sixteen numbers of each row and key.")
    emit_row_product(
        out,
        RowProduct("multiply_keys", of_atoms("score", traits.atoms), "queries", "keys", TILE_PLACES, traits.dim, texts),
    )
    emit_add(out, traits.dtype)
    return out.text()


def _emit_entry(out: SourceWriter, traits: TiledTraits) -> None:
    where, of_tile, rows = ", ".join(PLACES), ", ".join(OF_TILE), ATOM * traits.atoms
    scores = of_atoms("score", traits.atoms)
    out.lines(
        f"""
        keep_rows(rows_at, u32(base + NOTES), thread)
        notes = u32(base + NOTES + u32({CHUNK * rows}) * warp)
        packed = u32(base + PACKED + u32({rows * PACKED_ROW}) * warp)
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
        clear_packed(packed, lane)
        carry = cuda.local.array({rows // MATRIX}, dtype=np.uint32)
        for i in range({rows // MATRIX}):
            carry[i] = u32(0)
        queries, keys = places(base, lane, warp)
        ptx.block_barrier()  # the list of rows is there
        """
    )
    for score in scores:
        out.line(f"{score} = cuda.local.array({TILE_PLACES // 2}, dtype=np.float32)")
    for i in range(rows // MATRIX):
        which = f"u32(u32(lane >> u32(2)) + u32({MATRIX * i}))"
        out.line(f"to_{i}, odd_{i} = place_of_row({of_tile}, lane, {which})")
    out.lines(
        f"""
        some_odd = ptx.any_lane({" | ".join(f"odd_{i}" for i in range(rows // MATRIX))})
        while tiles > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            here, now = corner, u32(keys + stage)
            tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES})), u32(STAGE_BYTES - stage)
            if tiles > u32(0):
                copy_keys(k_at, k_row, u32(base + stage), {where})
            ptx.async_commit()
            multiply_keys({", ".join(scores)}, queries, now)
            if some_odd != u32(0):
        """
    )
    with out.suite(), out.suite():
        for i in range(rows // MATRIX):
            out.line(f"put_odd_scores({scores[i // 2]}, scale, to_{i}, odd_{i}, {i % 2}, lane, carry, {i})")
    with out.suite():
        with out.block("else"):
            for i in range(rows // MATRIX):
                out.line(f"put_scores({scores[i // 2]}, scale, to_{i}, {i % 2})")
        out.lines(
            f"""
            ptx.warp_barrier()
            for i in range({rows * CHUNKS // WARP}):
                which = u32(u32({WARP // CHUNKS} * i) + u32(lane // u32({CHUNKS})))
                store_chunk(which, u32(lane & u32({CHUNKS - 1})), notes, packed, values_at, here)
            ptx.warp_barrier()
            keep_waiting(packed, lane)
            """
        )
    out.line("ptx.warp_barrier()")
    with out.block(f"for i in range({traits.atoms})"):
        which = f"u32(u32({ATOM} * i) + u32(lane // u32({WAITING})))"
        out.line(f"store_chunk({which}, u32(lane & u32({WAITING - 1})), {of_tile})")


def _emit_places(out: SourceWriter, traits: TiledTraits) -> None:
    pitch = row_bytes(traits.dim)
    text = "Where a lane's rows of the first matrices of queries and keys begin."
    with device_function(out, "places", ("base", "lane", "warp"), text):
        out.lines(
            f"""
            upper = u32(u32(lane >> u32(4)) * u32({CHUNK}))
            row = u32(u32(warp * u32({ATOM * traits.atoms})) + u32(lane & u32(15)))
            queries = u32(base + QUERIES + row * u32({pitch}) + upper)
            key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
            keys = u32(base + key_row * u32({pitch}) + u32(u32(lane >> u32(3)) & u32(1)) * u32({CHUNK}))
            return queries, keys
            """
        )
    text = "Of one of a warp's rows, where a lane's first score goes, and whether that is the second half of a word."
    with device_function(out, "place_of_row", (*OF_TILE, "lane", "which"), text):
        out.lines(
            f"""
            slot = ptx.load_shared_word(u32(notes + u32({CHUNK}) * which + u32(4)))
            shift = shift_of(values_at, slot, corner)
            to = u32(packed + u32({PACKED_ROW}) * which)
            return u32(to + u32(4) * u32(u32(shift >> u32(1)) + u32(lane & u32(3)))), u32(shift & u32(1))
            """
        )
    text = "Values of the sector of a tile's first value that stand before it: of a row always as many."
    with device_function(out, "shift_of", ("values_at", "slot", "corner"), text):
        out.line(f"return u32(u32(u32(values_at >> u64(1)) + slot + corner) & u32({SECTOR - 1}))")


def _emit_put(out: SourceWriter, traits: TiledTraits) -> None:
    with device_function(out, "clear_packed", ("packed", "lane"), "What no tile has written yet is read all the same."):
        chunks = ATOM * traits.atoms * PACKED_ROW // CHUNK
        turns = -(-chunks // WARP)
        with out.block(f"for i in range({turns})"):
            out.line(f"chunk = u32(lane + u32({WARP} * i))")
            out.line(f"mine = u32(1) if chunk < u32({chunks}) else u32(0)")
            out.line(f"ptx.store_shared_words4(u32(packed + u32({CHUNK}) * chunk), {ZEROS}, mine)")
    pair = ", ".join(f"score[4 * j + 2 * half + {x}] * scale" for x in (0, 1))
    text = "Scores of one of a lane's rows, two a word."
    function = device_function(out, "put_scores", ("score", "scale", "to", "half"), text)
    with function, out.block(f"for j in range({TILE_PLACES // 8})"):
        out.line(f"ptx.store_shared_word(u32(to + u32({CHUNK} * j)), ptx.pack_{traits.dtype}({pair}), u32(1))")
    parameters = ("score", "scale", "to", "odd", "half", "lane", "carry", "row")
    text = "The same where the row is odd: a word has the second score of the lane before, and the lane's first."
    with device_function(out, "put_odd_scores", parameters, text):
        out.line("last = u32(1) if u32(lane & u32(3)) == u32(3) else u32(0)")
        out.line("before = carry[row]")
        with out.block(f"for j in range({TILE_PLACES // 8})"):
            out.lines(
                f"""
                word = ptx.pack_{traits.dtype}({pair})
                given = before if last != u32(0) else word
                given = ptx.word_of_lane(given, u32(u32(lane & u32(28)) | u32(u32(lane - u32(1)) & u32(3))))
                two = u32(u32(given >> u32(16)) | u32(word << u32(16))) if odd != u32(0) else word
                ptx.store_shared_word(u32(to + u32({CHUNK} * j)), two, u32(1))
                before = word
                """
            )
        beyond = f"u32(to + u32({2 * TILE_PLACES - 3 * 4}))  # the word after all of the row's"
        out.line(f"beyond = {beyond}")
        out.line("ptx.store_shared_word(beyond, u32(before >> u32(16)), last & odd)")
        out.line("carry[row] = before")


def _emit_store(out: SourceWriter, traits: TiledTraits) -> None:
    text = "A chunk of one of a warp's rows to memory, as far as the row keeps it."
    with device_function(out, "store_chunk", ("which", "chunk", *OF_TILE), text):
        words = ", ".join(f"word_{y}" for y in range(4))
        out.lines(
            f"""
            _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32({CHUNK}) * which))
            place = u32(corner + u32({NUMBERS}) * chunk - shift_of(values_at, slot, corner))
            into, whole, some = kept_chunk(place, begin, count)
            {words} = ptx.load_shared_words4(u32(packed + u32({PACKED_ROW}) * which + u32({CHUNK}) * chunk))
            first = u32(slot + place)
            ptx.store_words4(values_at + u64(2) * u64(first), {words}, whole)
            part = some & u32(u32(1) - whole)
            if ptx.any_lane(part) != u32(0):
            """
        )
        with out.suite():
            for y in range(4):
                at = (f"u32(first + u32({2 * y}))", f"u32(into + u32({2 * y}))")
                wrapped(out, "store_values", (f"word_{y}", "values_at", *at, "count", "part"))
    parameters = ("word", "values_at", "first", "into", "count", "when")
    with device_function(out, "store_values", parameters, "Two values, each where the row keeps it."):
        out.lines(
            """
            low = when if into < count else u32(0)
            high = when if u32(into + u32(1)) < count else u32(0)
            ptx.store_half(values_at + u64(2) * u64(first), word, low)
            ptx.store_half(values_at + u64(2) * u64(u32(first + u32(1))), u32(word >> u32(16)), high)
            """
        )
    text = "What was not stored with this tile goes before the next one's."
    function = device_function(out, "keep_waiting", ("packed", "lane"), text)
    with function, out.block(f"for i in range({traits.atoms})"):
        out.lines(
            f"""
            which, chunk = u32(u32({ATOM} * i) + u32(lane // u32({WAITING}))), u32(lane & u32({WAITING - 1}))
            at = u32(packed + u32({PACKED_ROW}) * which + u32({CHUNK}) * chunk)
            a, b, c, d = ptx.load_shared_words4(u32(at + u32({CHUNK * CHUNKS})))
            ptx.store_shared_words4(at, a, b, c, d, u32(1))
            """
        )
