"""Gradients along a sequence: of queries, from dout and the state; of keys and values, from the state's gradient.

Queries, with r = phi(q).z + eps and w = -dout.out: dq = phi'(q) (dout S^T + w z^T) / r; 1 / r and w of every row are
kept for the sums that make dS and dz (accumulate.py). Nothing is divided by r before it is rounded to 16 bits: r may be
small, and float16 ends at 65504. Keys and values: dk = phi'(k) (v dS^T + dz^T), dv = phi(k) dS.
Both are two products of a tile's rows with the two images of a state (images.py), whose sums stand where the rows do.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import OCTET
from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.gradient_results import emit_row_weights, emit_slopes, emit_values
from flurka_numba.targets.sm90.gradient_rows import (
    emit_features,
    emit_images_there,
    emit_product,
    emit_real_y,
    emit_start,
    emit_sum_step,
    emit_sum_words,
    emit_weights,
)
from flurka_numba.targets.sm90.gradient_scales import emit_gradient_scales, emit_tops
from flurka_numba.targets.sm90.gradient_shape import CHUNKS_AT_ONCE, OPERANDS, GradientTraits
from flurka_numba.targets.sm90.image_shape import turned_rows
from flurka_numba.targets.sm90.lanes import CHUNK
from flurka_numba.targets.sm90.rows import emit_load
from flurka_numba.targets.sm90.scales import emit_slot_factors
from flurka_numba.targets.sm90.shape import SUM_ROWS, chunks, state_rows
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import GROUP, WARPGROUP

COUNTS = ("heads", "rows", "blocks", "tiles_of_block")
ENTRY = "gradients"


def gradient_parameters(traits: GradientTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    operands = traits.written
    strides = [f"{name}_{axis}" for name in operands for axis in ("row", "head", "batch")]
    pointers = (*operands, "states", "turned", "row_weights", "kv_lengths", *traits.further)
    return parameters_of(pointers, COUNTS, strides)


def gradient_entry(traits: GradientTraits) -> Entry:
    """How the kernel is called."""
    return Entry(ENTRY, gradient_parameters(traits), WARPGROUP, traits.resident, traits.shared_bytes)


def render_gradients(traits: GradientTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    values, features = CHUNK * chunks(traits.value_dim), turned_rows(traits.head_dim)
    sums = SUM_ROWS if traits.of == "queries" else 0
    options = f'"{traits.dtype}", from_registers=True, transposed=False'
    out = start_text(
        gradient_entry(traits),
        f"Gradients of {traits.of}, generated for feature map {traits.feature_map.name}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; {GROUP} rows at a time.",
        {
            "add_values": f"matrix_product({values + sums}, {options})",
            "add_features": f"matrix_product({features}, {options})",
        },
    )
    with out.suite():
        emit_start(out, traits, values + sums, features, traits.top_bytes)
        if traits.slots_scaled:
            emit_slot_factors(out, "key_factor", "value_factor")
        if traits.gradients_scaled:
            emit_gradient_scales(out, traits)
        emit_images_there(out, traits)
        if traits.measure:
            out.line("top_k = top_v = f32(0.0)")
        with out.block("while tile < last"):
            _emit_tile(out, traits, values + sums, features)
        if traits.measure:
            emit_tops(out, traits)
    return out.text()


def _emit_tile(out: KernelWriter, traits: GradientTraits, columns: int, features: int) -> None:
    out.line(f"first_row = u32(tile * u32({GROUP}))")
    out.line("tile = u32(tile + u32(1))")
    x, y, *_ = OPERANDS[traits.of]
    emit_load(out, x, traits.head_dim, "length", "x_word")
    wide = chunks(traits.head_dim) + chunks(traits.value_dim) > CHUNKS_AT_ONCE
    if not wide:
        _emit_y(out, traits, y)
    emit_features(out, traits)
    emit_product(out, "of_values", columns, "feature", traits.head_dim, "image_rows", state_rows(traits.value_dim))
    out.line("ptx.wgmma_commit()")
    out.line("ptx.wgmma_wait_all()")
    if wide:
        _emit_y(out, traits, y)
    if traits.of == "queries":
        emit_weights(out, traits)
        emit_row_weights(out)
    else:
        emit_values(out, traits)
    emit_sum_words(out, traits)
    emit_product(out, "of_features", features, "y_word", traits.value_dim, "turned_rows", turned_rows(traits.head_dim))
    emit_sum_step(out, traits, "add_features")
    out.line("ptx.wgmma_commit()")
    out.line("ptx.wgmma_wait_all()")
    emit_slopes(out, traits)


def _emit_y(out: KernelWriter, traits: GradientTraits, y: str) -> None:
    """The tile's rows of y."""
    emit_load(out, y, traits.value_dim, "length", "y_word")
    if traits.value_dim % OCTET:
        emit_real_y(out, traits)
