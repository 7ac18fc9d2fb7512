"""Sampled products. Eight lanes share a key, of which they read 128 bytes together; 32 keys of a row at a time.

A lane adds up its part of eight keys' products, every fourth of the 32, and then the eight lanes exchange parts until
each has one whole. Keys are taken a few at a time, as long as there are some left: rows end anywhere.
"""

from __future__ import annotations

from contextlib import nullcontext

from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.simt.packed.rows import (
    COUNTS,
    emit_fetch,
    emit_head,
    entry,
    pairs_of_row,
    row_of,
    scale_name,
)
from splat_numba.gen.targets.simt.packed.traits import LANES_OF_KEY, PackedTraits
from splat_numba.gen.targets.simt.results import emit_store_number

ARRAYS = ("q", "k", "values")
KEYS = WARP // LANES_OF_KEY  # of a warp at a time
MULTIPLY = ("score", "query", "k_at", "k_row", "column", "begin", "size", "lane")


def render_sddmm(traits: PackedTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic."""
    out, numbers = SourceWriter(), traits.numbers
    emit_head(out, traits, "Sampled products of queries and keys")
    with entry(out, "sddmm", groups):
        out.lines(
            f"""
            query = cuda.local.array({traits.sums}, dtype=np.{numbers.computed})
            score = cuda.local.array({LANES_OF_KEY}, dtype=np.{numbers.computed})
            load_query(query, {row_of("q", row="row")}, u32(lane & u32({LANES_OF_KEY - 1})))
            k_at = {row_of("k", "head // group")}
            values_at = {row_of("values", row="slot")}
            """
        )
        with pairs_of_row(out, traits):
            _emit_products(out, traits)
            out.lines(
                f"""
                share(score, lane)
                mine = u32(begin + u32({KEYS} * u32(lane & u32({LANES_OF_KEY - 1}))) + u32(lane // u32({LANES_OF_KEY})))
                there = u32(1) if mine < size else u32(0)
                to = values_at + u64(u32(done + mine if mine < size else done)) * values_row
                store_number(to, score[0] * scale, there)
                """
            )
    _emit_query(out, traits)
    _emit_multiply(out, traits)
    _emit_share(out)
    emit_fetch(out, traits)
    emit_store_number(out, traits.dtype)
    return out.text()


def parameter_names(traits: PackedTraits) -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, the factor, counts."""
    return ("rows", "columns" if traits.listed else "runs", *ARRAYS), (scale_name(traits.numbers),), (*COUNTS, "group")


def _names(traits: PackedTraits) -> list[str]:
    return [f"x_{x}" for x in range(traits.numbers.loaded)]


def _emit_query(out: SourceWriter, traits: PackedTraits) -> None:
    function = device_function(out, "load_query", ("query", "q_at", "part"), "A lane's chunks of the row of q.")
    with function, out.block(f"for piece in range({traits.pieces})"):
        out.line(f"{', '.join(_names(traits))} = fetch(q_at, u32(part + u32({LANES_OF_KEY} * piece)), u32(1))")
        for x, name in enumerate(_names(traits)):
            out.line(f"query[{traits.numbers.loaded} * piece + {x}] = {name}")


def _emit_products(out: SourceWriter, traits: PackedTraits) -> None:
    """A branch for every few keys, but the first: what is loaded does not cross it."""
    out.line(f"for key in range({LANES_OF_KEY}):")
    out.line("    score[key] = ZERO")
    for first in range(0, LANES_OF_KEY, traits.at_once):
        with out.block(f"if u32(begin + u32({KEYS * first})) < size") if first else nullcontext():
            for key in range(first, first + traits.at_once):
                wrapped(out, "multiply", (str(key), *MULTIPLY))


def _emit_multiply(out: SourceWriter, traits: PackedTraits) -> None:
    with device_function(
        out, "multiply", ("number", *MULTIPLY), "A lane's part of the product with a key of its eight lanes."
    ):
        out.lines(
            f"""
            whose = u32(u32({KEYS} * number) + u32(lane // u32({LANES_OF_KEY})))
            row_at = k_at + u64(ptx.word_of_lane(column, whose)) * k_row
            there = u32(1) if u32(begin + whose) < size else u32(0)
            total = ZERO
            """
        )
        with out.block(f"for piece in range({traits.pieces})"):
            out.line(f"chunk = u32(u32(lane & u32({LANES_OF_KEY - 1})) + u32({LANES_OF_KEY} * piece))")
            out.line(f"{', '.join(_names(traits))} = fetch(row_at, chunk, there)")
            for x, name in enumerate(_names(traits)):
                out.line(f"total += query[{traits.numbers.loaded} * piece + {x}] * {name}")
        out.line("score[number] = total")


def _emit_share(out: SourceWriter) -> None:
    """Half of what is left goes to the lane across, and half of what that has comes back."""
    text = "Parts of eight keys become score[0], the whole of the key that is the lane's own."
    with device_function(out, "share", ("score", "lane"), text):
        half = LANES_OF_KEY // 2
        while half:
            out.line(f"upper = (lane & u32({half})) != u32(0)")
            for j in range(half):
                out.lines(
                    f"""
                    low, high = score[{j}], score[{j + half}]
                    given, kept = low if upper else high, high if upper else low
                    score[{j}] = kept + from_lane(given, u32({half}))
                    """
                )
            half //= 2
