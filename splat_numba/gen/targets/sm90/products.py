"""The two matrix products of a tile, as functions of the text."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.lane_layout import LEFT_WORDS
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.sm90.shape import (
    GROUP,
    PRODUCT_DEPTH,
    SPAN_BYTES,
    STEP_OF_ROWS,
    keys_descriptor,
    score_offset,
    score_steps,
    shared_layout,
    values_descriptor,
)

GROUP_BYTES = GROUP * SPAN_BYTES  # of a group's 64 queries in a span of a tile


def emit_products(out: SourceWriter, traits: Traits) -> None:
    """Descriptors of queries, q.k, and weights.v."""
    with device_function(
        out, "queries_at", ("base", "warpgroup", "q_stage"), "The descriptor of this group's queries."
    ):
        q_bytes = shared_layout(traits).q_bytes
        out.line(f"first = u64({keys_descriptor()}) | u64((base + Q_TILE + warpgroup * u32({GROUP_BYTES})) >> u32(4))")
        out.line(f"return first + u64(q_stage * u32({q_bytes >> 4}))")
    _emit_scores(out, traits)
    _emit_values(out, traits)


def _emit_scores(out: SourceWriter, traits: Traits) -> None:
    text = "Issue q.k of the tile in ``stage``."
    with device_function(out, "multiply_queries", ("score", "base", "q_at", "stage"), text):
        out.line(f"k_at = u64({keys_descriptor()}) | u64((base + K_TILE + stage * K_BYTES) >> u32(4))")
        out.line("ptx.wgmma_fence()")
        for step in range(score_steps(traits)):
            q_at = f"q_at + u64({score_offset(step, traits.tile_q)})"
            k_at = f"k_at + u64({score_offset(step, traits.tile_kv)})"
            out.line(f"score_product(score, {q_at}, {k_at}, u32({int(step > 0)}))")
        out.line("ptx.wgmma_commit()")


def _emit_values(out: SourceWriter, traits: Traits) -> None:
    text = "Issue weights.v of the tile in ``v_stage``, once its values have arrived."
    with device_function(out, "multiply_weights", ("total", "weight", "base", "v_stage", "v_phase"), text):
        out.lines(
            f"""
            ptx.mbarrier_wait(base + V_FULL + v_stage * u32(8), v_phase)
            v_at = u64({values_descriptor(traits.tile_kv)}) | u64((base + V_TILE + v_stage * V_BYTES) >> u32(4))
            ptx.wgmma_fence()
            """
        )
        for step in range(traits.tile_kv // PRODUCT_DEPTH):
            weights = ", ".join(f"weight[{LEFT_WORDS * step + i}]" for i in range(LEFT_WORDS))
            out.line(f"value_product(total, {weights}, v_at + u64({STEP_OF_ROWS * step}))")
        out.line("ptx.wgmma_commit()")
