"""From shared memory to packed values: a tile's scores by chunks of 16 bytes, the ends of rows by words.

Scores stand there by words, each row at its own ``shift``. Of 16 bits it is rounded down to a word; where it is odd,
each of a chunk's words is half in the one before. What is not stored with a tile goes before the next one's.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.packed_ends import emit_store_ends
from splat_numba.gen.targets.gpu.packed_walk import LISTED
from splat_numba.gen.targets.sm80.packed.traits import HALF, TiledTraits
from splat_numba.gen.targets.sm80.shape import CHUNK

WAITING = 2  # chunks of a row that may wait for the next tile
WORDS_OF_CHUNK = "word_0, word_1, word_2, word_3"
OF_TILE = ("notes", "packed", "values_at", "corner")
NOTE = f"before, slot, count, odd = ptx.load_shared_words4(u32(notes + u32({CHUNK}) * which))"


def chunks_of(traits: TiledTraits) -> int:
    """Of a row, that are stored with each tile."""
    return TILE_PLACES // traits.of_chunk


def emit_stored(out: SourceWriter, traits: TiledTraits) -> None:
    """``keep_notes``, ``store_tile``, ``store_odd``, ``store_parts``, ``keep_waiting``."""
    _emit_notes(out, traits)
    _emit_store(out, traits)


def _emit_notes(out: SourceWriter, traits: TiledTraits) -> None:
    """What a chunk is stored by: of a row, counted from where its chunks begin, the place of its first value and the
    number of the packed one of place 0; how many it keeps, and whether its words are in two of a chunk's.
    """
    text, odd = (
        "Of the block's rows what storing them takes.",
        "u32(shift & u32(1))" if traits.itemsize == HALF else "u32(0)",
    )
    with device_function(out, "keep_notes", ("rows_at", "to", "thread", "values_at", "corner"), text):
        out.lines(
            f"""
            place = u32(thread & u32({traits.rows - 1}))
            _, slot, begin, count = ptx.load_words4(rows_at + u64({LISTED}) * u64(place))
            shift = shift_of(values_at, slot, corner)
            mine = u32(1) if thread < u32({traits.rows}) else u32(0)
            to = u32(to + u32({CHUNK}) * place)
            ptx.store_shared_words4(to, u32(begin + shift), u32(slot - shift), count, {odd}, mine)
            """
        )


def _emit_store(out: SourceWriter, traits: TiledTraits) -> None:
    of_tile, chunks = ", ".join(OF_TILE), chunks_of(traits)
    turns, halves = ATOM * traits.atoms * chunks // WARP, traits.itemsize == HALF
    text = (
        "A tile's chunks to memory: those that rows keep whole, one after the other without a branch, then the others."
    )
    with device_function(out, "store_tile", ("lane", *["some_odd"] * halves, *OF_TILE), text):
        out.line(f"row, chunk = u32(lane // u32({chunks})), u32(lane & u32({chunks - 1}))")
        calls = [
            [f"part_{i} = {name}(u32(row + u32({WARP // chunks * i})), chunk, {of_tile})" for i in range(turns)]
            for name in ("store_odd", "store_whole")
        ]
        if halves:
            for header, lines in zip(("if some_odd != u32(0)", "else"), calls, strict=True):
                with out.block(header):
                    out.lines("\n".join(lines))
        else:
            out.lines("\n".join(calls[1]))
        some = " | ".join(f"part_{i}" for i in range(turns))
        with out.block(f"if ptx.any_lane({some}) != u32(0)"):
            out.line(f"store_parts(lane, u32({chunks}), {of_tile})")
    text = "A chunk of one of a warp's rows, if the row keeps all of it; whether it keeps some."
    _emit_store_whole(out, traits, "store_whole", text)
    if halves:
        _emit_store_whole(out, traits, "store_odd", "The same of rows of which some are odd.")
    _emit_store_parts(out, traits)
    text = "A chunk of a row that waits in shared memory."
    with device_function(out, "words_of", ("which", "chunk", "packed"), text):
        out.line(f"at = u32(packed + u32({traits.packed_row}) * which + u32({CHUNK}) * u32(chunk + u32(1)))")
        out.line("return ptx.load_shared_words4(at)")
    if halves:
        _emit_odd_words(out, traits)
        emit_store_ends(out)
    else:
        _emit_real_ends(out)
    text = "What was not stored with this tile goes before the next one's" + (
        ", with the word before it." if halves else "."
    )
    function = device_function(out, "keep_waiting", ("packed", "lane"), text)
    with function, out.block(f"for i in range({traits.atoms})"):
        out.lines(
            f"""
            which, chunk = u32(u32({ATOM} * i) + u32(lane // u32({WAITING}))), u32(lane & u32({WAITING - 1}))
            at = u32(packed + u32({traits.packed_row}) * which + u32({CHUNK}) * chunk + u32({CHUNK}))
            a, b, c, d = ptx.load_shared_words4(u32(at + u32({CHUNK * chunks})))
            """
        )
        if halves:
            out.line(f"before = ptx.load_shared_word(u32(at + u32({CHUNK * chunks - 4})))")
        out.line("ptx.store_shared_words4(at, a, b, c, d, u32(1))")
        if halves:
            out.line("ptx.store_shared_word(u32(at - u32(4)), before, u32(1) if chunk == u32(0) else u32(0))")


def _emit_odd_words(out: SourceWriter, traits: TiledTraits) -> None:
    text = "The same where the row may be odd: of its words each is then half in the one before."
    with device_function(out, "odd_words_of", ("which", "chunk", "packed", "odd"), text):
        out.line(f"at = u32(packed + u32({traits.packed_row}) * which + u32({CHUNK}) * u32(chunk + u32(1)))")
        out.line("before = ptx.load_shared_word(u32(at - u32(4)))")
        out.line("a, b, c, d = ptx.load_shared_words4(at)")
        for word, last in zip("abcd", ("before", *"abc"), strict=True):
            out.line(f"{word}_both = u32(u32({last} >> u32(16)) | u32({word} << u32(16)))")
        out.line(f"return {', '.join(f'ptx.select({word}_both, {word}, odd)' for word in 'abcd')}")


def _emit_real_ends(out: SourceWriter) -> None:
    text = "Of a chunk's words those that are the row's."
    with device_function(out, "store_ends", ("row_at", *"abcd", "place", "count", "when"), text):
        for y, word in enumerate("abcd"):
            out.line(f"here = u32(place + u32({y}))")
            out.line(f"ptx.store_word(row_at + u64(4) * u64(here), {word}, when if here < count else u32(0))")


def _emit_store_whole(out: SourceWriter, traits: TiledTraits, name: str, text: str) -> None:
    words = "odd_words_of(which, chunk, packed, odd)" if name == "store_odd" else "words_of(which, chunk, packed)"
    of = traits.of_chunk
    with device_function(out, name, ("which", "chunk", *OF_TILE), text):
        out.line(NOTE)
        out.lines(
            f"""
            place = u32(corner + u32({of}) * chunk)
            into, first = u32(place - before), u32(place + slot)
            last = u32(into + u32({of - 1}))
            whole = u32(1) if (into < count) and (last < count) else u32(0)
            {WORDS_OF_CHUNK} = {words}
            ptx.store_words4(values_at + u64({traits.itemsize}) * u64(first), {WORDS_OF_CHUNK}, whole)
            some = u32(1) if last < u32(count + u32({of - 1})) else u32(0)
            return some & u32(u32(1) - whole)
            """
        )


def _emit_store_parts(out: SourceWriter, traits: TiledTraits) -> None:
    """A row has two such chunks at most, where it begins and where it ends: so a lane has a row, not a chunk. All of a
    tile's chunks in turn would take eight times what a chunk does for a warp of 32 rows, this takes twice.
    """
    rows, of = ATOM * traits.atoms, traits.of_chunk
    words = "odd_words_of(which, chunk, packed, odd)" if traits.itemsize == HALF else "words_of(which, chunk, packed)"
    text = "Of those chunks of which rows keep some, and that are among the first ``chunks``, what is kept."
    function = device_function(out, "store_parts", ("lane", "chunks", *OF_TILE), text)
    with function, out.block(f"for i in range({traits.atoms})"):
        out.line(f"end = u32(u32(lane // u32({rows})) + u32(i))")
        out.line(f"store_part(u32(lane & u32({rows - 1})), end, chunks, {', '.join(OF_TILE)})")
    text = "The chunk of a row's first value or, where ``end`` is 1, of its last one, unless that is the same."
    with device_function(out, "store_part", ("which", "end", "chunks", *OF_TILE), text):
        out.line(NOTE)
        out.lines(
            f"""
            begins = u32(u32(before - corner) // u32({of}))  # too many if it is in a tile before
            ends = u32(u32(u32(before + count) - u32(corner + u32(1))) // u32({of}))
            chunk = ptx.select(ends, begins, end)
            again = end if begins == ends else u32(0)
            mine = u32(1) if (chunk < chunks) and (again == u32(0)) else u32(0)
            chunk = chunk if chunk < chunks else u32(0)
            into = u32(u32(corner + u32({of}) * chunk) - before)
            mine = u32(0) if (into < count) and (u32(into + u32({of - 1})) < count) else mine
            {WORDS_OF_CHUNK} = {words}
            row_at = values_at + u64({traits.itemsize}) * u64(u32(before + slot))
            store_ends(row_at, {WORDS_OF_CHUNK}, into, count, mine)
            """
        )
