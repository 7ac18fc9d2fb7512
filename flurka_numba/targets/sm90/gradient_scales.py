"""One power of two for the gradients of all slots in float16, as dE is a sum over all heads; another one for values'.

gradients.py runs twice then: first each block leaves the largest gradients of its rows, and writes nothing else; then
every block takes the largest of all, which is the same in any order. Who reads gradients, undoes the scale in float32.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import QUAD_BYTES
from flurka_numba.targets.gpu.warps import emit_largest_of_block
from flurka_numba.targets.powers import emit_inverse, emit_scale
from flurka_numba.targets.sm90.gradient_shape import GradientTraits
from flurka_numba.targets.sm90.scales import TOP
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import WARPGROUP

THREADS = WARPGROUP
TOP_BYTES = 8  # of a block: of keys, and of values
SCALE_BYTES = 8  # what undoes the scale of keys' gradients, and of values'


def emit_tops(out: KernelWriter, traits: GradientTraits) -> None:
    """Leave ``top_k`` and ``top_v`` of all threads."""
    with out.part("leave_tops", "The largest gradients of this block's rows."):
        _emit_largest(out, traits)
        out.line("first = u32(1) if thread == u32(0) else u32(0)")
        out.line(f"ptx.store_reals2(gradient_tops + u64({TOP_BYTES}) * u64(block), top_k, top_v, first)")


def emit_gradient_scales(out: KernelWriter, traits: GradientTraits) -> None:
    """``scale_k`` and ``scale_v``; the first block leaves what undoes them."""
    with out.part(
        "find_scales",
        "Scales of all gradients, from what the blocks before left; the first block leaves their inverses.",
    ):
        out.line("top_k = top_v = f32(0.0)")
        with out.block(f"for first_number in range(u32(0), ptx.grid_size(), u32({THREADS}))"):
            out.lines(
                f"""
                top_number = u32(u32(first_number) + thread)
                top_number = top_number if top_number < ptx.grid_size() else u32(0)
                tops_at = gradient_tops + u64({TOP_BYTES}) * u64(top_number)
                top_k = ptx.maximum(top_k, ptx.load_state(tops_at))
                top_v = ptx.maximum(top_v, ptx.load_state(tops_at + u64(4)))
                """
            )
        _emit_largest(out, traits)
        if traits.shared:
            out.line("top_k = top_v = ptx.maximum(top_k, top_v)")
        for name in "kv":
            emit_scale(out, f"scale_{name}", f"top_{name}", TOP)
            emit_inverse(out, f"inverse_{name}", f"scale_{name}")
        out.line("leaves = u32(1) if (block | thread) == u32(0) else u32(0)")
        out.line("ptx.store_reals2(gradient_scales, inverse_k, inverse_v, leaves)")


def _emit_largest(out: KernelWriter, traits: GradientTraits) -> None:
    """Of the block."""
    for number, name in enumerate(("top_k", "top_v")):
        place = f"image + u32({traits.image_bytes + traits.turned_bytes + QUAD_BYTES * THREADS // WARP * number})"
        emit_largest_of_block(out, name, place, THREADS)
