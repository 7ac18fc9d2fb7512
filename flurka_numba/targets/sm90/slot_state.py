"""Stage 2 of FLuRKA with an elementwise map: the state of every head from what stage 1 left, by tensor cores.

A block takes 64 features x 64 values and its share of the slots. All threads add up the parts of 8 adjacent columns of
a slot, in their order, take phi, round, and put them into shared memory with the slots as the products' depth; columns
stand where stage 3 wants them (apply.py), so that a lane of the result, S^T, holds neighbours of the image that it
writes. The sums of features are a product with ones. Where slots are shared out, the block that comes last adds up the
shares in their order.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import LANE, OCTET
from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.powers import emit_scale
from flurka_numba.targets.sm90.bounds import bound_pointers, emit_bound
from flurka_numba.targets.sm90.lanes import CHUNK, GROUP_OF_BLOCK
from flurka_numba.targets.sm90.scales import VALUE_TOP
from flurka_numba.targets.sm90.shape import STATE_SIDE
from flurka_numba.targets.sm90.slot_state_operands import (
    emit_feature_scale,
    emit_features,
    emit_loads,
    emit_operands,
)
from flurka_numba.targets.sm90.slot_state_results import emit_share, emit_state
from flurka_numba.targets.sm90.slot_state_shape import ROW_THREADS, THREAD_NUMBERS, THREADS, SlotStateTraits
from flurka_numba.targets.sm90.slots import PART_COUNTS
from flurka_numba.targets.sm90.state_block import emit_state_share
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import log2, sums_of
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    PRODUCT_DEPTH,
    SPAN_BYTES,
    STEP_OF_ROWS,
    spans,
    values_descriptor,
)

POINTERS = ("parts", "states", "shares", "counters")
COUNTS = (*PART_COUNTS, "heads", "slots", "shares_of_state")
ENTRY = "slot_state"
ONES = {"bfloat16": 0x3F803F80, "float16": 0x3C003C00}


def slot_state_entry(traits: SlotStateTraits) -> Entry:
    """How the kernel is called."""
    parameters = parameters_of((*POINTERS, *bound_pointers(traits.parts.dtype)), COUNTS)
    return Entry(ENTRY, parameters, THREADS, 1, traits.shared_bytes, overlaps=True)


def render_slot_state(traits: SlotStateTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    parts = traits.parts
    options = f'{STATE_SIDE}, "{parts.dtype}", transposed=True'
    out = start_text(
        slot_state_entry(traits),
        f"Slots to the state of every head, generated for feature map {traits.feature_map.name}.",
        f"head_dim {parts.head_dim}, value_dim {parts.value_dim}, {parts.dtype}; slots come in {traits.splits} parts.",
        {
            "add_products": f"matrix_product({options}, from_registers=False, a_transposed=True)",
            "add_features": f"matrix_product({options}, from_registers=True)",
        },
    )
    with out.suite():
        _emit_start(out, traits)
        with out.block("while slot < last"):
            if traits.scaled:
                for first in range(0, traits.turns, traits.turns_at_once):
                    emit_loads(out, traits, first)
                emit_features(out, traits)
                emit_feature_scale(out, traits)
                emit_operands(out, traits)
            else:
                with out.block(f"for turn in range(u32(0), u32({traits.turns}), u32({traits.turns_at_once}))"):
                    emit_loads(out, traits)
                    emit_features(out, traits)
                    emit_operands(out, traits)
            out.line("ptx.fence_shared()")
            out.line("ptx.block_barrier()")
            with out.part("multiply_slots", "S^T of these slots, and the sums of their features in every row."):
                _emit_products(out, traits)
            out.line("ptx.block_barrier()")
            out.line(f"slot = u32(slot + u32({traits.depth}))")
        if traits.scaled:
            with out.block(f"for i in range({sums_of(STATE_SIDE)})"):
                out.line("total[i], sums[i] = total[i] * inverse, sums[i] * inverse")
        with out.block("if shares_of_state > u32(1)"):
            emit_share(out)
        with (
            out.block("if is_last != u32(0) and warpgroup == u32(0)"),
            out.part("store_state", "A lane has two rows of S^T, and of every 8 columns two; of the sums 8 rows."),
        ):
            emit_state(out, traits)
    return out.text()


def _emit_start(out: KernelWriter, traits: SlotStateTraits) -> None:
    """Which head, features, values and slots are this block's, and what its threads have."""
    parts = traits.parts
    emit_shared_start(out, "feature_tile", ALIGNMENT)
    out.lines(
        f"""
        value_tile = u32(feature_tile + u32({traits.depth * SPAN_BYTES}))
        flag = u32(value_tile + u32({traits.depth * SPAN_BYTES}))
        thread = ptx.thread_index()
        lane = u32{LANE}
        warpgroup = u32{GROUP_OF_BLOCK}
        """
    )
    emit_state_share(out, traits.blocks)
    with out.part("find_slots", "The slots of this share, up to the last."):
        out.lines(
            """
            slots_of_share = u32((slots + shares_of_state - u32(1)) // shares_of_state)
            slot = u32(min(share * slots_of_share, slots))
            last = u32(min(slot + slots_of_share, slots))
            """
        )
    chunk, in_chunk = (f"(eighth & u32({mask}))" for mask in (CHUNK, CHUNK - OCTET))
    out.lines(
        f"""
        eighth = u32((thread & u32({ROW_THREADS - 1})) * u32({OCTET}))
        place = u32({chunk} * u32(2) + ({in_chunk} >> u32(1)))  # bytes of its first pair's column
        row_in_turn = u32(thread >> u32({log2(ROW_THREADS)}))
        is_last = u32(1)
        total = cuda.local.array({sums_of(STATE_SIDE)}, dtype=np.float32)
        sums = cuda.local.array({sums_of(STATE_SIDE)}, dtype=np.float32)
        for i in range({sums_of(STATE_SIDE)}):
            total[i] = f32(0.0)
            sums[i] = f32(0.0)
        got = cuda.local.array({THREAD_NUMBERS * traits.turns_held}, dtype=np.float32)
        to_part = u64(tiles) * u64({4 * parts.rows * parts.columns})
        """
    )
    _emit_columns(out, traits)
    if traits.scaled:
        out.line("inverse = f32(0.0)  # of the features' scale up to now")
    out.line("ptx.allow_launch()")
    out.line("ptx.await_launch()")
    if traits.scaled:
        emit_bound(out, parts, traits.splits, "value_top", "pairs_v", f"u32({spans(parts.value_dim)})", "tiles_k")
        emit_scale(out, "value_scale", "value_top", VALUE_TOP)


def _emit_columns(out: KernelWriter, traits: SlotStateTraits) -> None:
    """Where this block's columns of keys and of values stand in the parts."""
    parts = traits.parts
    for name, dim, first in (("k", parts.head_dim, ""), ("v", parts.value_dim, "tiles_k + ")):
        block = "feature_block" if name == "k" else "value_block"
        with out.part(f"find_{name}_columns", "The first tile of this block's columns, and where they stand in it."):
            out.lines(
                f"""
                span = u32(head * u32({spans(dim)}) + {block})
                tile_pair = u32(span // u32({parts.tile_spans}))
                tile_{name} = u32({first}(entry * pairs_{name} + tile_pair) * row_blocks)
                column = u32((span - tile_pair * u32({parts.tile_spans})) * u32({SPAN}) + eighth)
                {name}_at = parts + u64(4) * u64(column)
                """
            )


def _emit_products(out: KernelWriter, traits: SlotStateTraits) -> None:
    """S^T, and the sums of features in every row. Both warpgroups make them, and the first writes: with a branch round
    the products ptxas serialises them (C7519).
    """
    ones = ", ".join([f"u32({ONES[traits.parts.dtype]})"] * 4)
    out.lines(
        f"""
        features = u64({values_descriptor(traits.depth)}) | u64(feature_tile >> u32(4))
        values = u64({values_descriptor(traits.depth)}) | u64(value_tile >> u32(4))
        ptx.wgmma_fence()
        """
    )
    for step in range(traits.depth // PRODUCT_DEPTH):
        at = STEP_OF_ROWS * step
        out.line(f"add_products(total, values + u64({at}), features + u64({at}), u32(1))")
        out.line(f"add_features(sums, {ones}, features + u64({at}))")
    out.line("ptx.wgmma_commit()")
    out.line("ptx.wgmma_wait_all()")
