"""Sparse times dense in tiles: packed values of a warp's rows, as a dense tile, times the rows of v.

Packed values go straight from memory to the registers that the product wants them in. Of a row of a tile a lane has
sixteen neighbouring places, two chunks of 16 bytes and the next one where the row is shifted; which of them a product
takes as which of its sixteen columns is free, as long as rows of v stand in that order: so a lane's numbers are its
own, and rows of v are put down in the order of ``place_of``.

What a tile of 64 rows x 64 places of 64 numbers costs a multiprocessor: 8 KiB of packed values and, where 128 rows
share it, 4 KiB of v from the second-level cache, at some 30 bytes a cycle 400 cycles; 256 accesses of 128 bytes to
shared memory for v's matrices; packed values from memory, 470 cycles, which are the floor. Measured on an H200: 770 to
900. Of 0.059 ms (windows, 1024 tokens, 96 heads) 0.038 went without products and what they wait for, 0.023 without
putting values in place; a third of the instructions less changed little. So what is left is waiting for packed values,
which are one tile ahead: registers do not hold two.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, LANE_ROWS, LEFT_WORDS, MATRIX, ROW_LANES
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.packed_walk import COUNTS, LISTED, PLACES, TABLES
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits
from splat_numba.gen.targets.sm80.packed.values import OF_LANE, OF_TILE, ROW_OF_LANE, ROW_WORDS, WORDS, emit_values
from splat_numba.gen.targets.sm80.packed.walk import emit_begin, emit_bring, emit_head, load_of
from splat_numba.gen.targets.sm80.shape import CHUNK, STAGES, loads, row_bytes, steps
from splat_numba.gen.targets.sm80.tiles import emit_add, emit_padding, of_stages, padded

ARRAYS = ("values", "v", "out")
TOKEN = "token = u32(residue + lattice * u32(corner + place_of(place)))"  # noqa: S105 - a place in a sequence


def parameter_names() -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts. share: heads of values that have one of v; pairs: of a head."""
    return (*TABLES, *ARRAYS), ("scale",), (*COUNTS, "pairs")


def render_spmm(traits: TiledTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    emit_head(out, traits, "Packed values times the rows of a dense array")
    out.line(f"ENDS = u32({traits.notes_at})")
    emit_begin(out, traits, groups)
    with out.suite():
        _emit_entry(out, traits)
        _emit_tiles(out, traits)
    emit_values(out, traits)
    _emit_multiply(out, traits)
    emit_store(out, traits)
    rows = load_of("rows_of_v", traits, multiplied=False, token=TOKEN)
    emit_bring(out, rows)
    if padded((traits.dim,)):
        emit_padding(out, [(rows, of_stages("base", traits.stage_bytes, STAGES))])
    emit_add(out, traits.dtype)
    return out.text()


def _emit_entry(out: SourceWriter, traits: TiledTraits) -> None:
    """What a lane knows of its rows stays in registers: where its chunks of the block's first tile begin in memory, how
    far the first one's last place is from the row's first, how far that may be, by how many values chunks begin before
    the tile, and how many places the row keeps.
    """
    rows, sums = LANE_ROWS, ATOM // 2 * steps(traits.dim)
    out.lines(
        f"""
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
        keep_ends(values_at, pairs, u32(base + ENDS), thread)
        bring_rows_of_v(v_at, v_row, base, {", ".join(PLACES)})
        ptx.async_commit()
        """
    )
    if padded((traits.dim,)):
        out.line("clear_padding(base)")
    out.lines(
        f"""
        rows_at = rows_at + u64({LISTED}) * u64(u32(u32({ATOM}) * warp) + u32(lane >> u32(2)))
        column = u32(corner + u32({OF_LANE}) * u32(lane & u32({ROW_LANES - 1})))
        at = cuda.local.array({rows}, dtype=np.uint64)
        ahead, most, shift, counts = {", ".join([f"cuda.local.array({rows}, dtype=np.uint32)"] * 4)}
        some_near = u32(0)
        """
    )
    with out.block(f"for i in range({rows})"):
        out.line(f"_, slot, begin, count = ptx.load_words4(rows_at + u64({LISTED * MATRIX} * i))")
        out.lines(ROW_OF_LANE)
    out.lines(
        f"""
        near = ptx.any_lane(some_near)
        words = cuda.local.array({ROW_WORDS * rows}, dtype=np.uint32)
        weights = cuda.local.array({WORDS * rows}, dtype=np.uint32)
        total = cuda.local.array({sums}, dtype=np.float32)
        for n in range({sums}):
            total[n] = f32(0.0)
        """
    )


def _emit_tiles(out: SourceWriter, traits: TiledTraits) -> None:
    """A tile's packed values are on their way while the one before is multiplied."""
    of_rows = ", ".join(OF_TILE)
    out.lines(
        f"""
        right = u32(base + u32(lane & u32(15)) * u32({row_bytes(traits.dim)}) + u32(lane >> u32(4)) * u32({CHUNK}))
        ptx.block_barrier()  # the head's ends are there
        done = u32(0)
        busy = fetch_values(words, values_at, {of_rows}, done, near, pairs, u32(base + ENDS))
        while tiles > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            now, here, kept = stage, done, busy
            tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32({TILE_PLACES})), u32(STAGE_BYTES - stage)
            done = u32(done + u32({TILE_PLACES}))
            if tiles > u32(0):
                bring_rows_of_v(v_at, v_row, u32(base + stage), {", ".join(PLACES)})
            ptx.async_commit()
            if kept != u32(0):
                place_values(weights, words, ahead, counts, shift, here)
            if tiles > u32(0):
                busy = fetch_values(words, values_at, {of_rows}, done, near, pairs, u32(base + ENDS))
            if kept != u32(0):
                multiply_rows(total, weights, u32(right + now))
        out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(4) * u64(lane & u32(3))
        for half in range({LANE_ROWS}):
            row = ptx.load_word(rows_at + u64({LISTED * MATRIX} * half))
            store_row(total, half, row, out_at, out_row, scale, seq_q)
        """
    )


def _emit_multiply(out: SourceWriter, traits: TiledTraits) -> None:
    pitch, parameters = row_bytes(traits.dim), ("total", "weights", "right")
    text = "The place of a tile whose row of v stands at a row: of sixteen rows each lane of a row has four neighbours."
    with device_function(out, "place_of", ("row",), text):
        out.line(
            f"return u32(u32(u32(row & u32(6)) * u32({OF_LANE // LANE_ROWS})) | "
            "u32(u32(row >> u32(3)) * u32(2)) | u32(row & u32(1)))"
        )
    with device_function(out, "multiply_rows", parameters, "A warp's packed values times a tile's rows of v."):
        for step in range(TILE_PLACES // ATOM):
            at = f"u32(right + u32({ATOM * pitch * step}))"
            wrapped(out, "multiply_step", (str(2 * step), "total", "weights", at))
    with device_function(out, "multiply_step", ("at", *parameters), "Sixteen places of each row."):
        for i in range(LEFT_WORDS):
            out.line(f"a_{i} = weights[at + {WORDS * (i % LANE_ROWS) + i // LANE_ROWS}]")
        for j in range(steps(traits.dim)):
            out.line(f"b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32({2 * CHUNK * j})))")
            for half in (0, 1):
                left = ", ".join(f"a_{i}" for i in range(LEFT_WORDS))
                out.line(f"add_product(total, {8 * j + 4 * half}, {left}, b_{2 * half}, b_{2 * half + 1})")


def emit_store(out: SourceWriter, traits: TiledTraits) -> None:
    """``store_row``: of the results of a warp's sixteen rows."""
    parameters = ("total", "half", "row", "out_at", "out_row", "scale", "seq_q")
    with device_function(out, "store_row", parameters, "A lane's numbers of one of its rows."):
        out.lines(
            """
            there = u32(1) if row < seq_q else u32(0)
            to = out_at + u64(row) * out_row
            """
        )
        with out.block(f"for j in range({loads(traits.dim)})"):
            pair = ", ".join(f"total[4 * j + 2 * half + {x}] * scale" for x in (0, 1))
            out.line(f"ptx.store_word(to + u64({CHUNK} * j), ptx.pack_{traits.dtype}({pair}), there)")
