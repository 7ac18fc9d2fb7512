"""Packed values of float32 from memory to the registers of a matrix product, by way of shared memory.

They are copied by chunks of 16 bytes, a few tiles ahead, from where a sector of 32 begins, which the second-level cache
reads as a whole: so up to seven values before a row's places, in every tile as many: ``shift``. A chunk with any place
that the row keeps is copied whole, as its other values are the same head's; of the two chunks at a head's ends that is
not so, and ``keep_ends`` has them in shared memory, read word by word.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, LANE_ROWS, MATRIX, ROW_LANES, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.packed.traits import VALUES_ROW, TiledTraits
from splat_numba.gen.targets.sm80.packed.values import emit_chunks
from splat_numba.gen.targets.sm80.shape import CHUNK
from splat_numba.gen.targets.sm80.tiles import ZEROS

OF_ROW = ("at", "ahead", "most")
OF_TILE = OF_ROW  # of each of a lane's rows, for the first tile


def emit_values(out: SourceWriter, traits: TiledTraits) -> None:
    """``fetch_values``, ``place_values``, ``clear_values``, ``keeps_any``, and what `emit_chunks` has."""
    emit_chunks(out, traits, traits.of_sector)
    _emit_clear(out, traits)
    _emit_fetch(out, traits)
    _emit_place(out)
    _emit_keeps(out)


def copied(traits: TiledTraits) -> range:
    """Chunks of a row by a lane: every fourth one."""
    return range(TILE_PLACES // traits.of_chunk // ROW_LANES + 1)


def _emit_clear(out: SourceWriter, traits: TiledTraits) -> None:
    text = "What nothing is copied to is read all the same."
    with device_function(out, "clear_values", ("to", "lane"), text):
        chunks = ATOM * VALUES_ROW // CHUNK
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
                    of_row = (f"u32(to + u32({MATRIX * VALUES_ROW * row}))", *given, f"at_{row}", f"ahead_{row}")
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
    """``some_<chunk>``: whether the row has a place of it; of the last four only those are, that its shift reaches."""
    chunks = copied(traits)
    for chunk in chunks:
        out.line(f"some_{chunk} = u32(1) if u32(ahead + u32({_bytes(chunk) // traits.itemsize})) < most else u32(0)")
    last = f"some_{chunks[-1]}"
    before = f"u32(u32(ptx.thread_index() & u32({ROW_LANES - 1})) * u32({traits.of_chunk}))"
    out.line(f"{last} = {last} if {before} < shift else u32(0)")


def _emit_place(out: SourceWriter) -> None:
    """Two neighbouring places of each eight, as a row product leaves scores: `emit_real_sum_product` takes them so."""
    text = "A lane's places of each of its rows, 0 where the row does not keep one."
    with device_function(out, "place_values", ("weights", "at", "place", "counts", "shift", "done"), text):
        for row in range(LANE_ROWS):
            at = f"u32(u32(at + u32({MATRIX * VALUES_ROW * row})) + u32(4) * shift[{row}])"
            wrapped(out, "place_row", ("weights", str(2 * row), at, f"u32(place[{row}] + done)", f"counts[{row}]"))
    text = "Of a row; place: the lane's first one from the row's."
    function = device_function(out, "place_row", ("weights", "to", "at", "place", "count"), text)
    with function, out.block(f"for j in range({TILE_PLACES // MATRIX})"):
        for x in range(2):
            out.line(f"x_{x} = ptx.load_shared_word(u32(at + u32({4 * MATRIX} * j + {4 * x})))")
            out.line(f"kept = u32(1) if u32(place + u32({MATRIX} * j + {x})) < count else u32(0)")
            out.line(f"weights[4 * j + to + {x}] = ptx.select(x_{x}, u32(0), kept).view(np.float32)")


def _emit_keeps(out: SourceWriter) -> None:
    text = "Whether the warp keeps any place of a tile."
    with device_function(out, "keeps_any", ("place", "counts", "done"), text):
        for row in range(LANE_ROWS):
            last = f"u32(place[{row}] + u32(done + u32({TILE_PLACES - 1})))"
            out.line(f"reach = u32(counts[{row}] + u32({TILE_PLACES - 1})) if counts[{row}] > u32(0) else u32(0)")
            out.line(f"some_{row} = u32(1) if {last} < reach else u32(0)")
        out.line(f"return ptx.any_lane({' | '.join(f'some_{row}' for row in range(LANE_ROWS))})")
