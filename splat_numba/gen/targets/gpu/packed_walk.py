"""What texts over PackedTiles share, whatever multiplies there: a block of rows, its tiles, the list of its rows."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_ROWS
from splat_numba.gen.targets.gpu.functions import device_function

LISTED = 16  # bytes of a row or a block in its list
TABLES = ("rows", "blocks")
COUNTS = ("blocks_listed", "heads", "share", "seq_q", "seq_kv")
PLACES = ("corner", "residue", "lattice", "limit")  # of a tile: its first place, and which column a place is
TOKEN_OF_PLACE = "token = u32(residue + lattice * u32(corner + place))"  # noqa: S105 - a place in a sequence
ROWS = ("rows_at", "limit")
TOKEN_OF_ROW = "token = ptx.load_word(rows_at + u64(16) * u64(place))  # 2**32 - 1: none"  # noqa: S105 - likewise


def emit_block(out: SourceWriter, rows: int = TILE_ROWS) -> None:
    """Which block of rows, head and batch entry a thread block has; the first tile. heads: of the result; rows: of a
    block.
    """
    out.lines(
        f"""
        item = ptx.block_index()
        pair = u32(item // blocks_listed)
        rank = u32(item - pair * blocks_listed)
        entry = u32(pair // heads)
        head = u32(pair - entry * heads)
        rows_at = rows + u64({LISTED * rows}) * u64(rank)
        residue, lattice, corner, tiles = ptx.load_words4(blocks + u64({LISTED}) * u64(rank))
        limit = seq_kv
        """
    )


def emit_keep_rows(out: SourceWriter) -> None:
    """The block's list of rows in shared memory: row, slot, begin, count."""
    text = "The block's rows, where all its warps find them."
    with device_function(out, "keep_rows", ("rows_at", "to", "thread"), text):
        out.lines(
            f"""
            place = u32(thread & u32({TILE_ROWS - 1}))
            row, slot, begin, count = ptx.load_words4(rows_at + u64({LISTED}) * u64(place))
            mine = u32(1) if thread < u32({TILE_ROWS}) else u32(0)
            ptx.store_shared_words4(u32(to + u32({LISTED}) * place), row, slot, begin, count, mine)
            """
        )
