"""What the texts of packed operators share: a warp's row, its pairs 32 at a time, and numbers from and to memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import emit_header
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.simt.arithmetic import emit_arithmetic
from splat_numba.gen.targets.simt.packed.traits import WARPS, PackedTraits
from splat_numba.gen.targets.simt.results import emit_store_number
from splat_numba.gen.targets.simt.shape import CHUNK, Numbers

COUNTS = ("row_blocks", "rows_listed", "heads")


def emit_head(out: SourceWriter, traits: PackedTraits, what: str, who: str = "a warp has a row") -> None:
    """Docstring, imports and arithmetic."""
    quotes, numbers = '"' * 3, traits.numbers
    dim = f"Rows of {traits.dim} numbers, " if traits.dim else "Packed values, "
    out.lines(
        f"""
        {quotes}{what}, generated for every mask; {who}.

        {dim}{traits.dtype}, computed in {numbers.computed}.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        """
    )
    emit_arithmetic(out, numbers)


@contextmanager
def entry(
    out: SourceWriter, name: str, groups: Sequence[Sequence[str]], sharing: int = WARP
) -> Iterator[None]:  # fmt: skip
    """The entry function; inside: what a warp does that has a row, or one for each ``sharing`` lanes, the last of which
    may have the first one's again. A scale of float64 comes as its bits.
    """
    emit_header(out, name, groups)
    with out.suite():
        out.lines(
            f"""
            thread, item = ptx.thread_index(), ptx.block_index()
            lane = u32(thread & u32({WARP - 1}))
            pair = u32(item // row_blocks)
            rank = u32(u32(item - pair * row_blocks) * u32({WARPS}) + u32(thread // u32({WARP})))
            entry = u32(pair // heads)
            head = u32(pair - entry * heads)
            """
        )
        if any("scale_bits" in group for group in groups):
            out.line("scale = scale_bits.view(np.float64)")
        if sharing < WARP:
            out.line(f"rank = u32(rank * u32({WARP // sharing}))")
        with out.block("if rank < rows_listed"):
            if sharing < WARP:
                out.line(f"mine = u32(rank + u32(lane // u32({sharing})))")
                out.line("safe = mine if mine < rows_listed else rank")
                out.line("row, slot, count, run = ptx.load_words4(rows + u64(16) * u64(safe))")
            else:
                out.line("row, slot, count, run = ptx.load_words4(rows + u64(16) * u64(rank))")
            yield


def scale_name(numbers: Numbers) -> str:
    """The parameter that is a factor."""
    return "scale" if numbers.computed == "float32" else "scale_bits"


@contextmanager
def pairs_of_row(out: SourceWriter, traits: PackedTraits) -> Iterator[None]:
    """Loops over a row's pairs, 32 at a time; inside, of a lane's pair: ``place`` among ``size``, those of a run or of
    the row, of which ``done`` are before; ``safe``, the same or the last one; ``column``.
    """
    if traits.listed:
        out.line("done, size = u32(0), count")
        with _thirty_two(out, f"ptx.load_word(columns + u64({4}) * u64(slot + safe))"):
            yield
        return
    out.line("done, which = u32(0), run")
    with out.block("while done < count"):
        out.line("start, step, size, _ = ptx.load_words4(runs + u64(16) * u64(which))")
        with _thirty_two(out, "u32(start + step * safe)"):
            yield
        out.line("done, which = u32(done + size), u32(which + u32(1))")


@contextmanager
def _thirty_two(out: SourceWriter, column: str) -> Iterator[None]:
    out.line("begin = u32(0)")
    with out.block("while begin < size"):
        out.lines(
            f"""
            place = u32(begin + lane)
            safe = place if place < size else u32(size - u32(1))
            column = {column}
            """
        )
        yield
        out.line(f"begin = u32(begin + u32({WARP}))")


def emit_over_warp(
    out: SourceWriter, name: str, text: str, joined: str, first: int = 1, lanes: int = WARP
) -> None:  # fmt: skip
    """``name(x)``: x of lanes joined with those that differ by ``first``, twice that, and so on, of so many lanes."""
    with device_function(out, name, ("x",), text):
        apart = first
        while apart < lanes:
            out.line(f"x = {joined.format(f'from_lane(x, u32({apart}))')}")
            apart *= 2
        out.line("return x")


def emit_load_number(out: SourceWriter, numbers: Numbers) -> None:
    """``load_number(at)`` of an array; 16-bit ones by the word that they are in: no instruction loads less."""
    with device_function(out, "load_number", ("at",), f"A number of an array, {numbers.dtype}."):
        if numbers.dtype == "float32":
            out.line("return ptx.load_state(at)")
        elif numbers.dtype == "float64":
            out.line("return joined(ptx.load_pair(at), ptx.load_pair(at + u64(4)))")
        else:
            out.lines(
                f"""
                low, high = ptx.unpack_{numbers.dtype}(ptx.load_pair(at & u64({2**64 - 4})))
                return ptx.select_real(high, low, u32(at & u64(2)))
                """
            )


def emit_fetch(out: SourceWriter, traits: PackedTraits) -> None:
    """``fetch(row_at, chunk, when)``: the numbers of a chunk, 0 beyond the row's last and where ``when`` is 0."""
    numbers, names = traits.numbers, [f"x_{x}" for x in range(traits.numbers.loaded)]
    text = "Neighbouring numbers of a row; beyond its end 0, as 0 x NaN is NaN."
    with device_function(out, "fetch", ("row_at", "chunk", "when"), text):
        out.lines(
            f"""
            inside = when if chunk < u32({traits.loads}) else u32(0)
            a, b, c, d = ptx.load_words4_when(row_at + u64({CHUNK}) * u64(chunk), inside)
            """
        )
        emit_unpacked(out, numbers, names)
        tail = traits.dim - (traits.loads - 1) * numbers.loaded
        if tail < numbers.loaded:
            out.line(f"full = u32(1) if chunk < u32({traits.loads - 1}) else u32(0)")
        for name in names[tail:]:
            if numbers.computed == "float32":
                out.line(f"{name} = ptx.select_real({name}, ZERO, full)")
            else:
                out.line(f"{name} = {name} if full != u32(0) else ZERO")
        out.line(f"return {', '.join(names)}")


def emit_unpacked(out: SourceWriter, numbers: Numbers, names: Sequence[str]) -> None:
    """The numbers of a chunk from its words ``a`` to ``d``."""
    if numbers.loaded == 8:
        for x, word in enumerate("abcd"):
            out.line(f"{names[2 * x]}, {names[2 * x + 1]} = ptx.unpack_{numbers.dtype}({word})")
    elif numbers.loaded == 4:
        out.line(f"{', '.join(names)} = {', '.join(f'{word}.view(np.float32)' for word in 'abcd')}")
    else:
        out.line(f"{', '.join(names)} = joined(a, b), joined(c, d)")


def emit_packed(out: SourceWriter, dtype: str, numbers: Sequence[str]) -> None:
    """The words ``a`` to ``d`` of a chunk of 16-bit numbers."""
    for x, word in enumerate("abcd"):
        out.line(f"{word} = ptx.pack_{dtype}({numbers[2 * x]}, {numbers[2 * x + 1]})")


def emit_softmax_functions(out: SourceWriter) -> None:
    """``power(x)`` and ``top_of_warp(x)``."""
    with device_function(out, "power", ("x",), "exp(x)."):
        out.line(f"return exp2(x * real({math.log2(math.e)!r}))")
    emit_over_warp(out, "top_of_warp", "The largest of what lanes have.", "maximum(x, {})")


def emit_number_functions(out: SourceWriter, traits: PackedTraits) -> None:
    """``sum_of_warp(x)``, ``load_number(at)`` and ``store_number(to, x, when)``."""
    emit_over_warp(out, "sum_of_warp", "The sum of what lanes have.", "x + {}")
    emit_load_number(out, traits.numbers)
    emit_store_number(out, traits.dtype)


def emit_store_chunk(out: SourceWriter, traits: PackedTraits, x: list[str], when: str) -> None:
    """Neighbouring numbers of a row of results ``to`` where they belong, 16 bytes of the arrays' dtype."""
    if traits.numbers.dtype == "float64":
        out.line(f"a, b = words_of({x[0]})")
        out.line(f"c, d = words_of({x[1]})")
        out.line(f"ptx.store_words4(to, a, b, c, d, {when})")
    elif traits.numbers.dtype == "float32" or traits.partial:
        for first in range(0, len(x), 4):
            out.line(f"ptx.store_reals4(to + u64({4 * first}), {', '.join(x[first : first + 4])}, {when})")
    else:
        emit_packed(out, traits.numbers.dtype, x)
        out.line(f"ptx.store_words4(to, a, b, c, d, {when})")


def row_of(name: str, head: str = "head", row: str = "") -> str:
    """The address of an array's batch entry, head and, where one is named, row (of packed values: slot)."""
    place = f"{name} + u64(entry) * {name}_batch + u64({head}) * {name}_head"
    return f"{place} + u64({row}) * {name}_row" if row else place
