"""Sparse times dense. A row's values and columns are read 32 at a time and handed round; lanes of 16 bytes share a row
of v, and a warp's others take other rows, whose sums are added up at the end, always in the same order.

Over the transposed mask rows are keys: a result adds up the heads that share it, and values are where a list says.
"""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.simt.packed.rows import (
    COUNTS,
    emit_fetch,
    emit_head,
    emit_load_number,
    emit_over_warp,
    emit_store_chunk,
    entry,
    pairs_of_row,
    row_of,
    scale_name,
)
from splat_numba.gen.targets.simt.packed.traits import PackedTraits

ARRAYS = ("values", "v", "out")
ADD = ("total", "weight", "column", "v_at", "v_row", "begin", "size", "lane")


def parameter_names(traits: PackedTraits) -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts. members: heads of values of one result; share: of those, of one of v."""
    tables = ("rows", "columns" if traits.listed else "runs", *("places",) * traits.placed)
    return (*tables, *ARRAYS), (scale_name(traits.numbers),), (*COUNTS, "members", "share")


def render_spmm(traits: PackedTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out, numbers = SourceWriter(), traits.numbers
    emit_head(out, traits, "Packed values times the rows of a dense array")
    with entry(out, "spmm", groups):
        out.lines(
            f"""
            total = cuda.local.array({traits.sums}, dtype=np.{numbers.computed})
            for n in range({traits.sums}):
                total[n] = ZERO
            member = u32(0)
            """
        )
        with out.block("while member < members"):
            out.lines(
                f"""
                source = u32(head * members + member)
                values_at = {row_of("values", "source")}
                v_at = {row_of("v", "source // share")}
                """
            )
            with pairs_of_row(out, traits):
                _emit_pairs(out, traits)
            out.line("member = u32(member + u32(1))")
        wrapped(out, "store_row", ("total", row_of("out", row="row"), "lane", "scale"))
    _emit_add_rows(out, traits)
    _emit_add(out, traits)
    _emit_store(out, traits)
    _emit_number_of_lane(out, numbers.computed)
    emit_fetch(out, traits)
    emit_load_number(out, numbers)
    if traits.lanes < WARP:
        emit_over_warp(out, "sum_over_rows", "The sum of what lanes of one chunk have.", "x + {}", traits.lanes)
    return out.text()


def _emit_pairs(out: SourceWriter, traits: PackedTraits) -> None:
    """32 pairs of a row, as many at once as there are lanes for."""
    out.line("at = u32(slot + u32(done + safe))")
    if traits.placed:
        out.line("at = ptx.load_word(places + u64(4) * u64(at))")
    out.lines(
        """
        weight = load_number(values_at + u64(at) * values_row)
        """
    )
    wrapped(out, "add_rows", ADD)


def _emit_add_rows(out: SourceWriter, traits: PackedTraits) -> None:
    together = WARP // traits.lanes
    with device_function(out, "add_rows", ADD, "The rows of v of what a warp has read, at most a pair a lane."):
        out.lines(
            f"""
            left = u32(size - begin)
            left = left if left < u32({WARP}) else u32({WARP})
            turn = u32(0)
            """
        )
        with out.block("while turn < left"):
            for number in range(traits.at_once):
                wrapped(out, "add_row", (f"u32(turn + u32({number * together}))", *ADD))
            out.line(f"turn = u32(turn + u32({traits.at_once * together}))")


def _emit_add(out: SourceWriter, traits: PackedTraits) -> None:
    names = [f"x_{x}" for x in range(traits.numbers.loaded)]
    with device_function(out, "add_row", ("turn", *ADD), "A row of v, times its pair's value, of a lane's chunks."):
        out.lines(
            f"""
            whose = u32(turn + u32(lane // u32({traits.lanes})))
            there = u32(1) if u32(begin + whose) < size else u32(0)
            row_at = v_at + u64(ptx.word_of_lane(column, whose)) * v_row
            factor = number_of_lane(weight, whose)
            factor = factor if there != u32(0) else ZERO
            """
        )
        with out.block(f"for piece in range({traits.pieces})"):
            out.line(f"chunk = u32(u32(lane & u32({traits.lanes - 1})) + u32({traits.lanes} * piece))")
            out.line(f"{', '.join(names)} = fetch(row_at, chunk, there)")
            for x, name in enumerate(names):
                out.line(f"total[{traits.numbers.loaded} * piece + {x}] += factor * {name}")


def _emit_store(out: SourceWriter, traits: PackedTraits) -> None:
    loaded = traits.numbers.loaded
    text = "A row of results, by the lanes that share it."
    with device_function(out, "store_row", ("total", "out_at", "lane", "scale"), text):
        if traits.lanes < WARP:
            with out.block(f"for n in range({traits.sums})"):
                out.line("total[n] = sum_over_rows(total[n])")
        with out.block(f"for piece in range({traits.pieces})"):
            out.lines(
                f"""
                chunk = u32(lane + u32({traits.lanes} * piece))
                there = u32(1) if (lane < u32({traits.lanes})) and (chunk < u32({traits.loads})) else u32(0)
                to = out_at + u64({traits.stored_bytes}) * u64(chunk)
                """
            )
            emit_store_chunk(out, traits, [f"total[{loaded} * piece + {x}] * scale" for x in range(loaded)], "there")


def _emit_number_of_lane(out: SourceWriter, computed: str) -> None:
    with device_function(out, "number_of_lane", ("x", "whose"), "A lane's number for others."):
        if computed == "float32":
            out.line("return ptx.word_of_lane(x.view(np.uint32), whose).view(np.float32)")
            return
        out.lines(
            """
            low, high = words_of(x)
            return joined(ptx.word_of_lane(low, whose), ptx.word_of_lane(high, whose))
            """
        )
