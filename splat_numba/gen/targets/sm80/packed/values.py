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
from splat_numba.gen.targets.sm80.packed.traits import ENDS_BYTES
from splat_numba.gen.targets.sm80.shape import CHUNK, NUMBERS

OF_LANE = TILE_PLACES // ROW_LANES  # places of a row
WORDS = OF_LANE // 2  # of these
CHUNKS = OF_LANE // NUMBERS + 1  # that they may be in
CHUNK_WORDS = NUMBERS // 2
ROW_WORDS = CHUNKS * CHUNK_WORDS
OF_TILE = ("first", "into", "count", "shift")


def emit_values(out: SourceWriter) -> None:
    """``fetch_values``, ``place_values``, ``keep_ends``, ``shift_of``, of a lane's two rows."""
    text = "Values of the chunk of a value that stand before it."
    with device_function(out, "shift_of", ("values_at", "value"), text):
        out.line(f"return u32(u32(u32(values_at >> u64(1)) + value) & u32({NUMBERS - 1}))")
    _emit_ends(out)
    _emit_fetch(out)
    _emit_place(out)


def _emit_ends(out: SourceWriter) -> None:
    text = "The chunks in which a head's packed values begin and end, as far as words have any of them."
    with device_function(out, "keep_ends", ("values_at", "pairs", "to", "thread"), text):
        out.lines(
            f"""
            mine = u32(1) if thread < u32({ENDS_BYTES // 4}) else u32(0)
            end = values_at + u64(2) * u64(pairs)
            at = end if u32(thread & u32({CHUNK_WORDS})) != u32(0) else values_at
            at = (at & u64({2**64 - CHUNK})) + u64(4) * u64(thread & u32({CHUNK_WORDS - 1}))
            some = mine if (at + u64(4) > values_at) and (at < end) else u32(0)
            word = ptx.real_bits(ptx.load_real_when(at, some))
            ptx.store_shared_word(u32(to + u32(4) * u32(thread & u32({ENDS_BYTES // 4 - 1}))), word, mine)
            """
        )


def _emit_fetch(out: SourceWriter) -> None:
    text = "A lane's chunks of each of its rows on their way; whether the warp keeps anything of the tile."
    with device_function(out, "fetch_values", ("words", "values_at", *OF_TILE, "done", "pairs", "ends"), text):
        for row in range(LANE_ROWS):
            of_row = (f"u32(first[{row}] + done)", f"u32(into[{row}] + done)", f"count[{row}]", f"shift[{row}]")
            wrapped(
                out, f"some_{row} = fetch_row", ("words", str(ROW_WORDS * row), "values_at", *of_row, "pairs", "ends")
            )
        out.line(f"return ptx.any_lane({' | '.join(f'some_{row}' for row in range(LANE_ROWS))})")
    parameters = ("words", "at", "values_at", *OF_TILE, "pairs", "ends")
    with device_function(out, "fetch_row", parameters, "Those of a row: 1 where it keeps any of them."):
        for chunk in range(CHUNKS):
            place = [f"u32({name} + u32({NUMBERS * chunk}))" for name in ("first", "into")]
            wanted = "shift" if chunk == CHUNKS - 1 else "u32(1)"
            wrapped(out, f"inside_{chunk}, edge_{chunk} = chunk_there", (*place, "count", wanted, "pairs"))
        for chunk in range(CHUNKS):
            names = ", ".join(f"words[at + {CHUNK_WORDS * chunk + y}]" for y in range(CHUNK_WORDS))
            at = f"values_at + u64(2) * u64(u32(first + u32({NUMBERS * chunk})))"
            out.line(f"{names} = ptx.load_words4_when({at}, inside_{chunk})")
        edges = " | ".join(f"edge_{chunk}" for chunk in range(CHUNKS))
        out.line(f"edges = {edges}")
        with out.block("if ptx.any_lane(edges) != u32(0)"):
            for chunk in range(CHUNKS):
                at, first = f"at + {CHUNK_WORDS * chunk}", f"u32(first + u32({NUMBERS * chunk}))"
                out.line(f"take_end(words, {at}, {first}, edge_{chunk}, ends)")
        out.line(f"return edges | {' | '.join(f'inside_{chunk}' for chunk in range(CHUNKS))}")
    text = "Whether a chunk of which the row keeps a value is all of the head's; whether it is one of which it is not."
    with device_function(out, "chunk_there", ("first", "into", "count", "wanted", "pairs"), text):
        out.lines(
            f"""
            some = u32(1) if u32(into + u32({NUMBERS - 1})) < u32(count + u32({NUMBERS - 1})) else u32(0)
            some = some if wanted != u32(0) else u32(0)
            inside = some if (first < pairs) and (u32(first + u32({NUMBERS - 1})) < pairs) else u32(0)
            return inside, u32(some - inside)
            """
        )
    text = "A chunk at the head's first or last value."
    with device_function(out, "take_end", ("words", "at", "first", "edge", "ends"), text):
        out.line(f"place = u32(ends + ptx.select(u32(0), u32({CHUNK}), u32(first >> u32(31))))")
        out.line(f"{', '.join('abcd')} = ptx.load_shared_words4(place)")
        for y, word in enumerate("abcd"):
            out.line(f"words[at + {y}] = ptx.select({word}, words[at + {y}], edge)")


def _emit_place(out: SourceWriter) -> None:
    text = "A lane's places of each of its rows, two a word, 0 where the row does not keep one."
    with device_function(out, "place_values", ("weights", "words", *OF_TILE, "done"), text):
        for row in range(LANE_ROWS):
            out.line(f"place_row(weights, {WORDS * row}, words, {ROW_WORDS * row}, shift[{row}])")
            out.line(f"place_{row} = u32(u32(into[{row}] + shift[{row}]) + done)")
            out.line(f"part_{row} = in_part(place_{row}, count[{row}])")
        with out.block(f"if ptx.any_lane({' | '.join(f'part_{row}' for row in range(LANE_ROWS))}) != u32(0)"):
            for row in range(LANE_ROWS):
                out.line(f"drop_others(weights, {WORDS * row}, place_{row}, count[{row}])")
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
            """
        )
        with out.block(f"for y in range({WORDS})"):
            out.lines(
                f"""
                two = u32(kept >> u32(2 * y))
                both = u32(u32(two & u32(1)) * u32(65535)) | u32(u32(u32(two >> u32(1)) & u32(1)) * u32({0xFFFF0000}))
                weights[to + y] = weights[to + y] & both
                """
            )
