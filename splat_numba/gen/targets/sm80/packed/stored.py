"""From shared memory to packed values: a tile's scores by chunks of 16 bytes, the ends of rows by words.

Scores stand there by words, each row at its own ``shift``, rounded down to one; where it is odd, each of a chunk's
words is half in the one before. What is not stored with a tile goes before the next one's.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.packed_ends import emit_store_ends
from splat_numba.gen.targets.gpu.packed_walk import LISTED
from splat_numba.gen.targets.sm80.packed.traits import PACKED_ROW, TiledTraits
from splat_numba.gen.targets.sm80.shape import CHUNK, NUMBERS

WAITING = 2  # chunks of a row that may wait for the next tile
CHUNKS = TILE_PLACES // NUMBERS  # of a row that are stored with each tile
WORDS_OF_CHUNK = "word_0, word_1, word_2, word_3"
OF_TILE = ("notes", "packed", "values_at", "corner")
NOTE = f"before, slot, count, odd = ptx.load_shared_words4(u32(notes + u32({CHUNK}) * which))"


def emit_stored(out: SourceWriter, traits: TiledTraits) -> None:
    """``keep_notes``, ``store_tile``, ``store_odd``, ``store_parts``, ``keep_waiting``."""
    _emit_notes(out, traits)
    _emit_store(out, traits)


def _emit_notes(out: SourceWriter, traits: TiledTraits) -> None:
    """What a chunk is stored by: of a row, counted from where its chunks begin, the place of its first value and the
    number of the packed one of place 0; how many it keeps, and whether its words are in two of a chunk's.
    """
    text = "Of the block's rows what storing them takes."
    with device_function(out, "keep_notes", ("rows_at", "to", "thread", "values_at", "corner"), text):
        out.lines(
            f"""
            place = u32(thread & u32({traits.rows - 1}))
            _, slot, begin, count = ptx.load_words4(rows_at + u64({LISTED}) * u64(place))
            shift = shift_of(values_at, slot, corner)
            mine = u32(1) if thread < u32({traits.rows}) else u32(0)
            to = u32(to + u32({CHUNK}) * place)
            ptx.store_shared_words4(to, u32(begin + shift), u32(slot - shift), count, u32(shift & u32(1)), mine)
            """
        )


def _emit_store(out: SourceWriter, traits: TiledTraits) -> None:
    of_tile, turns = ", ".join(OF_TILE), ATOM * traits.atoms * CHUNKS // WARP
    text = (
        "A tile's chunks to memory: those that rows keep whole, one after the other without a branch, then the others."
    )
    with device_function(out, "store_tile", ("lane", "some_odd", *OF_TILE), text):
        out.line(f"row, chunk = u32(lane // u32({CHUNKS})), u32(lane & u32({CHUNKS - 1}))")
        for header, name in (("if some_odd != u32(0)", "store_odd"), ("else", "store_whole")):
            with out.block(header):
                for i in range(turns):
                    out.line(f"part_{i} = {name}(u32(row + u32({WARP // CHUNKS * i})), chunk, {of_tile})")
        some = " | ".join(f"part_{i}" for i in range(turns))
        with out.block(f"if ptx.any_lane({some}) != u32(0)"):
            out.line(f"store_parts(lane, u32({CHUNKS}), {of_tile})")
    _emit_store_whole(
        out, "store_whole", "A chunk of one of a warp's rows, if the row keeps all of it; whether it keeps some."
    )
    _emit_store_whole(out, "store_odd", "The same of rows of which some are odd.")
    _emit_store_parts(out, traits)
    text = "A chunk of a row that waits in shared memory."
    with device_function(out, "words_of", ("which", "chunk", "packed"), text):
        out.line(f"at = u32(packed + u32({PACKED_ROW}) * which + u32({CHUNK}) * u32(chunk + u32(1)))")
        out.line("return ptx.load_shared_words4(at)")
    text = "The same where the row may be odd: of its words each is then half in the one before."
    with device_function(out, "odd_words_of", ("which", "chunk", "packed", "odd"), text):
        out.line(f"at = u32(packed + u32({PACKED_ROW}) * which + u32({CHUNK}) * u32(chunk + u32(1)))")
        out.line("before = ptx.load_shared_word(u32(at - u32(4)))")
        out.line("a, b, c, d = ptx.load_shared_words4(at)")
        for word, last in zip("abcd", ("before", *"abc"), strict=True):
            out.line(f"{word}_both = u32(u32({last} >> u32(16)) | u32({word} << u32(16)))")
        out.line(f"return {', '.join(f'ptx.select({word}_both, {word}, odd)' for word in 'abcd')}")
    emit_store_ends(out)
    text = "What was not stored with this tile goes before the next one's, with the word before it."
    function = device_function(out, "keep_waiting", ("packed", "lane"), text)
    with function, out.block(f"for i in range({traits.atoms})"):
        out.lines(
            f"""
            which, chunk = u32(u32({ATOM} * i) + u32(lane // u32({WAITING}))), u32(lane & u32({WAITING - 1}))
            at = u32(packed + u32({PACKED_ROW}) * which + u32({CHUNK}) * chunk + u32({CHUNK}))
            before = ptx.load_shared_word(u32(at + u32({CHUNK * CHUNKS - 4})))
            a, b, c, d = ptx.load_shared_words4(u32(at + u32({CHUNK * CHUNKS})))
            ptx.store_shared_words4(at, a, b, c, d, u32(1))
            ptx.store_shared_word(u32(at - u32(4)), before, u32(1) if chunk == u32(0) else u32(0))
            """
        )


def _emit_store_whole(out: SourceWriter, name: str, text: str) -> None:
    words = "odd_words_of(which, chunk, packed, odd)" if name == "store_odd" else "words_of(which, chunk, packed)"
    with device_function(out, name, ("which", "chunk", *OF_TILE), text):
        out.line(NOTE)
        out.lines(
            f"""
            place = u32(corner + u32({NUMBERS}) * chunk)
            into, first = u32(place - before), u32(place + slot)
            last = u32(into + u32({NUMBERS - 1}))
            whole = u32(1) if (into < count) and (last < count) else u32(0)
            {WORDS_OF_CHUNK} = {words}
            ptx.store_words4(values_at + u64(2) * u64(first), {WORDS_OF_CHUNK}, whole)
            some = u32(1) if last < u32(count + u32({NUMBERS - 1})) else u32(0)
            return some & u32(u32(1) - whole)
            """
        )


def _emit_store_parts(out: SourceWriter, traits: TiledTraits) -> None:
    """A row has two such chunks at most, where it begins and where it ends: so a lane has a row, not a chunk. All of a
    tile's chunks in turn would take eight times what a chunk does for a warp of 32 rows, this takes twice.
    """
    rows = ATOM * traits.atoms
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
            begins = u32(u32(before - corner) // u32({NUMBERS}))  # too many if it is in a tile before
            ends = u32(u32(u32(before + count) - u32(corner + u32(1))) // u32({NUMBERS}))
            chunk = ptx.select(ends, begins, end)
            again = end if begins == ends else u32(0)
            mine = u32(1) if (chunk < chunks) and (again == u32(0)) else u32(0)
            chunk = chunk if chunk < chunks else u32(0)
            into = u32(u32(corner + u32({NUMBERS}) * chunk) - before)
            mine = u32(0) if (into < count) and (u32(into + u32({NUMBERS - 1})) < count) else mine
            {WORDS_OF_CHUNK} = odd_words_of(which, chunk, packed, odd)
            store_ends(values_at + u64(2) * u64(u32(before + slot)), {WORDS_OF_CHUNK}, into, count, mine)
            """
        )
