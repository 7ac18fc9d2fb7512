"""Bounds of float16 slots: how large E k and F v of a head can be, from the parts that stage 1 leaves of them.

A warp of stage 1 leaves the largest magnitude of its rows of a part, in each span. A slot is the sum of its parts, so
it is at most the sum of these over the parts. That is what scales of slots follow from: their largest number itself
would ask for one more launch, and a bound is within the parts' number of it, but where parts cancel each other.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import LANE, WARP_OF_BLOCK
from flurka_numba.targets.gpu.warps import emit_largest_of_warp
from flurka_numba.targets.sm90.scales import emit_finite_top, is_scaled
from flurka_numba.targets.sm90.shape import CompressTraits
from splat_numba.gen.language.lane_layout import WARP, sums_of
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import WARP_ROWS


def bound_pointers(dtype: str) -> tuple[str, ...]:
    """Parameters of stages that leave or read bounds of slots of this type."""
    return ("bounds",) if is_scaled(dtype) else ()


def warps_of(parts: CompressTraits) -> int:
    """Warps that share the rows of a part."""
    return parts.rows // WARP_ROWS


def bounds_bytes(parts: CompressTraits, blocks: int) -> int:
    """Of what so many blocks of stage 1 leave."""
    return 4 * blocks * warps_of(parts) * parts.tile_spans


def emit_largest_of_part(out: KernelWriter, parts: CompressTraits) -> None:
    """In stage 1, behind its products: each warp's largest numbers."""
    out.line(f"bounds_at = u64(block) * u64({warps_of(parts) * parts.tile_spans})")
    out.line(f"bounds_at = bounds + u64(4) * (bounds_at + u64({parts.tile_spans}) * u64{WARP_OF_BLOCK})")
    for span in range(parts.tile_spans):
        first = str(sums_of(SPAN) * span)
        with out.part("leave_bound", "The largest number of a span of a warp's rows.", first=first, span=str(span)):
            out.line("top = f32(0.0)")
            with out.block(f"for i in range({sums_of(SPAN)})"):
                emit_finite_top(out, "top", "total[first + i]")
            emit_largest_of_warp(out, "top")
            out.line("ptx.store_real(bounds_at + u64(4) * u64(span), top, leader)")


def emit_bound(
    out: KernelWriter, parts: CompressTraits, splits: int, name: str, pairs: str, spans: str, first: str
) -> None:
    """``name``: a bound of the slots of ``head`` of ``entry``; every warp for itself, once the launch before has ended.

    pairs, spans: of this operand, of all heads and of one; first: its first tile; as text.
    """
    warps = warps_of(parts)
    with out.part("bound_slots", "A bound of a head's slots, which every warp finds for itself."):
        out.line(f"{name} = f32(0.0)")
        out.line(f"rows_of_span = u32(row_blocks * u32({warps}))")
        with out.block(f"for first_number in range(u32(0), rows_of_span * {spans}, u32({WARP}))"):
            out.lines(
                f"""
                bound_row = u32(u32(first_number) + {LANE})
                bound_row = bound_row if bound_row < rows_of_span * {spans} else u32(0)
                bound_span = u32(bound_row // rows_of_span)
                bound_row = u32(bound_row - bound_span * rows_of_span)
                bound_span = u32(head * {spans} + bound_span)
                bound_pair = u32(bound_span // u32({parts.tile_spans}))
                bound_tile = u32({first} + (entry * {pairs} + bound_pair) * row_blocks)
                bound_at = u64({parts.tile_spans}) * (u64(bound_tile) * u64({warps}) + u64(bound_row))
                bound_at = bounds + u64(4) * (bound_at + u64(bound_span - bound_pair * u32({parts.tile_spans})))
                bound = f32(0.0)
                for part in range({splits}):
                    bound += ptx.load_state(bound_at + u64(tiles) * u64({4 * warps * parts.tile_spans}) * u64(part))
                {name} = ptx.maximum({name}, bound)
                """
            )
        emit_largest_of_warp(out, name)
