"""Softmax of the packed values of a row by chunks of 16 bytes, a lane every 32nd: where rows lie side by side.

Chunks begin where memory's do, so a row's first and last are another row's too: of those a lane reads and writes the
row's numbers one by one. A lane goes over its chunks twice, since a row may be of any length; most rows are held in
registers instead (softmax_held).
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.simt.packed.rows import (
    emit_head,
    emit_number_functions,
    emit_packed,
    emit_softmax_functions,
    emit_unpacked,
    entry,
    row_of,
)
from splat_numba.gen.targets.simt.packed.softmax_held import OF_ROW, emit_held
from splat_numba.gen.targets.simt.packed.traits import PackedTraits
from splat_numba.gen.targets.simt.shape import CHUNK

IN_TURN = ("values_at", "weights_at", "shift", "count", "chunks", "alike", "lane")


def render_softmax_chunks(traits: PackedTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic.

    A lane has a peak and a sum of its own; a NaN is lost to the peak, but not to the sum, nor is inf - inf.
    """
    out, of = SourceWriter(), traits.numbers.loaded
    names = [f"x_{x}" for x in range(of)]
    emit_head(out, traits, "Softmax of packed values by chunks")
    with entry(out, "softmax", groups, traits.sharing):
        out.line(f"values_at = {row_of('values')}")
        out.line(f"weights_at = {row_of('weights')}")
        if traits.sharing == WARP:
            _emit_one(out)
        else:
            _emit_several(out, traits.sharing)
    _emit_places(out, of)
    emit_held(out, traits, names)
    with device_function(out, "softmax_in_turn", IN_TURN, "A row's chunks one after the other, twice."):
        _emit_in_turn(out, names)
    _emit_chunks(out, traits, names)
    emit_softmax_functions(out)
    emit_number_functions(out, traits)
    return out.text()


def _emit_one(out: SourceWriter) -> None:
    """A warp has one row."""
    _emit_row(out)
    with out.block("if is_held(slot, shift, chunks, alike, pairs) != u32(0)"):
        out.line(f"softmax_of_held({', '.join(OF_ROW)})")
    with out.block("else"):
        out.line(f"softmax_in_turn({', '.join(IN_TURN)})")


def _emit_several(out: SourceWriter, sharing: int) -> None:
    """A warp has several; where one of them may not be held, it has them all one after the other."""
    out.line("all_values, all_weights = values_at, weights_at")
    _emit_row(out)
    out.line("left = u32(u32(1) - is_held(slot, shift, chunks, alike, pairs))")
    with out.block("if ptx.any_lane(left) == u32(0)"):
        out.line(f"lane = u32(lane & u32({sharing - 1}))")
        out.line(f"softmax_of_held({', '.join(OF_ROW)})")
    with out.block("else"), out.block(f"for i in range({WARP // sharing})"):
        out.lines(
            f"""
            first, many = ptx.word_of_lane(slot, u32({sharing} * i)), ptx.word_of_lane(count, u32({sharing} * i))
            values_at = place_of_row(all_values, values_row, first)
            weights_at = place_of_row(all_weights, weights_row, first)
            shift, chunks, alike = first_chunk(values_at, weights_at, many)
            softmax_in_turn({", ".join("many" if name == "count" else name for name in IN_TURN)})
            """
        )


def _emit_row(out: SourceWriter) -> None:
    out.line("values_at = place_of_row(values_at, values_row, slot)")
    out.line("weights_at = place_of_row(weights_at, weights_row, slot)")
    out.line("shift, chunks, alike = first_chunk(values_at, weights_at, count)")


def _emit_places(out: SourceWriter, of: int) -> None:
    """``place_of_row``, and ``first_chunk`` with what is known of a row's chunks."""
    with device_function(out, "place_of_row", ("at", "step", "slot"), "Where a row's packed values begin."):
        out.line("return at + u64(slot) * step")
    text = "How many numbers of its first chunk stand before a row's; its chunks; whether results have the same ones."
    with device_function(out, "first_chunk", ("from_at", "to_at", "count"), text):
        out.lines(
            f"""
            shift = u32(u32(from_at & u64({CHUNK - 1})) // u32({CHUNK // of}))
            alike = u32(1) if u32(to_at & u64({CHUNK - 1})) == u32(from_at & u64({CHUNK - 1})) else u32(0)
            chunks = u32(u32(count + shift + u32({of - 1})) // u32({of})) if count > u32(0) else u32(0)
            return shift, chunks, alike
            """
        )


def _emit_in_turn(out: SourceWriter, names: list[str]) -> None:
    """The body of ``softmax_in_turn``."""
    of = len(names)
    out.lines(
        f"""
        rounded = u32(u32(chunks + u32({WARP - 1})) & u32({2**32 - WARP}))
        peak, added = NONE_KEPT, ZERO
        chunk = lane
        while chunk < rounded:
            place = u32(u32({of}) * chunk - shift)
            {", ".join(names)} = load_chunk(values_at, place, count)
        """
    )
    with out.suite():
        out.line(f"top = {_largest(['peak', *names])}")
        out.line("safe = top if top > NONE_KEPT else ZERO")
        out.line(f"here = {' + '.join(f'power({name} - safe)' for name in names)}")
        out.line("added = added * power(peak - safe) + here")
        out.line("peak = top")
        out.line(f"chunk = u32(chunk + u32({WARP}))")
    out.lines(
        f"""
        top = top_of_warp(peak)
        safe = top if top > NONE_KEPT else ZERO
        total = sum_of_warp(added * power(peak - safe))
        factor = reciprocal(total) if total != ZERO else ZERO
        chunk = lane
        while chunk < rounded:
            place = u32(u32({of}) * chunk - shift)
            {", ".join(names)} = load_chunk(values_at, place, count)
        """
    )
    with out.suite():
        weights = [f"power({name} - safe) * factor" for name in names]
        wrapped(out, "store_chunk", ("weights_at", "place", "count", "alike", *weights))
        out.line(f"chunk = u32(chunk + u32({WARP}))")


def _largest(names: list[str]) -> str:
    """Of several numbers, as text."""
    return names[0] if len(names) == 1 else f"maximum({_largest(names[:-1])}, {names[-1]})"


def _emit_chunks(out: SourceWriter, traits: PackedTraits, names: list[str]) -> None:
    """``load_chunk`` and ``store_chunk``: the numbers of a row from a place on, which may be before its first."""
    of, dtype = len(names), traits.dtype
    size = CHUNK // of
    with device_function(out, "kept_chunk", ("place", "count"), "Whether the row has all of a chunk, and whether any."):
        out.lines(
            f"""
            last = u32(place + u32({of - 1}))
            whole = u32(1) if (place < count) and (last < count) else u32(0)
            some = u32(1) if last < u32(count + u32({of - 1})) else u32(0)
            return whole, some & u32(u32(1) - whole)
            """
        )
    text = "A chunk's numbers, -inf for those that are not the row's."
    with device_function(out, "load_chunk", ("values_at", "place", "count"), text):
        out.lines(
            f"""
            whole, part = kept_chunk(place, count)
            a, b, c, d = ptx.load_words4_when(values_at + u64({size}) * u64(place), whole)
            """
        )
        emit_unpacked(out, traits.numbers, names)
        for name in names:
            out.line(f"{name} = ptx.select_real({name}, NONE_KEPT, whole)")
        with out.block("if ptx.any_lane(part) != u32(0)"):
            for x, name in enumerate(names):
                out.line(f"{name} = own_number(values_at, u32(place + u32({x})), count, part, {name})")
        out.line(f"return {', '.join(names)}")
    text = "The number at a place where it is the row's and the chunk is read so, else what was there."
    with device_function(out, "own_number", ("values_at", "place", "count", "part", "x"), text):
        out.lines(
            f"""
            mine = part if place < count else u32(0)
            found = load_number(values_at + u64({size}) * u64(place if mine != u32(0) else u32(0)))
            return ptx.select_real(found, x, mine)
            """
        )
    parameters = ("weights_at", "place", "count", "alike", *names)
    with device_function(out, "store_chunk", parameters, "A chunk's numbers, as far as they are the row's."):
        out.line("whole, part = kept_chunk(place, count)")
        out.line(f"at = weights_at + u64({size}) * u64(place)")
        if of == 4:
            out.line(f"ptx.store_reals4(at, {', '.join(names)}, whole & alike)")
        else:
            emit_packed(out, dtype, names)
            out.line("ptx.store_words4(at, a, b, c, d, whole & alike)")
        out.line("alone = part | u32(whole & u32(u32(1) - alike))")
        with out.block("if ptx.any_lane(alone) != u32(0)"):
            for x, name in enumerate(names):
                out.line(f"store_own(weights_at, u32(place + u32({x})), count, alone, {name})")
    parameters = ("weights_at", "place", "count", "when", "x")
    with device_function(out, "store_own", parameters, "A number if it is the row's."):
        out.line(f"store_number(weights_at + u64({size}) * u64(place), x, when if place < count else u32(0))")
