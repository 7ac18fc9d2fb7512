"""Rows of sums over a sequence: to registers, and features, values and weights to shared memory."""

from __future__ import annotations

from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu.lanes import OCTET
from flurka_numba.targets.gpu.warps import emit_largest_of_block
from flurka_numba.targets.powers import emit_inverse, emit_scale
from flurka_numba.targets.sm90.accumulate_shape import (
    BUFFERS,
    OPERANDS,
    TILE,
    TILE_BYTES,
    AccumulateTraits,
)
from flurka_numba.targets.sm90.lanes import CHUNK, COLUMN_OF_WORD, of_row, swizzle, words_of_chunk
from flurka_numba.targets.sm90.rows import emit_load, words
from flurka_numba.targets.sm90.scales import TOP, emit_weight, is_scaled
from flurka_numba.targets.sm90.shape import STATE_SIDE, SUM_ROWS
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS, MATRIX, sums_of
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES, WARPGROUP

CHUNKS = STATE_SIDE // CHUNK


def emit_rows(out: KernelWriter, traits: AccumulateTraits, to: str) -> None:
    """The next tile's rows on their way to registers; a last block of features or values may be narrower."""
    with out.part("load_rows", "The next tile's rows on their way to registers, and what a row counts."):
        out.line(f"first_row = u32(tile * u32({TILE}))")
        out.line("end = length if tile < last else u32(0)")
        for place, name, dim in zip("xy", OPERANDS[traits.of], (traits.head_dim, traits.value_dim), strict=True):
            if dim % STATE_SIDE == 0:
                emit_load(out, name, STATE_SIDE, "end", f"{place}_{to}")
                continue
            for row in range(LANE_ROWS):
                out.line(f"row_{row} = u32(first_row + row_in_tile + u32({MATRIX * row}))")
                out.line(f"real_{row} = u32(1) if row_{row} < end else u32(0)")
                for chunk in range(CHUNKS):
                    names = words_of_chunk(f"{place}_{to}", chunk, row)
                    at = f"{name}_at + u64(row_{row}) * {name}_row + u64({2 * CHUNK * chunk})"
                    there = f"real_{row} if eighth + u32({CHUNK * chunk}) < {place}_columns else u32(0)"
                    out.line(f"{names} = ptx.load_words4_when({at}, {there})")
        if traits.of == "queries":
            for row in range(LANE_ROWS):
                out.line(f"at = weight_at + u64(8) * u64(row_{row} if real_{row} else u32(0))")
                out.line(f"scale_{row} = ptx.load_state(at) if real_{row} else f32(0.0)")
                out.line(f"weight_{row} = ptx.load_state(at + u64(4)) if real_{row} else f32(0.0)")
        else:
            for row in range(LANE_ROWS):
                out.line(f"weight_{row} = f32(1.0) if real_{row} else f32(0.0)")


def emit_operands(out: KernelWriter, traits: AccumulateTraits) -> None:
    """phi of x, y and w into this tile's buffer; 0 for rows and columns that are not there, as phi(0) is not 0."""
    with out.part(
        "store_operands", "phi of x, y and w into this tile's buffer; 0 for rows and columns that are not there."
    ):
        with out.block(f"for i in range({words(STATE_SIDE)})"):
            out.line(f"low, high = ptx.unpack_{traits.dtype}(x_ahead[i])")
            if traits.slots_scaled:
                out.line("low, high = low * key_factor, high * key_factor")
            low, high = (gpu_text(traits.feature_map.source, name) for name in ("low", "high"))
            out.line(f"low, high = {low}, {high}")
            if traits.of == "queries":
                out.line(f"factor = {of_row('scale')}")
                out.line("low, high = low * factor, high * factor")
            out.line(f"kept = {of_row('real')}")
            whole = traits.head_dim % STATE_SIDE == 0
            kept = [
                "kept" if whole else f"kept if {COLUMN_OF_WORD} + u32({x}) < x_columns else u32(0)"
                for x in range(LANE_COLUMNS)
            ]
            pair = f"ptx.select_real(low, f32(0.0), {kept[0]}), ptx.select_real(high, f32(0.0), {kept[1]})"
            if traits.slots_scaled:
                out.line(f"phi[2 * i], phi[2 * i + 1] = {pair}")
            else:
                out.line(f"word[i] = ptx.pack_{traits.dtype}({pair})")
        if traits.slots_scaled:
            _emit_scaled_features(out, traits)
        emit_tile(out, "word", "base")
        if traits.value_dim % OCTET:  # a row may end within its last 16 bytes, and what stands behind it may be NaN
            with out.block(f"for i in range({words(STATE_SIDE)})"):
                out.line(f"low, high = ptx.unpack_{traits.dtype}(y_ahead[i])")
                for x, name in enumerate(("low", "high")):
                    there = f"u32(1) if {COLUMN_OF_WORD} + u32({x}) < y_columns else u32(0)"
                    out.line(f"{name} = ptx.select_real({name}, f32(0.0), {there})")
                out.line(f"y_ahead[i] = ptx.pack_{traits.dtype}(low, high)")
        emit_tile(out, "y_ahead", "value_place")
        emit_row_weights(out, traits.dtype, "weight_place", real=traits.of == "queries")


def _emit_scaled_features(out: KernelWriter, traits: AccumulateTraits) -> None:
    """Features of this tile, and sums of those before, times a scale that does for both."""
    with out.part(
        "scale_features", "Features of this tile, and sums of those before, times a scale that does for both."
    ):
        out.line(f"top = inverse * f32({2.0 ** (TOP - 1)!r})  # what the sums have been scaled by")
        with out.block(f"for i in range({LANE_COLUMNS * words(STATE_SIDE)})"):
            out.line("top = ptx.maximum(top, phi[i])")
        emit_largest_of_block(out, "top", f"buffers + u32({BUFFERS * 3 * TILE_BYTES})", WARPGROUP)
        emit_scale(out, "scale", "top", TOP)
        emit_factors(out, "(scale * inverse)")
        emit_inverse(out, "inverse", "scale")
        with out.block(f"for i in range({words(STATE_SIDE)})"):
            out.line(f"word[i] = ptx.pack_{traits.dtype}(phi[2 * i] * scale, phi[2 * i + 1] * scale)")


def emit_factors(out: KernelWriter, factor: str) -> None:
    """All sums times a factor."""
    for name, count in (("total", sums_of(STATE_SIDE)), ("sums", sums_of(SUM_ROWS))):
        with out.block(f"for i in range({count})"):
            out.line(f"{name}[i] = {name}[i] * {factor}")


def emit_row_weights(out: KernelWriter, dtype: str, place: str, *, real: bool = True) -> None:
    """w into its buffer at ``place``, after which all of the tile is there for everybody. real: not 0 or 1."""
    with out.part("store_row_weights", "w into its buffer, after which all of the tile is there for everybody."):
        out.line("first = u32(1) if eighth == u32(0) else u32(0)")
        for row in range(LANE_ROWS):
            of_lane = f"row_in_tile * u32({SPAN_BYTES}) + {swizzle('row_in_tile')}"
            at = f"{place} + u32({MATRIX * SPAN_BYTES * row}) + {of_lane}"
            weight = f"ptx.pack_{dtype}(weight_{row}, f32(0.0))"
            if real and is_scaled(dtype):
                emit_weight(out, "weight", f"weight_{row}", dtype)
                weight = "weight"
            out.line(f"ptx.store_shared_words4({at}, {weight}, u32(0), u32(0), u32(0), first)")
        out.line("ptx.fence_shared()")
        out.line("ptx.block_barrier()")


def emit_tile(out: KernelWriter, name: str, place: str) -> None:
    """The lane's 16 bytes of each row and chunk into the tile at ``place``."""
    text = "The lane's 16 bytes of each row and chunk into a tile in shared memory."
    with out.part("store_tile", text, numbers=name, place=place):
        for row in range(LANE_ROWS):
            for chunk in range(CHUNKS):
                four = words_of_chunk("numbers", chunk, row)
                out.line(f"ptx.store_shared_words4({lane_place('place', row, chunk)}, {four}, u32(1))")


def lane_place(place: str, row: int, chunk: int) -> str:
    """Where 16 bytes of a lane stand, with the swizzle of shared memory; 8 rows further on it is the same."""
    swizzled = f"((u32({2 * CHUNK * chunk}) + u32(2) * eighth) ^ {swizzle('row_in_tile')})"
    return f"{place} + u32({MATRIX * SPAN_BYTES * row}) + row_in_tile * u32({SPAN_BYTES}) + {swizzled}"
