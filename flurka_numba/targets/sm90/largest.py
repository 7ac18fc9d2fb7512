"""Before stage 2 of favor: the largest exponent of a head's slots and features, which is 1 number a block here.

A block takes 64 features of its share of the slots. Stage 2 takes the maximum of its head's blocks, in any order the
same. It is a launch of its own, because no feature can be made before it is known.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import LANE, QUAD
from flurka_numba.targets.gpu.warps import emit_largest_of_block, emit_largest_of_warp
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.sm90.random_slots import emit_exponents, emit_omega, key_columns
from flurka_numba.targets.sm90.shape import SIDE_ROW, SLOTS, STATE_THREADS, RandomFeatures, StateTraits
from flurka_numba.targets.sm90.slots import emit_place, emit_slot_places, emit_slots, slot_parameters
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.targets.gpu.parts import KernelWriter

ENTRY = "largest"


def largest_parameters(traits: StateTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    return (*slot_parameters(traits), ("omega", "l"), ("tops", "l"))


def largest_entry(traits: StateTraits) -> Entry:
    """How the kernel is called."""
    return Entry(ENTRY, largest_parameters(traits), STATE_THREADS, traits.resident, traits.shared_bytes, overlaps=True)


def render_largest(traits: StateTraits, phi: RandomFeatures) -> str:
    """Python source of the kernel. Pure and deterministic."""
    slots = f"slots come in {traits.splits} parts" if traits.parts else "slots are tokens"
    out = start_text(
        largest_entry(traits),
        f"The largest exponent of the slots of every head, generated for {phi.rows} rows of omega.",
        f"head_dim {traits.head_dim}, {traits.dtype}; {slots}.",
    )
    with out.suite():
        emit_place(out, (traits.blocks[0], 1))
        emit_slot_places(out, traits, key_columns(traits))
        emit_omega(out, traits, phi)
        out.line("top = f32(-np.inf)")
        with out.block("while chunk < last"):
            emit_slots(out, traits, key_columns(traits))
            out.line("ptx.block_barrier()")
            emit_exponents(out, traits)
            with out.part("take_largest", "The largest exponent of this thread's slots that are there."):
                for slot in (0, 1):
                    far = f"u32({slot * SLOTS // 2})"
                    out.line(f"kept = u32(1) if chunk + {SIDE_ROW} + {far} < last else u32(0)")
                    out.line(f"most = {_largest([f'u[{QUAD * slot + i}]' for i in range(QUAD)])}")
                    out.line("top = ptx.maximum(top, ptx.select_real(most, f32(-np.inf), kept))")
            out.line("ptx.block_barrier()")
            out.line(f"chunk = u32(chunk + u32({SLOTS}))")
        _emit_store(out)
    return out.text()


def _largest(numbers: list[str]) -> str:
    first, *rest = numbers
    return f"ptx.maximum({first}, {_largest(rest)})" if rest else first


def _emit_store(out: KernelWriter) -> None:
    """The maximum of all threads."""
    emit_largest_of_block(out, "top", "feature_tile", STATE_THREADS)
    first = "u32(1) if thread == u32(0) else u32(0)"
    out.line(f"ptx.store_real(tops + u64(4) * u64(ptx.block_index()), top, {first})")


def emit_largest_of_all(out: KernelWriter) -> None:
    """In stage 2: ``largest`` of the head, from what the blocks of the launch before left; every warp for itself."""
    with out.part("find_largest", "The largest exponent of a head, which every warp finds for itself."):
        out.line("largest = f32(-np.inf)")
        with out.block(f"for first in range(u32(0), tops_of_head, u32({WARP}))"):
            out.line(f"top_number = u32(u32(first) + {LANE})")
            out.line("top_number = top_number if top_number < tops_of_head else u32(0)")
            out.line("top_at = tops + u64(4) * (u64(pair) * u64(tops_of_head) + u64(top_number))")
            out.line("largest = ptx.maximum(largest, ptx.load_state(top_at))")
        emit_largest_of_warp(out, "largest")
