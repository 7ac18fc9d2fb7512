"""Softmax of a row held in registers: up to 17 chunks of 16 bytes a lane, all on their way at once.

Bytes are the floor: each packed value is read and written once. But a row takes a warp some 250 instructions beside 80
for a chunk of each lane, and 4 x 132 of them begin at once: 400,000 rows of one chunk a lane would take 0.14 ms, at 100
values each three and a half times their floor. So eight or sixteen lanes have a row where they hold it, and a warp four
or two rows at that price. Each value is raised once, and what a row shares with its
neighbours, its first and last chunk, is read whole and written by words: number by number these two would take as many
instructions as a row of 500 values otherwise. What the chunks have of other rows is the same head's, or the row is left
to ``softmax_chunks``, which a longer one is, too.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.packed_ends import emit_store_ends
from splat_numba.gen.targets.simt.packed.rows import emit_over_warp, emit_packed, emit_unpacked
from splat_numba.gen.targets.simt.packed.traits import PackedTraits
from splat_numba.gen.targets.simt.shape import CHUNK

OF_ROW = ("values_at", "weights_at", "shift", "count", "chunks", "lane")
NONE_ELSE = "whole = u32(1) if (place < count) and (u32(place + u32({0})) < count) else u32(0)"


def emit_held(out: SourceWriter, traits: PackedTraits, names: list[str]) -> None:
    """``softmax_of_held(...)``, and ``is_held(...)``: whether it may be called. names: of a chunk's numbers."""
    of = len(names)
    parameters = ("slot", "shift", "chunks", "alike", "pairs")
    text = "Whether a lane has few enough chunks of a row, and all of them are the head's."
    with device_function(out, "is_held", parameters, text):
        out.lines(
            f"""
            fits = alike if chunks <= u32({traits.held * traits.sharing}) else u32(0)
            fits = fits if slot >= shift else u32(0)
            return fits if u32(slot + u32({of}) * chunks) <= u32(pairs + shift) else u32(0)
            """
        )
    with device_function(out, "softmax_of_held", OF_ROW, "All of a row, in registers."):
        _emit_row(out, traits, of)
    _emit_steps(out, traits, of)
    _emit_hold(out, traits, names)
    _emit_store(out, traits, names)
    if traits.sharing < WARP:
        emit_over_warp(out, "top_of_row", "The largest of what its lanes have.", "maximum(x, {})", lanes=traits.sharing)
        emit_over_warp(out, "sum_of_row", "The sum of what its lanes have.", "x + {}", lanes=traits.sharing)


def _emit_row(out: SourceWriter, traits: PackedTraits, of: int) -> None:
    """In four steps, each a function over the pieces, so that long rows are read like short ones."""
    out.lines(
        f"""
        words = cuda.local.array({4 * traits.held}, dtype=np.uint32)
        x = cuda.local.array({of * traits.held}, dtype=np.float32)
        fetch_row(words, values_at - u64({CHUNK // of}) * u64(shift), chunks, lane)
        top = {_over(traits, "top")}(hold_row(x, words, shift, count, chunks, lane))
        total = {_over(traits, "sum")}(raise_row(x, top if top > NONE_KEPT else ZERO, chunks))
        store_row(x, weights_at, shift, count, chunks, lane, reciprocal(total) if total != ZERO else ZERO)
        """
    )


def _emit_steps(out: SourceWriter, traits: PackedTraits, of: int) -> None:
    """A piece, a chunk of each lane, that the row has not, is left out by the warp as a whole."""
    pieces = range(traits.held)
    chunk = [f"u32(lane + u32({traits.sharing * piece}))" for piece in pieces]
    place = [f"u32(u32({of}) * {one} - shift)" for one in chunk]
    with device_function(out, "fetch_row", ("words", "first_at", "chunks", "lane"), "A row's chunks, on their way."):
        for piece in pieces:
            four = ", ".join(f"words[{4 * piece + y}]" for y in range(4))
            out.line(f"inside = u32(1) if {chunk[piece]} < chunks else u32(0)")
            out.line(f"{four} = ptx.load_words4_when(first_at + u64({CHUNK}) * u64({chunk[piece]}), inside)")
    text = "Their numbers, and a lane's largest."
    with device_function(out, "hold_row", ("x", "words", "shift", "count", "chunks", "lane"), text):
        out.line("peak = NONE_KEPT")
        for piece in pieces:
            with out.block(_has(traits, piece)):
                out.line(f"peak = hold_chunk(x, {of * piece}, words, {4 * piece}, {place[piece]}, count, peak)")
        out.line("return peak")
    with device_function(out, "raise_row", ("x", "safe", "chunks"), "Their exponentials, and a lane's sum."):
        out.line("added = ZERO")
        for piece in pieces:
            with out.block(_has(traits, piece)):
                out.line(f"added = raise_chunk(x, {of * piece}, safe, added)")
        out.line("return added")
    parameters = ("x", "weights_at", "shift", "count", "chunks", "lane", "factor")
    with device_function(out, "store_row", parameters, "The weights of a row."):
        for piece in pieces:
            with out.block(_has(traits, piece)):
                wrapped(out, "store_held", ("x", str(of * piece), "weights_at", place[piece], "count", "factor"))


def _has(traits: PackedTraits, piece: int) -> str:
    """Whether any row of a warp has a piece: its lanes go on together."""
    some = f"chunks > u32({traits.sharing * piece})"
    return f"if {some}" if traits.sharing == WARP else f"if ptx.any_lane(u32(1) if {some} else u32(0)) != u32(0)"


def _over(traits: PackedTraits, what: str) -> str:
    return f"{what}_of_warp" if traits.sharing == WARP else f"{what}_of_row"


def _emit_hold(out: SourceWriter, traits: PackedTraits, names: list[str]) -> None:
    of = len(names)
    four = ", ".join(f"words[first + {y}]" for y in range(4))
    text = "A chunk's 16 bytes, where the row has it."
    with device_function(out, "fetch_chunk", ("words", "first", "first_at", "chunk", "chunks"), text):
        out.line("inside = u32(1) if chunk < chunks else u32(0)")
        out.line(f"{four} = ptx.load_words4_when(first_at + u64({CHUNK}) * u64(chunk), inside)")
    text = "A chunk's numbers, -inf for those that are not the row's, and the largest so far."
    with device_function(out, "hold_chunk", ("x", "at", "words", "first", "place", "count", "peak"), text):
        out.line(f"a, b, c, d = {four}")
        emit_unpacked(out, traits.numbers, names)
        out.line(NONE_ELSE.format(of - 1))
        with out.block("if ptx.any_lane(u32(u32(1) - whole)) != u32(0)"):
            for k, name in enumerate(names):
                out.line(f"there = u32(1) if u32(place + u32({k})) < count else u32(0)")
                out.line(f"{name} = ptx.select_real({name}, NONE_KEPT, there)")
        for k, name in enumerate(names):
            out.line(f"x[at + {k}], peak = {name}, maximum(peak, {name})")
        out.line("return peak")
    with device_function(out, "raise_chunk", ("x", "at", "safe", "added"), "Their exponentials, and the sum so far."):
        with out.block(f"for k in range({of})"):
            out.line("x[at + k] = power(x[at + k] - safe)")
            out.line("added = added + x[at + k]")
        out.line("return added")


def _emit_store(out: SourceWriter, traits: PackedTraits, names: list[str]) -> None:
    of, size = len(names), CHUNK // len(names)
    weights = [f"x[at + {k}] * factor" for k in range(of)]
    text = "A chunk's weights, as far as they are the row's."
    with device_function(out, "store_held", ("x", "at", "weights_at", "place", "count", "factor"), text):
        out.line(NONE_ELSE.format(of - 1))
        out.line(f"some = u32(1) if u32(place + u32({of - 1})) < u32(count + u32({of - 1})) else u32(0)")
        out.line("part = u32(some - whole)")
        out.line(f"to = weights_at + u64({size}) * u64(place)")
        if of == 4:
            out.line(f"ptx.store_reals4(to, {', '.join(weights)}, whole)")
        else:
            emit_packed(out, traits.dtype, weights)
            out.line("ptx.store_words4(to, a, b, c, d, whole)")
        with out.block("if ptx.any_lane(part) != u32(0)"):
            if of == 4:
                for k in range(of):
                    out.line(f"store_own(weights_at, u32(place + u32({k})), count, part, {weights[k]})")
            else:
                out.line("store_ends(weights_at, a, b, c, d, place, count, part)")
    if of != 4:
        emit_store_ends(out)
