"""The matrix products of a tile of gradients, as functions of the text."""

from __future__ import annotations

from splat_numba.gen.language.lane_layout import ATOM, LEFT_WORDS
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits, shared_layout
from splat_numba.gen.targets.sm90.products import GROUP_BYTES
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES, keys_descriptor, score_offset, values_descriptor


def emit_products(out: SourceWriter, traits: BackwardTraits) -> None:
    """Descriptors of the left tile, left.right of both pairs, and the gradients' products."""
    layout = shared_layout(traits)
    for i, (size, dim) in enumerate(zip(layout.left_sizes, traits.left_dims, strict=True), 1):
        _emit_descriptor(out, i, size)
        _emit_pair(out, traits, i, dim)
    if traits.weights:
        _emit_gradient(out, traits, "multiply_weights", "weight", "dv", 2)
    if traits.of_slopes:
        _emit_gradient(out, traits, "multiply_slopes", "change", traits.of_slopes, 1)


def _emit_descriptor(out: SourceWriter, number: int, size: int) -> None:
    text = "The descriptor of this group's part of a left array."
    with device_function(out, f"left_{number}_of", ("base", "warpgroup", "left_stage"), text):
        at = f"base + LEFT_{number}_TILE + warpgroup * u32({GROUP_BYTES})"
        out.line(f"first = u64({keys_descriptor()}) | u64(({at}) >> u32(4))")
        out.line(f"return first + u64(left_stage * u32({size >> 4}))")


def _emit_pair(out: SourceWriter, traits: BackwardTraits, number: int, dim: int) -> None:
    """left.right of the arrays of one number, over so many elements."""
    boxes, array = traits.boxes, ("score", "slope")[number - 1]
    parameters = (array, "base", f"left_{number}_at", "stage")
    text = f"Issue left.right of the {('first', 'second')[number - 1]} arrays."
    with device_function(out, f"multiply_left_{number}", parameters, text):
        at = f"base + RIGHT_{number}_TILE + stage * RIGHT_{number}_BYTES"
        out.line(f"right_at = u64({keys_descriptor()}) | u64(({at}) >> u32(4))")
        if number == 1:  # the second ones follow at once: no register was touched since
            out.line("ptx.wgmma_fence()")
        for step in range(-(-dim // ATOM)):
            left = f"left_{number}_at + u64({score_offset(step, boxes.tile_q)})"
            right = f"right_at + u64({score_offset(step, boxes.tile_kv)})"
            out.line(f"pair_product({array}, {left}, {right}, u32({int(step > 0)}))")
        out.line("ptx.wgmma_commit()")


def _emit_gradient(
    out: SourceWriter, traits: BackwardTraits, function: str, operand: str, name: str, right: int
) -> None:
    """A gradient's product: its left operand in registers, a right tile by its columns."""
    text = f"Issue what the tile adds to {name}."
    with device_function(out, function, (f"{name}_total", operand, "base", "stage"), text):
        at = f"base + RIGHT_{right}_TILE + stage * RIGHT_{right}_BYTES"
        out.line(f"right_at = u64({values_descriptor(traits.boxes.tile_kv)}) | u64(({at}) >> u32(4))")
        out.line("ptx.wgmma_fence()")
        for step in range(traits.boxes.tile_kv // ATOM):
            words = ", ".join(f"{operand}[{LEFT_WORDS * step + i}]" for i in range(LEFT_WORDS))
            out.line(f"{name}_product({name}_total, {words}, right_at + u64({ATOM * SPAN_BYTES * step >> 4}))")
        out.line("ptx.wgmma_commit()")
