"""Texts that take a matrix row by row: a warp a row, of which a lane has four adjacent numbers, then the next 128."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.simt.text import emit_element, emit_length_here
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import WARP, log2
from splat_numba.gen.targets.gpu.parts import KernelWriter

THREADS = 128
WARPS = THREADS // WARP
STEP = QUAD * WARP  # columns of a warp at once
COUNTS = ("heads", "rows", "pairs", "limit_first")


def row_entry(name: str, parameters: Sequence[tuple[str, str]], counts: Sequence[str]) -> Entry:
    """How such a kernel is called. counts: beside COUNTS."""
    numbers = ((one, "r") for one in (*COUNTS, *counts))
    return Entry(name, (*parameters, ("kv_lengths", "l"), *numbers), THREADS, 4, 0)


def emit_row_place(out: KernelWriter, operands: Sequence[str] = (), results: Sequence[str] = ()) -> None:
    """Which row is this warp's, where it stands in every matrix (``NAME_at``), and whether it is ``there``, and
    ``kept``: within the entry's key length. A warp without a row reads the first one, and stores nothing. No part of
    its own: NVVM then makes more of the loops that follow (benchmarks/results/flurka_tile_texts.md).
    """
    out.lines(
        f"""
        lane = u32(ptx.thread_index() & u32({WARP - 1}))
        number = u32(ptx.block_index() * u32({WARPS}) + (ptx.thread_index() >> u32({log2(WARP)})))
        there = u32(1) if number < pairs * rows else u32(0)
        number = number if there != u32(0) else u32(0)
        pair = u32(number // rows)
        row = u32(number - pair * rows)
        entry = u32(pair // heads)
        head = u32(pair - entry * heads)
        kept = u32(1)
        """
    )
    with out.block("if kv_lengths != u64(0)"):
        emit_length_here(out, "entry")
        out.line("kept = u32(1) if row < length else u32(0)")
    emit_matrix_places(out, (*operands, *results))


def emit_matrix_places(out: KernelWriter, names: Iterable[str]) -> None:
    """``NAME_at``: where ``row`` of an ``entry``'s ``head`` stands in every matrix."""
    for name in names:
        place = f"u64(entry) * {name}_batch + u64(head) * {name}_head + u64(row) * {name}_row"
        out.line(f"{name}_at = {name} + {place}")


@contextmanager
def columns_loop(out: KernelWriter, columns: str) -> Iterator[None]:
    """A lane's next four columns, from ``column``; of which ``here`` says whether there are any."""
    with out.block(f"for first in range(u32(0), {columns}, u32({STEP}))"):
        out.line(f"column = u32(u32(first) + u32({QUAD}) * lane)")
        out.line(f"here = u32(1) if column < {columns} else u32(0)")
        yield


def emit_numbers(out: KernelWriter, dtype: str, matrix: str, name: str, columns: str) -> None:
    """NAME_0 to NAME_3 of an operand, 0 beyond the last column or a row that is not kept."""
    with out.part(f"read_{matrix}", "A lane's four numbers of a row, 0 where there are none."):
        out.line(f"end = ptx.select({columns}, u32(0), kept)")
        for i in range(QUAD):
            out.line(f"when = u32(1) if u32(column + u32({i})) < end else u32(0)")
            at = f"{matrix}_at + u64(column + u32({i})) * {matrix}_column"
            emit_element(out, dtype, f"{name}_{i}", at, "when", f"{matrix}_at")


def emit_scratch(out: KernelWriter, matrix: str, name: str, columns: str | None = None) -> None:
    """NAME_0 to NAME_3 of a float32 matrix with padded rows. columns: then 0 beyond them; else whatever is there."""
    names = ", ".join(f"{name}_{i}" for i in range(QUAD))
    out.line(f"{names} = ptx.load_reals4({matrix}_at + u64(4) * u64(column if here != u32(0) else u32(0)))")
    if columns:
        for i in range(QUAD):
            when = f"u32(1) if u32(column + u32({i})) < {columns} else u32(0)"
            out.line(f"{name}_{i} = ptx.select_real({name}_{i}, f32(0.0), {when})")


def emit_kept(out: KernelWriter, name: str) -> None:
    """NAME_0 to NAME_3 become 0 in a row that is not kept."""
    for i in range(QUAD):
        out.line(f"{name}_{i} = ptx.select_real({name}_{i}, f32(0.0), kept)")


def place_of(matrix: str, dtype: str) -> str:
    """Where a lane's four numbers of a result go."""
    return f"{matrix}_at + u64({ITEMSIZE[dtype]}) * u64(column)"


def four(name: str) -> list[str]:
    """The names of a lane's numbers."""
    return [f"{name}_{i}" for i in range(QUAD)]
