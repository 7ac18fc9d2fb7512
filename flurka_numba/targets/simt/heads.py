"""Texts that take a head a block: its warps go through the rows by turns, and what they found is put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flurka_numba.targets.gpu.lanes import LANE, QUAD, QUAD_BYTES, WARP_OF_BLOCK
from flurka_numba.targets.gpu.warps import emit_largest_of_warp
from flurka_numba.targets.simt.rows import emit_matrix_places
from flurka_numba.targets.simt.text import SHARED_ALIGNMENT
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter

THREADS = 256
WARPS = THREADS // WARP


def head_entry(name: str, parameters: Sequence[tuple[str, str]], counts: Sequence[str]) -> Entry:
    """How such a kernel is called. counts: beside the number of heads."""
    numbers = ((one, "r") for one in ("heads", *counts))
    return Entry(name, (*parameters, *numbers), THREADS, 4, QUAD_BYTES * WARPS + SHARED_ALIGNMENT)


def emit_head_place(out: KernelWriter) -> None:
    """Which head this block's is, and the part of a thread."""
    emit_shared_start(out, "leaders", SHARED_ALIGNMENT)
    out.lines(
        f"""
        thread = ptx.thread_index()
        lane = u32{LANE}
        warp = u32{WARP_OF_BLOCK}
        pair = ptx.block_index()
        entry = u32(pair // heads)
        head = u32(pair - entry * heads)
        """
    )


@contextmanager
def head_rows_loop(out: KernelWriter, matrices: Sequence[str], end: str) -> Iterator[None]:
    """A warp's next ``row`` before ``end``, and where it stands in every matrix (``NAME_at``). Warps that have
    none left take one of the others' once more.
    """
    with out.block(f"for first_row in range(u32(0), {end}, u32({WARPS}))"):
        out.line("row = u32(u32(first_row) + warp)")
        out.line(f"there = u32(1) if row < {end} else u32(0)")
        out.line("row = row if there != u32(0) else u32(first_row)")
        emit_matrix_places(out, matrices)
        yield


def emit_largest_of_block(out: KernelWriter, names: Sequence[str]) -> None:
    """Up to four numbers of each lane become the largest of the whole block."""
    with out.part("put_together", "The largest numbers of a warp's become those of the whole block's."):
        for name in names:
            emit_largest_of_warp(out, name)
        four = [*names, *[names[-1]] * (QUAD - len(names))]
        out.line("leader = u32(1) if lane == u32(0) else u32(0)")
        out.line(f"ptx.store_shared_reals4(leaders + u32({QUAD_BYTES}) * warp, {', '.join(four)}, leader)")
        out.line("ptx.block_barrier()")
        with out.block(f"for other in range({WARPS})"):
            out.line(f"a, b, c, d = ptx.load_shared_reals4(leaders + u32({QUAD_BYTES}) * u32(other))")
            for name, found in zip(names, "abcd", strict=False):
                out.line(f"{name} = ptx.maximum({name}, {found})")
