"""Rows of 16-bit numbers on their way to shared memory while earlier ones are worked on: asynchronous copies.

A lane fetches what it will need itself (rows.py says which 16 bytes those are), and reads it back where it put it, so
no lane waits for another. Prefetches into registers do not do: ptxas moves their loads behind the work they should hide
behind, to save the registers (38 us for 134 MB on an H200).
"""

from __future__ import annotations

from flurka_numba.targets.sm90.shape import CHUNK, chunks
from splat_numba.gen.writer import SourceWriter

THREADS = 128
PIECE_BYTES = 16 * THREADS  # 16 bytes of every lane


def tile_bytes(dim: int) -> int:
    """Shared memory of one tile of 64 rows."""
    return 2 * chunks(dim) * PIECE_BYTES


def emit_staging(out: SourceWriter, buffers: str, dim: int, stages: int) -> None:
    """Names, and zeros for columns that are nowhere. buffers: the address of ``stages`` tiles, as text.

    The text has row_in_tile, eighth, thread, and tile and last: the tiles that are wanted.
    """
    out.lines(
        f"""
        first_stage = u32({buffers} + u32(16) * thread)
        stage_in = first_stage
        stage_out = first_stage
        tile_in = tile
        """
    )
    for chunk in range(chunks(dim)):
        if CHUNK * (chunk + 1) <= dim:
            continue
        out.line(f"absent = u32(1) if eighth >= u32({dim - CHUNK * chunk}) else u32(0)")
        for stage in range(stages):
            for row in (0, 1):
                at = f"first_stage + u32({stage * tile_bytes(dim) + (2 * chunk + row) * PIECE_BYTES})"
                out.line(f"ptx.store_shared_words4({at}, u32(0), u32(0), u32(0), u32(0), absent)")


def emit_fetch(out: SourceWriter, source: str, dim: int, rows: str, stages: int) -> None:
    """Fetch the next tile, if there is one; rows beyond the last of ``rows`` are the last again. source: a name, with
    ``source``_at (address of the lane's columns of row 0) and ``source``_row (bytes of a row).
    """
    out.line("there = u32(1) if tile_in < last else u32(0)")
    for row in (0, 1):
        out.line(f"row = u32(tile_in * u32(64) + row_in_tile + u32({8 * row}))")
        out.line(f"row = row if row < {rows} else u32({rows} - u32(1))")
        for chunk in range(chunks(dim)):
            when = "there"
            if CHUNK * (chunk + 1) > dim:
                when = f"there if eighth < u32({dim - CHUNK * chunk}) else u32(0)"
            to = f"stage_in + u32({(2 * chunk + row) * PIECE_BYTES})"
            out.line(f"ptx.async_copy({to}, {source}_at + u64(row) * {source}_row + u64({2 * CHUNK * chunk}), {when})")
    out.line("ptx.async_commit()")
    out.line("tile_in = u32(tile_in + u32(1))")
    _emit_next(out, "stage_in", dim, stages)


def emit_take(out: SourceWriter, dim: int, stages: int, to: str) -> None:
    """The lane's words of the tile that was fetched first, once they are there: ``wait_for_stage`` is
    ptx.async_wait(stages - 1), since as many fetches were issued after it.
    """
    out.line("wait_for_stage()")
    for piece in range(2 * chunks(dim)):
        names = ", ".join(f"{to}[{4 * piece + i}]" for i in range(4))
        out.line(f"{names} = ptx.load_shared_words4(stage_out + u32({piece * PIECE_BYTES}))")
    _emit_next(out, "stage_out", dim, stages)


def _emit_next(out: SourceWriter, name: str, dim: int, stages: int) -> None:
    out.line(f"{name} = u32({name} + u32({tile_bytes(dim)}))")
    out.line(f"{name} = first_stage if {name} == first_stage + u32({stages * tile_bytes(dim)}) else {name}")
