"""Key lengths in the producer's text: what of a tile lies below its batch entry's, and values that must not count."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES, spans


def emit_clearing(out: SourceWriter, tile_kv: int, value_dim: int) -> None:
    """Values beyond the length may be NaN, and 0 x NaN is NaN."""
    parameters = ("base", "stage", "valid", "cleared_phase")
    with device_function(out, "clear_values", parameters, "Values beyond the length become 0 when they are there."):
        out.line("ptx.mbarrier_wait(base + CLEARED, cleared_phase)")
        emit_clear_tile(out, "V", tile_kv, value_dim)
        emit_cleared(out, "V")


def emit_clear_tile(out: SourceWriter, name: str, tile_kv: int, dim: int) -> None:
    """Tokens of a tile from ``valid`` on become 0."""
    out.line(f"to = base + {name}_TILE + stage * {name}_BYTES + u32(ptx.thread_index() & u32(31)) * u32(4)")
    with out.block(f"for token in range(valid, u32({tile_kv}))"):
        for span in range(spans(dim)):
            at = f"to + u32({span * tile_kv * SPAN_BYTES}) + u32(token) * u32({SPAN_BYTES})"
            out.line(f"ptx.store_shared_word({at}, u32(0), u32(1))")


def emit_cleared(out: SourceWriter, ring: str) -> None:
    """What was cleared is seen by matrix products, and handed over."""
    out.lines(
        f"""
        ptx.fence_shared()
        ptx.warp_barrier()
        ptx.mbarrier_arrive(base + {ring}_FULL + stage * u32(8), leader())
        """
    )
