"""Sparse times dense in tiles: packed values of sixteen rows a warp, as a dense tile, times the rows of v.

Whole chunks are copied as they stand, in the background; others are put together, with 0 for what a row does not keep.
A lane then takes two neighbours from the words that they are in.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.packed_walk import COUNTS, PLACES, TABLES, emit_keep_rows
from splat_numba.gen.targets.sm80.packed.traits import PACKED_ROW, TiledTraits
from splat_numba.gen.targets.sm80.packed.walk import emit_begin, emit_head, emit_kept_chunk, load_of
from splat_numba.gen.targets.sm80.shape import CHUNK, NUMBERS, STAGES, loads, row_bytes, steps
from splat_numba.gen.targets.sm80.tiles import ZEROS, emit_add, emit_load, emit_padding, of_stages, padded

ARRAYS = ("values", "v", "out")
CHUNKS = TILE_PLACES // NUMBERS  # of a row, beside one more where its places begin within the first
OF_TILE = ("notes", "values_at", "corner")


def parameter_names() -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts. share: heads of values that have one of v."""
    return (*TABLES, *ARRAYS), ("scale",), COUNTS


def render_spmm(traits: TiledTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    emit_head(out, traits, "Packed values times the rows of a dense array")
    out.line(f"NOTES = u32({traits.notes_at})")
    emit_begin(out, "spmm", groups)
    with out.suite():
        _emit_entry(out, traits)
    _emit_places(out)
    _emit_copy(out)
    emit_kept_chunk(out)
    emit_keep_rows(out)
    _emit_multiply(out, traits)
    _emit_store(out, traits)
    rows = load_of("rows_of_v", traits, multiplied=False)
    emit_load(out, rows)
    if padded((traits.dim,)):
        emit_padding(out, [(rows, of_stages("base", traits.stage_bytes, STAGES))])
    emit_add(out, traits.dtype)
    return out.text()


def _emit_entry(out: SourceWriter, traits: TiledTraits) -> None:
    where, of_tile = ", ".join(PLACES), ", ".join(OF_TILE)
    sums = ATOM // 2 * steps(traits.dim)
    out.lines(
        f"""
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
        keep_rows(rows_at, u32(base + NOTES), thread)
        notes = u32(base + NOTES + u32({CHUNK * ATOM}) * warp)
        packed = u32(base + PACKED + u32({ATOM * PACKED_ROW}) * warp)
        ptx.block_barrier()  # the list of rows is there
        copy_values(packed, {of_tile}, lane)
        copy_rows_of_v(v_at, v_row, base, {where})
        ptx.async_commit()
        """
    )
    if padded((traits.dim,)):
        out.line("clear_padding(base)")
    out.lines(
        f"""
        total = cuda.local.array({sums}, dtype=np.float32)
        for n in range({sums}):
            total[n] = f32(0.0)
        first_row = u32(lane >> u32(2))
        upper, upper_odd = place_of_row(packed, {of_tile}, lane, first_row)
        lower, lower_odd = place_of_row(packed, {of_tile}, lane, u32(first_row + u32(8)))
        right = u32(base + u32(lane & u32(15)) * u32({row_bytes(traits.dim)}) + u32(lane >> u32(4)) * u32({CHUNK}))
        while tiles > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            now = stage
            tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES})), u32(STAGE_BYTES - stage)
            if tiles > u32(0):
                copy_values(u32(packed + stage), {of_tile}, lane)
                copy_rows_of_v(v_at, v_row, u32(base + stage), {where})
            ptx.async_commit()
            multiply_rows(total, u32(upper + now), upper_odd, u32(lower + now), lower_odd, u32(right + now))
        out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(4) * u64(lane & u32(3))
        for half in range(2):
            row = ptx.load_shared_word(u32(notes + u32({CHUNK}) * u32(first_row + u32(8 * half))))
            store_row(total, half, row, out_at, out_row, scale, seq_q)
        """
    )


def _emit_places(out: SourceWriter) -> None:
    text = "Of one of a warp's rows, where a lane's first values stand in stage 0; whether they begin within a word."
    with device_function(out, "place_of_row", ("packed", *OF_TILE, "lane", "which"), text):
        out.lines(
            f"""
            slot = ptx.load_shared_word(u32(notes + u32({CHUNK}) * which + u32(4)))
            shift = shift_of(values_at, slot, corner)
            to = u32(packed + u32({PACKED_ROW}) * which)
            return u32(to + u32(4) * u32(u32(shift >> u32(1)) + u32(lane & u32(3)))), u32(shift & u32(1))
            """
        )
    text = "Values of the chunk of a tile's first value that stand before it: of a row always as many."
    with device_function(out, "shift_of", ("values_at", "slot", "corner"), text):
        out.line(f"return u32(u32(u32(values_at >> u64(1)) + slot + corner) & u32({NUMBERS - 1}))")


def _emit_copy(out: SourceWriter) -> None:
    """Neighbouring lanes have neighbouring chunks: a warp's request is then of few lines. Chunks of which a row keeps
    all go in the background.
    """
    text = "A tile's packed values on their way: eight chunks of each row, and of rows that are shifted the ninth."
    with device_function(out, "copy_values", ("to", *OF_TILE, "lane"), text):
        of_tile = ", ".join(OF_TILE)
        for turn in range(ATOM * CHUNKS // WARP):
            which = f"u32(u32({WARP // CHUNKS * turn}) + u32(lane // u32({CHUNKS})))"
            out.line(f"copy_chunk(to, {of_tile}, {which}, u32(lane & u32({CHUNKS - 1})), u32(1))")
        last = f"u32(1) if lane < u32({ATOM}) else u32(0)"
        out.line(f"copy_chunk(to, {of_tile}, u32(lane & u32({ATOM - 1})), u32({CHUNKS}), {last})")
    text = "A chunk of a row: copied where all of it is kept, else put together where some of it is, else 0."
    with device_function(out, "copy_chunk", ("to", *OF_TILE, "which", "chunk", "mine"), text):
        out.lines(
            f"""
            _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32({CHUNK}) * which))
            shift = shift_of(values_at, slot, corner)
            wanted = mine if (chunk < u32({CHUNKS})) or (shift != u32(0)) else u32(0)
            to = u32(to + u32({PACKED_ROW}) * which + u32({CHUNK}) * chunk)
            place = u32(corner + u32({NUMBERS}) * chunk - shift)
            into, whole, some = kept_chunk(place, begin, count)
            whole, some = whole & wanted, some & wanted
            ptx.async_copy(to, values_at + u64(2) * u64(u32(slot + place)), whole)
            rest = u32(mine - whole)
            if ptx.any_lane(u32(some - whole)) != u32(0):
                put_chunk(to, values_at, u32(slot + place), into, count, rest)
            else:
                ptx.store_shared_words4(to, {ZEROS}, rest)
            """
        )
    with device_function(out, "put_chunk", ("to", "values_at", "first", "into", "count", "when"), "Word by word."):
        for y in range(4):
            out.line(f"word_{y} = kept_word(values_at, u32(first + u32({2 * y})), u32(into + u32({2 * y})), count)")
        out.line("ptx.store_shared_words4(to, word_0, word_1, word_2, word_3, when)")
    text = "Two neighbouring values, 0 for one that is not the row's; first: the number of the first."
    with device_function(out, "kept_word", ("values_at", "first", "into", "count"), text):
        out.lines(
            """
            low = u32(1) if into < count else u32(0)
            high = u32(1) if u32(into + u32(1)) < count else u32(0)
            at = values_at + u64(2) * u64(u32(first + u32(1))) - u64(2)
            word = ptx.real_bits(ptx.load_real_when(at, low | high))
            kept = u32(u32(low * u32(65535)) | u32(high * u32(4294901760)))
            return u32(word & kept)
            """
        )


def _emit_multiply(out: SourceWriter, traits: TiledTraits) -> None:
    pitch, rows = row_bytes(traits.dim), ("upper", "upper_odd", "lower", "lower_odd", "right")
    with device_function(out, "multiply_rows", ("total", *rows), "A warp's packed values times a tile's rows of v."):
        for step in range(TILE_PLACES // ATOM):
            offset = f"u32({2 * CHUNK * step})"
            at = (f"u32(upper + {offset})", "upper_odd", f"u32(lower + {offset})", "lower_odd")
            wrapped(out, "multiply_step", ("total", *at, f"u32(right + u32({ATOM * pitch * step}))"))
    left = ", ".join(f"a_{i}" for i in range(4))
    with device_function(out, "multiply_step", ("total", *rows), "Sixteen places of each row."):
        for i in range(4):
            row = ("upper", "lower")[i % 2]
            out.line(f"a_{i} = two_values(u32({row} + u32({CHUNK * (i // 2)})), {row}_odd)")
        for j in range(steps(traits.dim)):
            out.line(f"b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32({2 * CHUNK * j})))")
            for half in (0, 1):
                out.line(f"add_product(total, {8 * j + 4 * half}, {left}, b_{2 * half}, b_{2 * half + 1})")
    with device_function(out, "two_values", ("at", "odd"), "Two neighbours, from the words that they are in."):
        out.lines(
            """
            word, after = ptx.load_shared_word(at), ptx.load_shared_word(u32(at + u32(4)))
            across = u32(u32(word >> u32(16)) | u32(after << u32(16)))
            return across if odd != u32(0) else word
            """
        )


def _emit_store(out: SourceWriter, traits: TiledTraits) -> None:
    parameters = ("total", "half", "row", "out_at", "out_row", "scale", "seq_q")
    with device_function(out, "store_row", parameters, "A lane's numbers of one of its two rows."):
        out.lines(
            """
            there = u32(1) if row < seq_q else u32(0)
            to = out_at + u64(row) * out_row
            """
        )
        with out.block(f"for j in range({loads(traits.dim)})"):
            pair = ", ".join(f"total[4 * j + 2 * half + {x}] * scale" for x in (0, 1))
            out.line(f"ptx.store_word(to + u64({CHUNK} * j), ptx.pack_{traits.dtype}({pair}), there)")
