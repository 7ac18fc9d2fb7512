"""What the tiled texts share: a block's rows and tiles, keys or values on their way, and packed values of a tile.

A packed value is 16 bits, and a word of them belongs to two columns of which the first may be the one before a tile's:
where a row is ``odd``, a lane's word has columns 2 lane - 1 and 2 lane, and column 63 stands alone behind the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.machine import WARP
from splat_numba.gen.packed_tiles import TILE_PLACES, TILE_ROWS
from splat_numba.gen.targets.gpu.addresses import emit_header
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, wrapped
from splat_numba.gen.targets.gpu.packed_walk import PLACES, ROWS, TOKEN_OF_PLACE, TOKEN_OF_ROW, emit_block
from splat_numba.gen.targets.sm80.packed.traits import PACKED_ROW, THREADS, TiledTraits
from splat_numba.gen.targets.sm80.shape import ATOM, CHUNK
from splat_numba.gen.targets.sm80.tiles import Load
from splat_numba.gen.writer import SourceWriter

OF_TILE = ("notes", "values_at", "corner")


def load_of(what: str, traits: TiledTraits, *, multiplied: bool) -> Load:
    """Of a tile's keys or values, whose places may be beyond the last column."""
    return Load(what, TILE_PLACES, traits.dim, THREADS, PLACES, TOKEN_OF_PLACE, True, multiplied)


def queries_of(traits: TiledTraits) -> Load:
    """Of a block's queries."""
    return Load("queries", TILE_ROWS, traits.dim, THREADS, ROWS, TOKEN_OF_ROW, True, True)


def emit_head(out: SourceWriter, traits: TiledTraits, what: str) -> None:
    """Docstring, imports, places in shared memory."""
    quotes = '"' * 3
    queries = f", QUERIES = u32({traits.notes_at}), u32({traits.queries_at})" if traits.family == "sddmm" else (
        f" = u32({traits.notes_at})"
    )  # fmt: skip
    out.lines(
        f"""
        {quotes}{what} by a warp's matrix products, generated for every mask whose rows share columns.

        Rows of {traits.dim} numbers, {traits.dtype}; {TILE_ROWS} rows x {TILE_PLACES} places a tile, by {THREADS}
        threads: each warp has {ATOM} rows. A tile is fetched while one is computed.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        {DEVICE}
        wait_for_copies = ptx.async_wait(0)

        # Shared memory, in bytes from its aligned start: two stages, a tile's packed values, the block's rows.
        STAGE_BYTES, PACKED = u32({traits.stage_bytes}), u32({traits.packed_at})
        NOTES{queries}
        """
    )


def emit_begin(out: SourceWriter, name: str, groups: Sequence[Sequence[str]]) -> None:
    """The entry function's first lines: which block, head and batch entry; the block's rows on their way to notes."""
    emit_header(out, name, groups)
    with out.suite():
        out.lines(
            f"""
            start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
            base = u32((start + u32({CHUNK - 1})) & u32({2**32 - CHUNK}))
            thread, stage = ptx.thread_index(), u32(0)
            lane, warp = u32(thread & u32({WARP - 1})), u32(thread // u32({WARP}))
            """
        )
        emit_block(out)
        out.lines(
            f"""
            notes = u32(base + NOTES + u32({CHUNK * ATOM}) * warp)
            packed = u32(base + PACKED + u32({ATOM * PACKED_ROW}) * warp)
            """
        )


def emit_row_of_tile(out: SourceWriter) -> None:
    """``row_of_tile`` and ``kept_of_word``: what a warp knows of a row in a tile, and a lane of its word of it.

    Of rows of which a tile keeps all places, the most, lanes learn by a word that they hand round: ``whole_rows``.
    """
    text = "Of row i: its place 0's value, that place from the row's first, pairs of the row; whether it is odd."
    with device_function(out, "row_of_tile", ("i", *OF_TILE), text):
        out.lines(
            f"""
            _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32({CHUNK}) * u32(i)))
            first, into = u32(slot + corner), u32(corner - begin)
            return first, into, count, odd_at(first, values_at)
            """
        )
    with device_function(out, "odd_at", ("first", "values_at"), "Whether a value is the second of its word."):
        out.line("return u32(u32(u32(values_at >> u64(1)) + first) & u32(1))")
    text = "Of the lane's row: twice its place 0's value and 1 where a tile's places are all kept, else 0."
    with device_function(out, "whole_rows", (*OF_TILE, "lane"), text):
        wrapped(out, "first, into, count, odd = row_of_tile", (f"u32(lane & u32({ATOM - 1}))", *OF_TILE))
        out.line(f"whole = (into < count) and (u32(into + u32({TILE_PLACES - 1})) < count)")
        out.line("return u32(u32(first << u32(1)) | u32(1)) if whole else u32(0)")
    text = "Whether a lane's word has a first value that is kept, a second; whether the place beyond the last word is."
    with device_function(out, "kept_of_word", ("into", "count", "odd", "lane"), text):
        out.lines(
            f"""
            column = u32(u32(lane + lane) - odd)
            low = u32(1) if (column < u32({TILE_PLACES})) and (u32(into + column) < count) else u32(0)
            high = u32(1) if u32(into + column + u32(1)) < count else u32(0)
            alone = odd if u32(into + u32({TILE_PLACES - 1})) < count else u32(0)
            return low, high, alone
            """
        )
