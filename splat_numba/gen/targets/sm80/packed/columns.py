"""Sparse times dense over the columns, in tiles: packed values where they stand, transposed, times rows of an array.

Warps of a block read a tile's packed values row by row, as `values` has them, put each row in shared memory from its
first place on, and take columns of it as rows of the left operand: reading a matrix transposes it. So nothing is copied
to the order of the transposed mask. Such a copy reads each value by itself from a sector of its own, 32 of them a
warp's instruction, which a multiprocessor takes a cycle each: some 1.2 cycles a pair, 1.2 ms of the 1.41 that 1024
tokens and 384 heads took on an H200 with half of the pairs kept, where `spmm` took 0.2.

What a tile of 64 x 64 places costs beside what it costs `spmm`: where its rows' values stand, anew for each tile, 60
instructions of a warp; 16 accesses of 128 bytes to shared memory a warp more, of 80. Predicted: 1.2 to 1.4 times spmm's
time.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, LANE_ROWS, MATRIX, ROW_LANES
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES, TILE_ROWS
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.gpu.packed_walk import COUNTS, LISTED, ROWS, TABLES, TOKEN_OF_ROW
from splat_numba.gen.targets.sm80.packed.spmm import emit_store
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits
from splat_numba.gen.targets.sm80.packed.values import OF_LANE, OF_TILE, ROW_OF_LANE, ROW_WORDS, WORDS, emit_values
from splat_numba.gen.targets.sm80.packed.walk import emit_head, emit_start
from splat_numba.gen.targets.sm80.shape import CHUNK, STAGES, row_bytes, steps
from splat_numba.gen.targets.sm80.tiles import (
    Load,
    SumProduct,
    emit_add,
    emit_load,
    emit_padding,
    emit_sum_product,
    of_stages,
    padded,
)

ARRAYS = ("values", "v", "out")
NOTED = 3  # words of a row that its values are found by: slot, begin, count
OF_ROWS = ("at", "ahead", "most", "shift", "counts")


def parameter_names() -> tuple[tuple[str, ...], ...]:
    """As of `spmm`, but that rows of v are those of the mask, and seq_q is how many columns there are."""
    return (*TABLES, *ARRAYS), ("scale",), (*COUNTS, "pairs")


def render_columns(traits: TiledTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out = SourceWriter()
    emit_head(out, traits, "Packed values, transposed, times the rows of a dense array")
    out.line(f"VALUES, ENDS = u32({traits.values_in_stage}), u32({traits.notes_at})")
    emit_start(out, traits, groups)
    with out.suite():
        _emit_entry(out, traits)
        _emit_tiles(out, traits)
    _emit_notes(out)
    emit_values(out, traits)
    _emit_put(out, traits)
    texts = ("A warp's columns of a tile times its rows of v.", "Sixteen rows.")
    pitch = row_bytes(traits.rows)
    product = SumProduct(
        "multiply_columns", ("total",), ("left",), "right", TILE_ROWS, traits.dim, texts, ATOM * pitch
    )  # fmt: skip
    emit_sum_product(out, product, traits.dtype)
    emit_store(out, traits)
    rows = Load("rows_of_v", TILE_ROWS, traits.dim, traits.threads, ROWS, TOKEN_OF_ROW, True, False, traits.itemsize)
    emit_load(out, rows)
    if padded((traits.dim,)):
        emit_padding(out, [(rows, of_stages("base", traits.stage_bytes, STAGES))])
    emit_add(out, traits.dtype)
    return out.text()


def _emit_entry(out: SourceWriter, traits: TiledTraits) -> None:
    """Four warps read a tile's rows, sixteen each, of 64 columns; of 128 columns other four read the rest of them."""
    rows, sums = LANE_ROWS, ATOM // 2 * steps(traits.dim)
    blocks = 2 * LISTED  # bytes of a block in its list
    out.lines(
        f"""
        item = ptx.block_index()
        pair = u32(item // blocks_listed)
        rank = u32(item - pair * blocks_listed)
        entry = u32(pair // heads)
        head = u32(pair - entry * heads)
        residue, lattice, corner, tiles = ptx.load_words4(blocks + u64({blocks}) * u64(rank))
        rows_at = rows + u64({LISTED}) * u64(ptx.load_word(blocks + u64({blocks}) * u64(rank) + u64({LISTED})))
        limit = seq_kv
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
        keep_ends(values_at, pairs, u32(base + ENDS), thread)
        copy_rows_of_v(v_at, v_row, base, {", ".join(ROWS)})
        ptx.async_commit()
        """
    )
    if padded((traits.dim,)):
        out.line("clear_padding(base)")
    warps = TILE_ROWS // ATOM
    out.lines(
        f"""
        side, strip = u32(warp // u32({warps})), u32(warp & u32({warps - 1}))
        row_of_tile, quarter = u32(u32({ATOM}) * strip + u32(lane >> u32(2))), u32(lane & u32({ROW_LANES - 1}))
        column = u32(corner + u32({TILE_PLACES}) * side + u32({OF_LANE}) * quarter)
        listed = rows_at + u64({LISTED}) * u64(row_of_tile)
        at = cuda.local.array({rows}, dtype=np.uint64)
        ahead, most, shift, counts = {", ".join([f"cuda.local.array({rows}, dtype=np.uint32)"] * 4)}
        notes = cuda.local.array({NOTED * rows}, dtype=np.uint32)
        words = cuda.local.array({ROW_WORDS * rows}, dtype=np.uint32)
        weights = cuda.local.array({WORDS * rows}, dtype=np.uint32)
        total = cuda.local.array({sums}, dtype=np.float32)
        for n in range({sums}):
            total[n] = f32(0.0)
        """
    )


def _emit_tiles(out: SourceWriter, traits: TiledTraits) -> None:
    """A tile's packed values are on their way to registers while the one before is multiplied, which all warps have put
    in shared memory; where its rows' values stand is read another tile ahead.
    """
    pitch = row_bytes(traits.rows)
    to = f"u32({pitch}) * row_of_tile + u32({2 * TILE_PLACES}) * side + u32({2 * OF_LANE}) * quarter"
    row_of_matrix = f"u32(u32(lane & u32({MATRIX - 1})) + u32({MATRIX}) * u32(lane >> u32(4)))"
    left = f"u32({pitch}) * {row_of_matrix} + u32({CHUNK}) * u32(u32(lane >> u32(3)) & u32(1)) + u32({2 * ATOM}) * warp"
    right = f"u32(lane & u32(15)) * u32({row_bytes(traits.dim)}) + u32(lane >> u32(4)) * u32({CHUNK})"
    tile = LISTED * TILE_ROWS
    fetch = f"fetch_values(words, values_at, {', '.join(OF_TILE)}, u32(0), near, pairs, u32(base + ENDS))"
    find = f"near = find_rows({', '.join(OF_ROWS)}, notes, values_at, column, pairs)"
    out.lines(
        f"""
        to = u32(base + VALUES + {to})
        left, right = u32(base + VALUES + {left}), u32(base + {right})
        read_notes(notes, listed)
        ptx.block_barrier()  # the head's ends are there
        {find}
        {fetch}
        while tiles > u32(0):
            now, stage, tiles = stage, u32(STAGE_BYTES - stage), u32(tiles - u32(1))
            rows_at, listed = rows_at + u64({tile}), listed + u64({tile})
            if tiles > u32(0):
                read_notes(notes, listed)
            place_values(weights, words, ahead, counts, shift, u32(0))
            put_values(weights, u32(to + now))
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            if tiles > u32(0):
                copy_rows_of_v(v_at, v_row, u32(base + stage), {", ".join(ROWS)})
            ptx.async_commit()
            if tiles > u32(0):
                {find}
                {fetch}
            multiply_columns(total, u32(left + now), u32(right + now))
        out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(4) * u64(quarter)
        for half in range({LANE_ROWS}):
            place = u32(u32({ATOM}) * warp + u32(lane >> u32(2)) + u32({MATRIX}) * u32(half))
            row = u32(residue + lattice * u32(corner + place))
            store_row(total, half, row, out_at, out_row, scale, seq_q)
        """
    )


def _emit_notes(out: SourceWriter) -> None:
    text = "Of each of a lane's rows of a tile where its values stand: slot, begin, count."
    with device_function(out, "read_notes", ("notes", "listed"), text), out.block(f"for i in range({LANE_ROWS})"):
        out.line(f"_, slot, begin, count = ptx.load_words4(listed + u64({LISTED * MATRIX} * i))")
        out.line(f"notes[{NOTED} * i], notes[{NOTED} * i + 1], notes[{NOTED} * i + 2] = slot, begin, count")
    text = (
        "Where a lane's chunks of them begin, and how many it has; whether the warp has some that are another head's."
    )
    with device_function(out, "find_rows", (*OF_ROWS, "notes", "values_at", "column", "pairs"), text):
        out.line("some_near = u32(0)")
        with out.block(f"for i in range({LANE_ROWS})"):
            out.line(f"slot, begin, count = notes[{NOTED} * i], notes[{NOTED} * i + 1], notes[{NOTED} * i + 2]")
            out.lines(ROW_OF_LANE)
        out.line("return ptx.any_lane(some_near)")


def _emit_put(out: SourceWriter, traits: TiledTraits) -> None:
    text = "A lane's places of its rows, side by side in the tile."
    with device_function(out, "put_values", ("weights", "to"), text):
        for row in range(LANE_ROWS):
            for chunk in range(2 * OF_LANE // CHUNK):
                at = f"u32(to + u32({MATRIX * row_bytes(traits.rows) * row + CHUNK * chunk}))"
                words = ", ".join(f"weights[{WORDS * row + CHUNK // 4 * chunk + y}]" for y in range(CHUNK // 4))
                out.line(f"ptx.store_shared_words4({at}, {words}, u32(1))")
