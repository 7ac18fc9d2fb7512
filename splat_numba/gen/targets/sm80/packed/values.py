"""Packed values from memory to the registers of a matrix product: of each row of a tile sixteen places a lane.

They are read by chunks of 16 bytes as memory has them, so a lane's first one begins up to seven values before its
places, in every tile as many: ``shift``. A chunk with any place that the row keeps is read whole, as its other values
are the same head's, and these are dropped from the words afterwards; of the two chunks at a head's ends that is not so,
and ``keep_ends`` has them in shared memory, read word by word.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import LANE_ROWS, ROW_LANES
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.packed.traits import ENDS_BYTES, TiledTraits
from splat_numba.gen.targets.sm80.shape import CHUNK, NUMBERS

OF_LANE = TILE_PLACES // ROW_LANES  # places of a row
WORDS = OF_LANE // 2  # of these
CHUNKS = OF_LANE // NUMBERS + 1  # that they may be in
CHUNK_WORDS = NUMBERS // 2
ROW_WORDS = CHUNKS * CHUNK_WORDS
OF_ROW = ("at", "ahead", "most", "shift")
OF_TILE = OF_ROW  # of each of a lane's rows, for the first tile
ROW_OF_LANE = f"""
shift[i] = shift_of(values_at, u32(slot + column))
at[i] = values_at + u64(2) * signed(u32(slot + column - shift[i]))
ahead[i], counts[i] = u32(u32(column - shift[i] - begin) + u32({NUMBERS - 1})), count
most[i] = u32(count + u32({NUMBERS - 1})) if count > u32(0) else u32(0)
some_near = some_near | near_ends(u32(slot + begin), count, pairs)
"""
"""What a lane knows of its row i, whose places of a tile begin at ``column``."""


def emit_values(out: SourceWriter, traits: TiledTraits) -> None:
    """``fetch_values``, ``place_values``, ``keep_ends``, ``shift_of``, of a lane's two rows."""
    emit_chunks(out, traits, NUMBERS)
    _emit_fetch(out)
    _emit_place(out)


def emit_chunks(out: SourceWriter, traits: TiledTraits, unit: int) -> None:
    """``shift_of``, ``signed``, ``near_ends``, ``keep_ends``: where a row's chunks begin, counted from whole ``unit``s
    of memory, and whether they are all the head's.
    """
    of, itemsize = traits.of_chunk, traits.itemsize
    text = f"Values of the {unit * itemsize} bytes of a value that stand before it."
    with device_function(out, "shift_of", ("values_at", "value"), text):
        out.line(f"return u32(u32(u32(values_at >> u64({itemsize // 2})) + value) & u32({unit - 1}))")
    text = "A word as a number of 64 bits, with its sign."
    with device_function(out, "signed", ("word",), text):
        out.line(f"return u64(word ^ u32({2**31})) - u64({2**31})")
    text = "Whether chunks of a row may be some that are not all of the head's; first: its first packed value."
    with device_function(out, "near_ends", ("first", "count", "pairs"), text):
        out.line(f"close = u32(1) if (first < u32({of})) or (u32(first + count + u32({of})) > pairs) else u32(0)")
        out.line("return close if count > u32(0) else u32(0)")
    _emit_ends(out, itemsize)


def _emit_ends(out: SourceWriter, itemsize: int) -> None:
    text = "The chunks in which a head's packed values begin and end, as far as words have any of them."
    with device_function(out, "keep_ends", ("values_at", "pairs", "to", "thread"), text):
        out.lines(
            f"""
            mine = u32(1) if thread < u32({ENDS_BYTES // 4}) else u32(0)
            end = values_at + u64({itemsize}) * u64(pairs)
            at = end if u32(thread & u32({CHUNK_WORDS})) != u32(0) else values_at
            at = (at & u64({2**64 - CHUNK})) + u64(4) * u64(thread & u32({CHUNK_WORDS - 1}))
            some = mine if (at + u64(4) > values_at) and (at < end) else u32(0)
            word = ptx.real_bits(ptx.load_real_when(at, some))
            ptx.store_shared_word(u32(to + u32(4) * u32(thread & u32({ENDS_BYTES // 4 - 1}))), word, mine)
            """
        )


def _emit_fetch(out: SourceWriter) -> None:
    """Instructions are what a tile costs a warp most of: rows whose chunks are all the head's are told apart once."""
    rows = range(LANE_ROWS)
    text = "A lane's chunks of each of its rows on their way; whether the warp keeps anything of the tile."
    with device_function(out, "fetch_values", ("words", "values_at", *OF_TILE, "done", "near", "pairs", "ends"), text):
        for row in rows:
            out.line(f"at_{row}, ahead_{row} = at[{row}] + u64(2) * u64(done), u32(ahead[{row}] + done)")
        out.line("if near != u32(0):")
        with out.suite():
            for row in rows:
                of_row = (f"at_{row}", f"ahead_{row}", f"most[{row}]", f"shift[{row}]")
                call = ("words", str(ROW_WORDS * row), "values_at", *of_row, "pairs", "ends")
                wrapped(out, f"some_{row} = fetch_near", call)
        with out.block("else"):
            for row in rows:
                of_row = (f"at_{row}", f"ahead_{row}", f"most[{row}]", f"shift[{row}]")
                wrapped(out, f"some_{row} = fetch_row", ("words", str(ROW_WORDS * row), *of_row))
        out.line(f"return ptx.any_lane({' | '.join(f'some_{row}' for row in rows)})")
    text = "Those of a row that has any place of them, 1 if there are such; ahead: of the first one's last place."
    with device_function(out, "fetch_row", ("words", "to", *OF_ROW), text):
        _emit_wanted(out)
        _emit_loads(out, "some")
        out.line(f"return {' | '.join(f'some_{chunk}' for chunk in range(CHUNKS))}")
    text = "The same of a row that has values in a head's first or last chunk."
    with device_function(out, "fetch_near", ("words", "to", "values_at", *OF_ROW, "pairs", "ends"), text):
        _emit_wanted(out)
        for chunk in range(CHUNKS):
            out.line(f"first_{chunk} = u32(u32(u64(at - values_at) >> u64(1)) + u32({NUMBERS * chunk}))")
            last = f"u32(first_{chunk} + u32({NUMBERS - 1}))"
            out.line(f"inside_{chunk} = some_{chunk} if (first_{chunk} < pairs) and ({last} < pairs) else u32(0)")
        _emit_loads(out, "inside")
        for chunk in range(CHUNKS):
            edge = f"some_{chunk} & u32(u32(1) - inside_{chunk})"
            out.line(f"take_end(words, to + {CHUNK_WORDS * chunk}, first_{chunk}, {edge}, ends)")
        out.line(f"return {' | '.join(f'some_{chunk}' for chunk in range(CHUNKS))}")
    text = "A chunk at the head's first or last value."
    with device_function(out, "take_end", ("words", "at", "first", "edge", "ends"), text):
        out.line(f"place = u32(ends + ptx.select(u32(0), u32({CHUNK}), u32(first >> u32(31))))")
        out.line(f"{', '.join('abcd')} = ptx.load_shared_words4(place)")
        for y, word in enumerate("abcd"):
            out.line(f"words[at + {y}] = ptx.select({word}, words[at + {y}], edge)")


def _emit_wanted(out: SourceWriter) -> None:
    """``some_<chunk>``: whether the row has a place of it; of the last one only where the row is shifted."""
    for chunk in range(CHUNKS):
        out.line(f"some_{chunk} = u32(1) if u32(ahead + u32({NUMBERS * chunk})) < most else u32(0)")
    out.line(f"some_{CHUNKS - 1} = some_{CHUNKS - 1} if shift != u32(0) else u32(0)")


def _emit_loads(out: SourceWriter, when: str) -> None:
    for chunk in range(CHUNKS):
        names = ", ".join(f"words[to + {CHUNK_WORDS * chunk + y}]" for y in range(CHUNK_WORDS))
        out.line(f"{names} = ptx.load_words4_when(at + u64({CHUNK * chunk}), {when}_{chunk})")


def _emit_place(out: SourceWriter) -> None:
    text = "A lane's places of each of its rows, two a word, 0 where the row does not keep one."
    with device_function(out, "place_values", ("weights", "words", "ahead", "counts", "shift", "done"), text):
        for row in range(LANE_ROWS):
            out.line(f"place_row(weights, {WORDS * row}, words, {ROW_WORDS * row}, shift[{row}])")
            out.line(f"place_{row} = u32(u32(ahead[{row}] + shift[{row}]) + u32(done - u32({NUMBERS - 1})))")
            out.line(f"part_{row} = in_part(place_{row}, counts[{row}])")
        with out.block(f"if ptx.any_lane({' | '.join(f'part_{row}' for row in range(LANE_ROWS))}) != u32(0)"):
            for row in range(LANE_ROWS):
                out.line(f"drop_others(weights, {WORDS * row}, place_{row}, counts[{row}])")
    parameters = ("weights", "to", "words", "at", "shift")
    text = "Of a row, from where its chunks have them: four, two and one value further on."
    with device_function(out, "place_row", parameters, text):
        out.line(f"word = cuda.local.array({ROW_WORDS - 2}, dtype=np.uint32)")
        with out.block(f"for y in range({ROW_WORDS - 2})"):
            out.line("word[y] = ptx.select(words[at + y + 2], words[at + y], shift & u32(4))")
        with out.block(f"for y in range({ROW_WORDS - 3})"):
            out.line("word[y] = ptx.select(word[y + 1], word[y], shift & u32(2))")
        with out.block(f"for y in range({WORDS})"):
            out.line("across = u32(u32(word[y] >> u32(16)) | u32(word[y + 1] << u32(16)))")
            out.line("weights[to + y] = ptx.select(across, word[y], shift & u32(1))")
    text = "Whether a row does not keep all places of a lane; place: its first one from the row's."
    with device_function(out, "in_part", ("place", "count"), text):
        out.line(f"return u32(0) if (place < count) and (u32(place + u32({OF_LANE - 1})) < count) else u32(1)")
    text = "0 in place of what a row does not keep: a bit for each of a lane's places."
    with device_function(out, "drop_others", ("weights", "to", "place", "count"), text):
        out.lines(
            f"""
            before, left = u32(u32(0) - place), u32(count - place)
            before = before if before < u32({2**31}) else u32(0)
            before = before if before < u32({OF_LANE}) else u32({OF_LANE})
            left = left if left < u32({2**31}) else u32(0)
            left = left if left < u32({OF_LANE}) else u32({OF_LANE})
            kept = u32(u32(u32(1) << left) - u32(1)) & u32(~u32(u32(u32(1) << before) - u32(1)))
            kept = kept | u32(kept << u32(15))  # the upper one of two places in the upper half of a word
            """
        )
        with out.block(f"for y in range({WORDS})"):
            out.lines(
                f"""
                two = u32(u32(kept >> u32(2 * y)) & u32({0x10001})) * u32({0xFFFF})
                weights[to + y] = weights[to + y] & u32(two)
                """
            )
