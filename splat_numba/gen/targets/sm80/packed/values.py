"""Packed values from memory to the registers of a matrix product: of each row of a tile sixteen places a lane.

They are copied to shared memory by chunks of 16 bytes as memory has them, a few tiles ahead, so a row's first chunk
begins up to seven values before its places, in every tile as many: ``shift``. A chunk with any place that the row keeps
is copied whole, as its other values are the same head's, and these are dropped from the words afterwards; of the two
chunks at a head's ends that is not so, and ``keep_ends`` has them in shared memory, read word by word.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, LANE_ROWS, MATRIX, ROW_LANES, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.packed.traits import ENDS_BYTES, HALF, TiledTraits
from splat_numba.gen.targets.sm80.shape import CHUNK, NUMBERS
from splat_numba.gen.targets.sm80.tiles import ZEROS

OF_LANE = TILE_PLACES // ROW_LANES  # places of a row
WORDS = OF_LANE // 2  # of these
CHUNKS = OF_LANE // NUMBERS + 1  # that they may be in
CHUNK_WORDS = NUMBERS // 2
OF_ROW = ("at", "ahead", "most")
OF_TILE = OF_ROW  # of each of a lane's rows, for the first tile


def emit_values(out: SourceWriter, traits: TiledTraits) -> None:
    """``fetch_values``, ``place_values``, ``keep_ends``, ``clear_values``, ``shift_of``, of a lane's two rows."""
    of, itemsize = traits.of_chunk, traits.itemsize
    text = "Values of the chunk of a value that stand before it."
    with device_function(out, "shift_of", ("values_at", "value"), text):
        out.line(f"return u32(u32(u32(values_at >> u64({itemsize // 2})) + value) & u32({of - 1}))")
    text = "A word as a number of 64 bits, with its sign."
    with device_function(out, "signed", ("word",), text):
        out.line(f"return u64(word ^ u32({2**31})) - u64({2**31})")
    text = "Whether chunks of a row may be some that are not all of the head's; first: its first packed value."
    with device_function(out, "near_ends", ("first", "count", "pairs"), text):
        out.line(f"close = u32(1) if (first < u32({of})) or (u32(first + count + u32({of})) > pairs) else u32(0)")
        out.line("return close if count > u32(0) else u32(0)")
    _emit_ends(out, itemsize)
    _emit_clear(out, traits)
    _emit_fetch(out, traits)
    if itemsize == HALF:
        _emit_place(out, traits)
        _emit_keeps(out, OF_LANE)
    else:
        _emit_real_place(out, traits)
        _emit_keeps(out, TILE_PLACES)


def copied(traits: TiledTraits) -> range:
    """Chunks of a row by a lane: every fourth one."""
    return range(TILE_PLACES // traits.of_chunk // ROW_LANES + 1)


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


def _emit_clear(out: SourceWriter, traits: TiledTraits) -> None:
    text = "What nothing is copied to is read all the same."
    with device_function(out, "clear_values", ("to", "lane"), text):
        chunks = ATOM * traits.values_row // CHUNK
        with out.block(f"for i in range({-(-chunks // WARP)})"):
            out.line(f"chunk = u32(lane + u32({WARP} * i))")
            out.line(f"mine = u32(1) if chunk < u32({chunks}) else u32(0)")
            for stage in range(traits.stages):
                at = f"u32(to + u32({stage * traits.stage_bytes}) + u32({CHUNK}) * chunk)"
                out.line(f"ptx.store_shared_words4({at}, {ZEROS}, mine)")


def _emit_fetch(out: SourceWriter, traits: TiledTraits) -> None:
    """Rows whose chunks are all the head's are told apart once. Neighbouring lanes copy neighbouring chunks: so what a
    warp's instruction reads of a row are 64 bytes, whole sectors but for the ends.
    """
    rows, size, of = range(LANE_ROWS), traits.itemsize, traits.of_chunk
    text = "A lane's chunks of each of its rows on their way to where ``to`` is."
    parameters = ("to", "values_at", *OF_TILE, "shift", "done", "near", "pairs", "ends")
    with device_function(out, "fetch_values", parameters, text):
        for row in rows:
            out.line(f"at_{row}, ahead_{row} = at[{row}] + u64({size}) * u64(done), u32(ahead[{row}] + done)")
        calls = (("fetch_near", ("values_at",), ("pairs", "ends")), ("fetch_row", (), ()))
        for header, (name, given, ends) in zip(("if near != u32(0)", "else"), calls, strict=True):
            with out.block(header):
                for row in rows:
                    of_row = (f"u32(to + u32({MATRIX * traits.values_row * row}))", *given, f"at_{row}", f"ahead_{row}")
                    wrapped(out, name, (*of_row, f"most[{row}]", f"shift[{row}]", *ends))
    text = "Those of a row that has any place of them; ahead: of the first one's last place."
    with device_function(out, "fetch_row", ("to", *OF_ROW, "shift"), text):
        _emit_wanted(out, traits)
        for chunk in copied(traits):
            out.line(f"ptx.async_copy({_place(chunk)}, at + u64({_bytes(chunk)}), some_{chunk})")
    text = "The same of a row that has values in a head's first or last chunk."
    with device_function(out, "fetch_near", ("to", "values_at", *OF_ROW, "shift", "pairs", "ends"), text):
        _emit_wanted(out, traits)
        for chunk in copied(traits):
            out.line(f"first = u32(u32(u64(at - values_at) >> u64({size // 2})) + u32({_bytes(chunk) // size}))")
            last = f"u32(first + u32({of - 1}))"
            out.line(f"inside = some_{chunk} if (first < pairs) and ({last} < pairs) else u32(0)")
            out.line(f"ptx.async_copy({_place(chunk)}, at + u64({_bytes(chunk)}), inside)")
            out.line(f"take_end({_place(chunk)}, first, some_{chunk} & u32(u32(1) - inside), ends)")
    text = "A chunk at the head's first or last value."
    with device_function(out, "take_end", ("to", "first", "edge", "ends"), text):
        out.line(f"place = u32(ends + ptx.select(u32(0), u32({CHUNK}), u32(first >> u32(31))))")
        out.line(f"{', '.join('abcd')} = ptx.load_shared_words4(place)")
        out.line(f"ptx.store_shared_words4(to, {', '.join('abcd')}, edge)")


def _bytes(chunk: int) -> int:
    """From a lane's first chunk in memory, and in shared memory."""
    return CHUNK * ROW_LANES * chunk


def _place(chunk: int) -> str:
    return f"u32(to + u32({_bytes(chunk)}))"


def _emit_wanted(out: SourceWriter, traits: TiledTraits) -> None:
    """``some_<chunk>``: whether the row has a place of it; the last one is there where the row is shifted, once."""
    chunks = copied(traits)
    for chunk in chunks:
        out.line(f"some_{chunk} = u32(1) if u32(ahead + u32({_bytes(chunk) // traits.itemsize})) < most else u32(0)")
    last = f"some_{chunks[-1]}"
    first = f"u32(ptx.thread_index() & u32({ROW_LANES - 1})) == u32(0)"
    out.line(f"{last} = {last} if (shift != u32(0)) and ({first}) else u32(0)")


def _emit_place(out: SourceWriter, traits: TiledTraits) -> None:
    text = "A lane's places of each of its rows, two a word, 0 where the row does not keep one."
    with device_function(out, "place_values", ("weights", "at", "place", "counts", "shift", "done"), text):
        for row in range(LANE_ROWS):
            out.line(
                f"place_row(weights, {WORDS * row}, u32(at + u32({MATRIX * traits.values_row * row})), shift[{row}])"
            )
            out.line(f"place_{row} = u32(place[{row}] + done)")
            out.line(f"part_{row} = in_part(place_{row}, counts[{row}])")
        with out.block(f"if ptx.any_lane({' | '.join(f'part_{row}' for row in range(LANE_ROWS))}) != u32(0)"):
            for row in range(LANE_ROWS):
                out.line(f"drop_others(weights, {WORDS * row}, place_{row}, counts[{row}])")
    text = "Of a row, from where its chunks have them: four, two and one value further on."
    with device_function(out, "place_row", ("weights", "to", "at", "shift"), text):
        words = CHUNKS * CHUNK_WORDS
        out.line(f"word = cuda.local.array({words}, dtype=np.uint32)")
        for chunk in range(CHUNKS):
            names = ", ".join(f"word[{CHUNK_WORDS * chunk + y}]" for y in range(CHUNK_WORDS))
            out.line(f"{names} = ptx.load_shared_words4(u32(at + u32({CHUNK * chunk})))")
        for skipped, least in ((2, 4), (1, 2)):
            words -= skipped
            with out.block(f"for y in range({words})"):
                out.line(f"word[y] = ptx.select(word[y + {skipped}], word[y], shift & u32({least}))")
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


def _emit_real_place(out: SourceWriter, traits: TiledTraits) -> None:
    """Two neighbouring places of each eight, as a row product leaves scores: `emit_real_sum_product` takes them so."""
    text = "A lane's places of each of its rows, 0 where the row does not keep one."
    with device_function(out, "place_values", ("weights", "at", "place", "counts", "shift", "done"), text):
        for row in range(LANE_ROWS):
            at = f"u32(u32(at + u32({MATRIX * traits.values_row * row})) + u32(4) * shift[{row}])"
            wrapped(
                out, "place_row", ("weights", str(LANE_ROWS * row), at, f"u32(place[{row}] + done)", f"counts[{row}]")
            )
    text = "Of a row; place: the lane's first one from the row's."
    function = device_function(out, "place_row", ("weights", "to", "at", "place", "count"), text)
    with function, out.block(f"for j in range({TILE_PLACES // MATRIX})"):
        for x in range(2):
            out.line(f"x_{x} = ptx.load_shared_word(u32(at + u32({4 * MATRIX} * j + {4 * x})))")
            out.line(f"kept = u32(1) if u32(place + u32({MATRIX} * j + {x})) < count else u32(0)")
            out.line(f"weights[4 * j + to + {x}] = ptx.select(x_{x}, u32(0), kept).view(np.float32)")


def _emit_keeps(out: SourceWriter, places: int) -> None:
    """places: from a lane's first one, of a row."""
    text = "Whether the warp keeps any place of a tile."
    with device_function(out, "keeps_any", ("place", "counts", "done"), text):
        for row in range(LANE_ROWS):
            last = f"u32(place[{row}] + u32(done + u32({places - 1})))"
            out.line(f"reach = u32(counts[{row}] + u32({places - 1})) if counts[{row}] > u32(0) else u32(0)")
            out.line(f"some_{row} = u32(1) if {last} < reach else u32(0)")
        out.line(f"return ptx.any_lane({' | '.join(f'some_{row}' for row in range(LANE_ROWS))})")
