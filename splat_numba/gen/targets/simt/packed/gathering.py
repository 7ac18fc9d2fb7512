"""Packed values in the order of the transposed mask, so that tiles of it read them side by side.

A block has a few thousand neighbouring pairs, of several rows of the transposed mask: what these have beside each other
in memory, a sector of sixteen values, is then read by one multiprocessor at about the same time.
"""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import emit_header
from splat_numba.gen.targets.simt.packed.rows import emit_head, emit_load_number, emit_store_chunk, row_of
from splat_numba.gen.targets.simt.packed.traits import THREADS, PackedTraits
from splat_numba.gen.targets.simt.shape import CHUNK

ARRAYS = ("values", "turned")
COUNTS = ("blocks_listed", "pairs", "heads")
TURNS = 8  # chunks of results of a thread


def pairs_of_block(traits: PackedTraits) -> int:
    """Of the transposed mask, neighbours."""
    return THREADS * TURNS * traits.numbers.loaded


def parameter_names(_: PackedTraits) -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, counts. places: of each pair of the transposed mask, where its value stands."""
    return ("places", *ARRAYS), COUNTS


def render_gathering(traits: PackedTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out, of = SourceWriter(), traits.numbers.loaded
    emit_head(out, traits, "Packed values in the order of the transposed mask", f"a thread has {TURNS} chunks")
    emit_header(out, "gathering", groups)
    with out.suite():
        out.lines(
            f"""
            thread, item = ptx.thread_index(), ptx.block_index()
            pair = u32(item // blocks_listed)
            rank = u32(item - pair * blocks_listed)
            entry = u32(pair // heads)
            head = u32(pair - entry * heads)
            values_at = {row_of("values")}
            turned_at = {row_of("turned")}
            for i in range({TURNS}):
                chunk = u32(u32(rank * u32({THREADS * TURNS})) + u32(thread + u32({THREADS} * i)))
                first = u32(chunk * u32({of}))
                inside = u32(1) if first < pairs else u32(0)
                to = turned_at + u64({CHUNK}) * u64(chunk)
            """
        )
        with out.suite():
            for k in range(of):
                out.lines(
                    f"""
                    number = u32(first + u32({k}))
                    place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
                    x_{k} = load_number(values_at + values_row * u64(place))
                    """
                )
            emit_store_chunk(out, traits, [f"x_{k}" for k in range(of)], "inside")
    emit_load_number(out, traits.numbers)
    return out.text()
