"""Sampled products in tiles: a dense product of a warp's queries with 64 keys, of which what is kept is stored.

Scores wait in shared memory, each row at its own ``shift``, until they fill chunks: up to sixteen values of a tile are
stored with the next one, so that all but a row's ends goes by whole sectors of 32 bytes.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, MATRIX, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.packed_ends import emit_store_ends
from splat_numba.gen.targets.gpu.packed_walk import COUNTS, LISTED, PLACES, TABLES
from splat_numba.gen.targets.sm80.packed.traits import PACKED_ROW, TiledTraits
from splat_numba.gen.targets.sm80.packed.walk import emit_begin, emit_bring, emit_head, load_of, queries_of
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
NOTE = f"before, slot, count, wholes = ptx.load_shared_words4(u32(notes + u32({CHUNK}) * which))"


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
    _emit_notes(out, traits)
    keys = load_of("keys", traits, multiplied=True)
    emit_load(out, queries_of(traits))
    emit_bring(out, keys)
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
        notes = u32(base + NOTES + u32({CHUNK * rows}) * warp)
        packed = u32(base + PACKED + u32({rows * PACKED_ROW}) * warp)
        q_at = q + u64(entry) * q_batch + u64(head) * q_head
        k_at = k + u64(entry) * k_batch + u64(head // share) * k_head
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        keep_notes(rows_at, u32(base + NOTES), thread, values_at, corner)
        copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
        bring_keys(k_at, k_row, base, {where})
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
        rows_of_warp = rows_at + u64({LISTED * rows}) * u64(warp)
        """
    )
    for score in scores:
        out.line(f"{score} = cuda.local.array({TILE_PLACES // 2}, dtype=np.float32)")
    for i in range(rows // MATRIX):
        which = f"u32(u32(lane >> u32(2)) + u32({MATRIX * i}))"
        out.line(f"to_{i}, odd_{i} = place_of_row(rows_of_warp, packed, values_at, corner, lane, {which})")
    out.lines(
        f"""
        some_odd = ptx.any_lane({" | ".join(f"odd_{i}" for i in range(rows // MATRIX))})
        while tiles > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            here, now = corner, u32(keys + stage)
            tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES})), u32(STAGE_BYTES - stage)
            if tiles > u32(0):
                bring_keys(k_at, k_row, u32(base + stage), {where})
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
            store_tile(lane, notes, packed, values_at, here)
            ptx.warp_barrier()
            keep_waiting(packed, lane)
            """
        )
    out.line("ptx.warp_barrier()")
    with out.block(f"for i in range({traits.atoms})"):
        which = f"u32(u32({ATOM} * i) + u32(lane // u32({WAITING})))"
        out.line(f"which, chunk = {which}, u32(lane & u32({WAITING - 1}))")
        out.line(f"part = store_whole(which, chunk, {of_tile})")
        with out.block("if ptx.any_lane(part) != u32(0)"):
            out.line(f"store_part(which, chunk, {of_tile})")


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
    parameters = ("rows_of_warp", "packed", "values_at", "corner", "lane", "which")
    with device_function(out, "place_of_row", parameters, text):
        out.lines(
            f"""
            slot = ptx.load_word(rows_of_warp + u64({LISTED}) * u64(which) + u64(4))
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


def _emit_notes(out: SourceWriter, traits: TiledTraits) -> None:
    """What a chunk is stored by: of a row, counted from where its chunks begin, the place of its first value and the
    number of the packed one of place 0; how many it keeps, and at how many of these places chunks are whole.
    """
    text = "Of the block's rows what storing them takes."
    with device_function(out, "keep_notes", ("rows_at", "to", "thread", "values_at", "corner"), text):
        out.lines(
            f"""
            place = u32(thread & u32({traits.rows - 1}))
            _, slot, begin, count = ptx.load_words4(rows_at + u64({LISTED}) * u64(place))
            shift = shift_of(values_at, slot, corner)
            wholes = u32(count - u32({NUMBERS - 1})) if count > u32({NUMBERS - 1}) else u32(0)
            mine = u32(1) if thread < u32({traits.rows}) else u32(0)
            to = u32(to + u32({CHUNK}) * place)
            ptx.store_shared_words4(to, u32(begin + shift), u32(slot - shift), count, wholes, mine)
            """
        )


def _emit_store(out: SourceWriter, traits: TiledTraits) -> None:
    of_tile, turns = ", ".join(OF_TILE), ATOM * traits.atoms * CHUNKS // WARP
    text = (
        "A tile's chunks to memory: those that rows keep whole, one after the other without a branch, then the others."
    )
    with device_function(out, "store_tile", ("lane", *OF_TILE), text):
        out.line(f"row, chunk = u32(lane // u32({CHUNKS})), u32(lane & u32({CHUNKS - 1}))")
        for i in range(turns):
            out.line(f"part_{i} = store_whole(u32(row + u32({WARP // CHUNKS * i})), chunk, {of_tile})")
        with out.block(f"if ptx.any_lane({' | '.join(f'part_{i}' for i in range(turns))}) != u32(0)"):
            with out.block(f"for i in range({turns})"):
                out.line(f"store_part(u32(row + u32({WARP // CHUNKS} * i)), chunk, {of_tile})")
    words = ", ".join(f"word_{y}" for y in range(4))
    load = f"{words} = ptx.load_shared_words4(u32(packed + u32({PACKED_ROW}) * which + u32({CHUNK}) * chunk))"
    text = "A chunk of one of a warp's rows, if the row keeps all of it; whether it keeps some."
    with device_function(out, "store_whole", ("which", "chunk", *OF_TILE), text):
        out.lines(
            f"""
            {{NOTE}}
            place = u32(corner + u32({NUMBERS}) * chunk)
            into, first = u32(place - before), u32(place + slot)
            whole = u32(1) if into < wholes else u32(0)
            {load}
            ptx.store_words4(values_at + u64(2) * u64(first), {words}, whole)
            some = u32(1) if u32(into + u32({NUMBERS - 1})) < u32(count + u32({NUMBERS - 1})) else u32(0)
            return some & u32(u32(1) - whole)
            """.replace("{NOTE}", NOTE)
        )
    text = "The same of a chunk of which the row keeps some."
    with device_function(out, "store_part", ("which", "chunk", *OF_TILE), text):
        out.lines(
            f"""
            {{NOTE}}
            into = u32(corner + u32({NUMBERS}) * chunk - before)
            part = u32(1) if u32(into + u32({NUMBERS - 1})) < u32(count + u32({NUMBERS - 1})) else u32(0)
            part = part if into >= wholes else u32(0)
            {load}
            store_ends(values_at + u64(2) * u64(u32(before + slot)), {words}, into, count, part)
            """.replace("{NOTE}", NOTE)
        )
    emit_store_ends(out)
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
