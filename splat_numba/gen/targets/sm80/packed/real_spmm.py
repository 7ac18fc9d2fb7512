"""Sparse times dense in tiles of float32: packed values of a warp's rows, as a dense tile, times the rows of v.

Packed values and rows of v are copied to shared memory two tiles ahead, and multiplied by three products of TF32. A
tile of 64 rows x 64 places of 64 numbers is predicted to cost a multiprocessor 1200 cycles for these, where FMA units
took 3500 on an H200; its floor, packed values from memory, is 900.
"""

from __future__ import annotations

from splat_numba.gen.language.dtypes import IEEE
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, ROW_LANES, sums_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.packed_walk import LISTED, PLACES
from splat_numba.gen.targets.sm80.packed.real_values import OF_TILE, emit_values
from splat_numba.gen.targets.sm80.packed.traits import VALUES_ROW, TiledTraits
from splat_numba.gen.targets.sm80.packed.walk import emit_begin, emit_bring, emit_head, load_of
from splat_numba.gen.targets.sm80.real_products import emit_real_helpers, emit_real_sum_product
from splat_numba.gen.targets.sm80.shape import CHUNK, loads, row_bytes, steps
from splat_numba.gen.targets.sm80.tiles import SumProduct, emit_padding, of_stages, padded


def render_real_spmm(traits: TiledTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    emit_head(out, traits, "Packed values times the rows of a dense array")
    out.line(f"VALUES, ENDS = u32({traits.values_in_stage}), u32({traits.notes_at})")
    emit_begin(out, traits, groups)
    with out.suite():
        _emit_entry(out, traits)
        _emit_tiles(out, traits)
    emit_values(out, traits)
    _emit_multiply(out, traits)
    _emit_store(out, traits)
    rows = load_of("rows_of_v", traits, multiplied=False)
    emit_bring(out, rows)
    if padded((traits.dim,), traits.itemsize):
        emit_padding(out, [(rows, of_stages("base", traits.stage_bytes, traits.stages))])
    emit_real_helpers(out, IEEE)
    return out.text()


def _emit_entry(out: SourceWriter, traits: TiledTraits) -> None:
    """What a lane knows of its rows stays in registers: where its chunks of the block's first tile begin in memory, how
    far the first one's last place is from the row's first, how far that may be, by how many values chunks begin before
    the tile; the lane's first place from the row's first, and how many the row keeps.
    """
    rows, sums, of = LANE_ROWS, ATOM // 2 * steps(traits.dim), traits.of_chunk
    out.lines(
        f"""
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
        keep_ends(values_at, pairs, u32(base + ENDS), thread)
        clear_values(u32(base + VALUES + u32({ATOM * VALUES_ROW}) * warp), lane)
        """
    )
    if padded((traits.dim,), traits.itemsize):
        out.line("clear_padding(base)")
    out.lines(
        f"""
        rows_at = rows_at + u64({LISTED}) * u64(u32(u32({ATOM}) * warp) + u32(lane >> u32(2)))
        quarter = u32(lane & u32({ROW_LANES - 1}))
        column = u32(corner + u32({of}) * quarter)
        at = cuda.local.array({rows}, dtype=np.uint64)
        ahead, most, shift = {", ".join([f"cuda.local.array({rows}, dtype=np.uint32)"] * 3)}
        place, counts = {", ".join([f"cuda.local.array({rows}, dtype=np.uint32)"] * 2)}
        some_near = u32(0)
        for i in range({rows}):
            _, slot, begin, count = ptx.load_words4(rows_at + u64({LISTED * MATRIX} * i))
            shift[i] = shift_of(values_at, u32(slot + corner))
            at[i] = values_at + u64({traits.itemsize}) * signed(u32(slot + column - shift[i]))
            ahead[i], counts[i] = u32(u32(column - shift[i] - begin) + u32({of - 1})), count
            place[i] = u32(u32(corner + u32({LANE_COLUMNS}) * quarter) - begin)
            most[i] = u32(count + u32({of - 1})) if count > u32(0) else u32(0)
            some_near = some_near | near_ends(u32(slot + begin), count, pairs)
        near = ptx.any_lane(some_near)
        weights = cuda.local.array({sums_of(TILE_PLACES)}, dtype=np.float32)
        total = cuda.local.array({sums}, dtype=np.float32)
        for n in range({sums}):
            total[n] = f32(0.0)
        """
    )


def _emit_tiles(out: SourceWriter, traits: TiledTraits) -> None:
    """Packed values and rows of v are on their way to all stages but the one that is multiplied."""
    ahead, size = traits.stages - 1, traits.stage_bytes
    pitch = row_bytes(traits.dim, traits.itemsize)
    right = f"quarter * u32({LANE_COLUMNS * pitch}) + u32(lane >> u32(2)) * u32({CHUNK // 2})"
    places, fetch = ", ".join(PLACES), f"fetch_values({{}}, values_at, {', '.join(OF_TILE)}, shift, {{}}, near, pairs"
    out.lines(
        f"""
        right = u32(base + {right})
        row_of_values = u32(u32(u32({ATOM}) * warp + u32(lane >> u32(2))) * u32({VALUES_ROW}))
        to = u32(base + VALUES + row_of_values + u32({CHUNK}) * quarter)
        left = u32(base + VALUES + row_of_values + u32({LANE_COLUMNS * traits.itemsize}) * quarter)
        ptx.block_barrier()  # the head's ends are there
        done, coming, filled, last = u32(0), u32(0), u32(0), u32({size * ahead})
        for i in range({ahead}):
            if coming < u32(u32({TILE_PLACES}) * tiles):
                bring_rows_of_v(v_at, v_row, u32(base + filled), {places})
                {fetch.format("u32(to + filled)", "coming")}, u32(base + ENDS))
            ptx.async_commit()
            coming, corner = u32(coming + u32({TILE_PLACES})), u32(corner + u32({TILE_PLACES}))
            filled = u32(filled + STAGE_BYTES)
        end = u32(u32({TILE_PLACES}) * tiles)
        while done < end:
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the stage any more that is filled now
            now, here = stage, done
            stage = u32(stage + STAGE_BYTES) if stage != last else u32(0)
            done = u32(done + u32({TILE_PLACES}))
            if coming < end:
                bring_rows_of_v(v_at, v_row, u32(base + filled), {places})
                {fetch.format("u32(to + filled)", "coming")}, u32(base + ENDS))
            ptx.async_commit()
            coming, corner = u32(coming + u32({TILE_PLACES})), u32(corner + u32({TILE_PLACES}))
            filled = u32(filled + STAGE_BYTES) if filled != last else u32(0)
            if keeps_any(place, counts, here) != u32(0):
                place_values(weights, u32(left + now), place, counts, shift, here)
                multiply_rows(total, weights, u32(right + now))
        out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64({CHUNK}) * u64(quarter)
        for half in range({LANE_ROWS}):
            row = ptx.load_word(rows_at + u64({LISTED * MATRIX} * half))
            store_row(total, half, row, out_at, out_row, scale, seq_q)
        """
    )


def _emit_multiply(out: SourceWriter, traits: TiledTraits) -> None:
    texts = ("A warp's packed values times a tile's rows of v.", "")
    sum_product = SumProduct("multiply_rows", ("total",), ("weights",), "right", TILE_PLACES, traits.dim, texts)
    emit_real_sum_product(out, sum_product, IEEE)


def _emit_store(out: SourceWriter, traits: TiledTraits) -> None:
    """Of each sixteen columns a lane has four neighbours, in the order of `emit_real_sum_product`."""
    parameters = ("total", "half", "row", "out_at", "out_row", "scale", "seq_q")
    with device_function(out, "store_row", parameters, "A lane's numbers of one of its rows."):
        out.lines(
            f"""
            there = u32(1) if row < seq_q else u32(0)
            to, quarter = out_at + u64(row) * out_row, u32(ptx.thread_index() & u32({ROW_LANES - 1}))
            """
        )
        with out.block(f"for m in range({steps(traits.dim)})"):
            four = ", ".join(f"total[8 * m + 2 * half + {4 * x + y}] * scale" for y in (0, 1) for x in (0, 1))
            out.line(f"inside = there if u32(quarter + u32({ROW_LANES} * m)) < u32({loads(traits.dim, 4)}) else u32(0)")
            out.line(f"ptx.store_reals4(to + u64({ATOM * 4} * m), {four}, inside)")
