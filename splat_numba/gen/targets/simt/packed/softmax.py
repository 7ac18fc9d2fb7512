"""Softmax of the packed values of a row, and its gradient: a warp goes over the row twice, 32 pairs at a time."""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.simt.packed.rows import (
    COUNTS,
    emit_head,
    emit_number_functions,
    emit_softmax_functions,
    entry,
    row_of,
)
from splat_numba.gen.targets.simt.packed.traits import PackedTraits

ARRAYS = {"softmax": ("values", "weights"), "softmax_backward": ("weights", "dweights", "dvalues")}


def parameter_names(traits: PackedTraits) -> tuple[tuple[str, ...], ...]:
    """Tables and arrays, counts. pairs: of a head."""
    return ("rows", *ARRAYS[traits.family]), (*COUNTS, "pairs") if traits.held else COUNTS


def render_softmax(traits: PackedTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic.

    A lane has a peak and a sum of its own; a NaN is lost to the peak, but not to the sum, nor is inf - inf.
    """
    out = SourceWriter()
    emit_head(out, traits, "Softmax of packed values")
    with entry(out, "softmax", groups):
        _emit_places(out, ("values", "weights"))
        out.lines(
            f"""
            peak, added = NONE_KEPT, ZERO
            begin = lane
            while begin < rounded:
                x = load_number(values_at + u64(begin if begin < count else last) * values_row)
                x = x if begin < count else NONE_KEPT
                top = maximum(peak, x)
                safe = top if top > NONE_KEPT else ZERO
                added = added * power(peak - safe) + power(x - safe)
                peak = top
                begin = u32(begin + u32({WARP}))
            top = top_of_warp(peak)
            safe = top if top > NONE_KEPT else ZERO
            total = sum_of_warp(added * power(peak - safe))
            factor = reciprocal(total) if total != ZERO else ZERO
            begin = lane
            while begin < rounded:
                there = u32(1) if begin < count else u32(0)
                place = u64(begin if begin < count else last)
                weight = power(load_number(values_at + place * values_row) - safe) * factor
                store_number(weights_at + place * weights_row, weight, there)
                begin = u32(begin + u32({WARP}))
            """
        )
    emit_softmax_functions(out)
    emit_number_functions(out, traits)
    return out.text()


def render_softmax_backward(traits: PackedTraits, groups: tuple[tuple[str, ...], ...]) -> str:
    """Python source of the kernel. groups: of its parameters. Pure and deterministic.

    What a weight of 0 is multiplied with does not count, NaN or not.
    """
    out = SourceWriter()
    emit_head(out, traits, "Gradients of the values whose softmax are weights")
    with entry(out, "softmax_backward", groups):
        _emit_places(out, ("weights", "dweights", "dvalues"))
        load = """
                there = u32(1) if begin < count else u32(0)
                place = u64(begin if begin < count else last)
                weight = load_number(weights_at + place * weights_row)
                change = load_number(dweights_at + place * dweights_row)
        """.strip()
        out.lines(
            f"""
            added, begin = ZERO, lane
            while begin < rounded:
                {load}
                product = weight * change if (there != u32(0)) and (weight != ZERO) else ZERO
                added = added + product
                begin = u32(begin + u32({WARP}))
            total = sum_of_warp(added)
            begin = lane
            while begin < rounded:
                {load}
                slope = weight * (change - total) if weight != ZERO else ZERO
                store_number(dvalues_at + place * dvalues_row, slope, there)
                begin = u32(begin + u32({WARP}))
            """
        )
    emit_number_functions(out, traits)
    return out.text()


def _emit_places(out: SourceWriter, arrays: tuple[str, ...]) -> None:
    """Where the row's numbers are. Lanes go on together: up to ``rounded``, the row's pairs as whole warps."""
    for name in arrays:
        out.line(f"{name}_at = {row_of(name, row='slot')}")
    out.line("last = u32(count - u32(1))")
    out.line(f"rounded = u32(u32(count + u32({WARP - 1})) & u32({2**32 - WARP}))")
