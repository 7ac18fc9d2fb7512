"""What the tiled texts share: a block's rows and tiles, and keys or values on their way.

Packed values are read and written by whole chunks of 16 bytes, whose borders are memory's and not a tile's:
``shift`` values of a row's first chunk stand before those of a tile, as many in every tile, whose places are a multiple
of chunks. A chunk of which a row does not keep all is another row's too: ``values`` reads it and drops the rest,
``stored`` writes the row's part alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.language.lane_layout import ATOM, WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.packed.tiles import TILE_PLACES
from splat_numba.gen.targets.gpu.addresses import emit_header
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, wrapped
from splat_numba.gen.targets.gpu.packed_walk import PLACES, ROWS, TOKEN_OF_PLACE, TOKEN_OF_ROW, emit_block
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits
from splat_numba.gen.targets.sm80.shape import CHUNK
from splat_numba.gen.targets.sm80.tiles import OPAQUE_THREAD, Load, emit_load


def load_of(what: str, traits: TiledTraits, *, multiplied: bool, token: str = TOKEN_OF_PLACE) -> Load:
    """Of a tile's keys or values, whose places may be beyond the last column."""
    return Load(what, TILE_PLACES, traits.dim, traits.threads, PLACES, token, True, multiplied, traits.itemsize)


def queries_of(traits: TiledTraits) -> Load:
    """Of a block's queries."""
    return Load("queries", traits.rows, traits.dim, traits.threads, ROWS, TOKEN_OF_ROW, True, True, traits.itemsize)


def emit_head(out: SourceWriter, traits: TiledTraits, what: str) -> None:
    """Docstring, imports, places in shared memory."""
    quotes = '"' * 3
    out.lines(
        f"""
        {quotes}{what} by a warp's matrix products, generated for every mask whose rows share columns.

        Rows of {traits.dim} numbers, {traits.described}; {traits.rows} rows x {TILE_PLACES} places a tile, by
        {traits.threads} threads: each warp has {ATOM * traits.atoms} rows. A tile is fetched while one is computed.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        {DEVICE}
        wait_for_copies = ptx.async_wait({traits.stages - 2})

        # Shared memory, in bytes from its aligned start: {traits.layout}.
        STAGE_BYTES = u32({traits.stage_bytes})
        """
    )


def emit_bring(out: SourceWriter, load: Load) -> None:
    """``bring_<what>``: ``copy_<what>``, or where all tokens of the tile are there and threads are whole rows of chunks
    the same in a third of the instructions.
    """
    parameters = ("first", "step", "to", *load.parameters)
    emit_load(out, load)
    chunks = load.loads
    plain = (
        load.dim * load.itemsize % CHUNK == 0 and load.threads % chunks == 0 and load.rows * chunks % load.threads == 0
    )
    text = f"Begin to copy the {load.what} of a tile."
    with device_function(out, f"bring_{load.what}", parameters, text):
        if not plain:
            wrapped(out, f"copy_{load.what}", parameters)
            return
        last = f"u64(residue) + u64(lattice) * u64(u32(corner + u32({TILE_PLACES - 1})))"
        with out.block(f"if {last} < u64(limit)"):
            wrapped(out, f"copy_whole_{load.what}", parameters[:-1])
        with out.block("else"):
            wrapped(out, f"copy_{load.what}", parameters)
    together = load.threads // chunks
    with device_function(out, f"copy_whole_{load.what}", parameters[:-1], text):
        out.lines(
            f"""
            thread = {OPAQUE_THREAD}
            row, chunk = u32(thread // u32({chunks})), u32(thread % u32({chunks}))
            to = u32(to + row * u32({load.row_bytes}) + chunk * u32({CHUNK}))
            first = first + u64({CHUNK}) * u64(chunk)
            """
        )
        with out.block(f"for i in range({load.rows // together})"):
            out.line(f"place = u32(row + u32({together} * i))")
            out.line(load.token)
            at = f"u32(to + u32({load.row_bytes * together} * i))"
            out.line(f"ptx.async_copy({at}, first + u64(token) * step, u32(1))")


def emit_begin(out: SourceWriter, traits: TiledTraits, groups: Sequence[Sequence[str]]) -> None:
    """The entry function's first lines: which block, head and batch entry; where the block's rows are listed."""
    emit_start(out, traits, groups)
    with out.suite():
        emit_block(out, traits.rows)


def emit_start(out: SourceWriter, traits: TiledTraits, groups: Sequence[Sequence[str]]) -> None:
    """Its head; which thread this is, and where shared memory begins."""
    emit_header(out, traits.family, groups)
    with out.suite():
        out.lines(
            f"""
            start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
            base = u32((start + u32({CHUNK - 1})) & u32({2**32 - CHUNK}))
            thread, stage = ptx.thread_index(), u32(0)
            lane, warp = u32(thread & u32({WARP - 1})), u32(thread // u32({WARP}))
            """
        )
