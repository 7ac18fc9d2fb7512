"""The warp that fetches for the gradients of tokens: where a tile is, pieces of the projection, slots."""

from __future__ import annotations

from flurka_numba.targets.sm90.ring import emit_advance
from flurka_numba.targets.sm90.shape import BARRIER_BYTES
from flurka_numba.targets.sm90.token_shape import (
    GROUPS,
    PIECE_BYTES,
    STAGE_BYTES,
    STAGES,
    STEP,
    TILE_SPANS,
    TOKENS,
    TokenTraits,
)
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import GROUP, SPAN_BYTES, spans


def emit_place(out: KernelWriter, traits: TokenTraits) -> None:
    """What a tile is of, and which of ``of_tokens`` that have the same tokens: ``rest``."""
    with out.part("find_tile", "What a tile is of, and which of ``of_tokens`` that have the same tokens: ``rest``."):
        out.lines(
            f"""
            of_values = u32(1) if item >= items_k else u32(0)
            rest = u32(item - items_k * of_values)
            pairs = ptx.select(pairs_v, pairs_k, of_values)
            of_tokens = u32(batch * pairs)
            token_tile = u32(rest // of_tokens)
            rest = u32(rest - token_tile * of_tokens)
            entry = u32(rest // pairs)
            first_span = u32((rest - entry * pairs) * u32({TILE_SPANS}))
            spans = ptx.select(u32({spans(traits.value_dim)}), u32({spans(traits.head_dim)}), of_values)
            """
        )


def emit_producer(out: KernelWriter, traits: TokenTraits) -> None:
    """One warp; what only one lane may do is predicated by ``leader``."""
    out.lines(
        """
        stage = u32(0)
        free = u32(1)  # parities of the phases in which stages and pieces were given back; fresh barriers count as such
        piece_free = u32(1)
        begins = u32(1)
        """
    )
    with out.block("while item < last"):
        emit_place(out, traits)
        with out.block("if rest == u32(0)"):
            out.line("begins = u32(1)")
        out.lines(
            """
            slot_map = dv_spread_map if of_values else dk_spread_map
            proj_map = proj_v_map if of_values else proj_k_map
            """
        )
        with out.block("if begins != u32(0)"):
            out.line("ptx.fence_tensor_map(slot_map)")
            out.line("ptx.fence_tensor_map(proj_map)")
        for step in range(traits.steps):
            with out.block("if begins != u32(0)"):
                _emit_piece(out, step)
            _emit_slots(out, step)
            emit_advance(out, "stage", "free", STAGES)
        out.line("piece_free = u32(piece_free ^ begins)")
        out.line("begins = u32(0)")
        out.line("item = u32(item + u32(1))")


def _emit_piece(out: KernelWriter, step: int) -> None:
    """The projection's columns for this tile's tokens, a step of its slots."""
    with out.part("load_piece", "The projection's columns for a tile's tokens, a step of its slots.", step=str(step)):
        out.lines(
            f"""
            ptx.mbarrier_wait(piece_empty + u32({BARRIER_BYTES}) * u32(step), piece_free)
            barrier = piece_full + u32({BARRIER_BYTES}) * u32(step)
            ptx.mbarrier_expect(barrier, u32({PIECE_BYTES}), leader)
            slot = u32({STEP}) * u32(step)
            for group in range({GROUPS}):
                token = token_tile * u32({TOKENS}) + u32({GROUP}) * u32(group)
                to = piece_place + u32({PIECE_BYTES}) * u32(step) + u32({STEP * SPAN_BYTES}) * u32(group)
                ptx.tensor_copy(to, proj_map, barrier, token, slot, u32(0), u32(0), u32(0), leader)
            """
        )


def _emit_slots(out: KernelWriter, step: int) -> None:
    """The slots' gradients in this tile's columns. What lies outside an array arrives as 0."""
    with out.part("load_slots", "A step of the slots' gradients in a tile's columns.", step=str(step)):
        out.lines(
            f"""
            ptx.mbarrier_wait(empty + stage * u32({BARRIER_BYTES}), free)
            barrier = u32(full + stage * u32({BARRIER_BYTES}))
            ptx.mbarrier_expect(barrier, u32({STAGE_BYTES}), leader)
            for i in range({TILE_SPANS}):
                span = u32(first_span + u32(i))
                head = u32(span // spans)
                column = u32((span - head * spans) * u32({SPAN}))
                to = u32(slot_place + stage * u32({STAGE_BYTES}) + u32({STEP * SPAN_BYTES}) * u32(i))
                ptx.tensor_copy(to, slot_map, barrier, column, u32({STEP}) * u32(step), u32(0), head, entry, leader)
            """
        )
