"""Gradients of projections, dE = sum of dk' k^T over batch entries and heads, dF likewise: one launch for both.

A block makes one tile after the other, some slots by some tokens, over everybody's columns: a warp fetches steps of 64
columns of the slots' gradients and of the tokens, where these are; warpgroups of 64 slots each multiply, in float32 up
to the end. With a projection that keys and values share, the steps of values follow those of keys.
"""

from __future__ import annotations

from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.lanes import GROUP_OF_BLOCK
from flurka_numba.targets.sm90.projection_results import emit_results
from flurka_numba.targets.sm90.projection_shape import ProjectionTraits
from flurka_numba.targets.sm90.ring import consuming, emit_advance, emit_rings, emit_steps, producing
from flurka_numba.targets.sm90.shape import BARRIER_BYTES
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import WARP, sums_of
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    GROUP,
    PRODUCT_DEPTH,
    SPAN_BYTES,
    WARPGROUP,
    keys_descriptor,
    spans,
)

MAPS = ("dk_slots_map", "k_map", "dv_slots_map", "v_map")
OUTPUTS = ("dproj_k", "dproj_v")
COUNTS = ("tiles_k", "tiles", "row_blocks", "token_tiles", "batch", "heads", "slots", "seq_kv")
ENTRY = "projection_gradients"


def projection_parameters(traits: ProjectionTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    scales = ("gradient_scales",) if traits.scaled else ()
    strides = (f"{name}_{axis}" for name in OUTPUTS for axis in ("row", "head"))
    return parameters_of((*MAPS, *OUTPUTS, *scales), COUNTS, strides)


def projection_entry(traits: ProjectionTraits) -> Entry:
    """How the kernel is called."""
    return Entry(ENTRY, projection_parameters(traits), WARPGROUP * traits.groups + WARP, 1, traits.shared_bytes)


def render_projection_gradients(traits: ProjectionTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    product = f'{traits.columns}, "{traits.dtype}", from_registers=False, transposed=False'
    out = start_text(
        projection_entry(traits),
        f"Gradients of projections: {traits.dtype}, {traits.rows} slots x {traits.columns} tokens at a time.",
        f"{traits.groups} warpgroups of {GROUP} slots, and a warp that fetches {traits.stages} steps of {SPAN} columns "
        "ahead.",
        {"product": f"matrix_product({product})"},
    )
    with out.suite():
        _emit_start(out, traits)
        fetches = "The warp that fetches steps; what one lane alone may do is predicated by ``leader``."
        with producing(out, traits.groups, fetches):
            _emit_producer(out, traits)
        with consuming(out, f"A warpgroup: {GROUP} slots of each tile."):
            _emit_consumer(out, traits)
    return out.text()


def _emit_start(out: KernelWriter, traits: ProjectionTraits) -> None:
    """Places in shared memory, and barriers: full for the copies' bytes, empty for a lane of every warp."""
    barriers = traits.stages * (traits.slot_bytes + traits.token_bytes)
    emit_shared_start(out, "slot_place", ALIGNMENT)
    out.lines(
        f"""
        token_place = u32(slot_place + u32({traits.stages * traits.slot_bytes}))
        full = u32(slot_place + u32({barriers}))
        empty = u32(full + u32({BARRIER_BYTES * traits.stages}))
        """
    )
    emit_rings(out, {"": traits.stages}, traits.groups * WARPGROUP // WARP)
    out.lines(
        f"""
        heads_of_tile = u32({"1" if traits.per_head else "heads"})
        steps_k = u32(batch * heads_of_tile * u32({spans(traits.head_dim)}))
        steps_v = u32(batch * heads_of_tile * u32({spans(traits.value_dim)}))
        tile = ptx.block_index()
        """
    )


def _emit_place(out: KernelWriter, traits: ProjectionTraits) -> None:
    """What a tile is of, and which of its steps are of keys: the first ``steps_k`` of ``steps``, or none."""
    with out.part("find_tile", "Whether a tile is of values, its slots, its head and its tokens."):
        out.lines(
            f"""
            of_values = u32(1) if tile >= tiles_k else u32(0)
            rest = u32(tile - tiles_k * of_values)
            place = u32(rest // row_blocks)
            first_slot = u32((rest - place * row_blocks) * u32({traits.rows}))
            head_of_tile = u32(place // token_tiles)
            first_token = u32((place - head_of_tile * token_tiles) * u32({traits.columns}))
            """
        )
    out.line("step = u32(0)")
    if traits.shared:
        out.line("steps = u32(steps_k + steps_v)")
    else:
        out.line("steps = ptx.select(steps_v, steps_k, of_values)")


def _emit_producer(out: KernelWriter, traits: ProjectionTraits) -> None:
    """One warp; what only one lane may do is predicated by ``leader``."""
    out.line("stage = u32(0)")
    out.line(
        "free = u32(1)  # parity of the phase in which a stage was given back; a fresh barrier counts as given back"
    )
    with out.block("while tile < tiles"):
        _emit_place(out, traits)
        out.lines(
            """
            span = u32(0)
            head = u32(0)
            entry = u32(0)
            """
        )
        _emit_maps(out, traits)
        with out.block("while step < steps"):
            if traits.shared:
                with out.block("if step == steps_k"):
                    out.line("of_values = u32(1)")
                    out.line("entry = u32(0)")
                    _emit_maps(out, traits)
            out.line(f"ptx.mbarrier_wait(empty + stage * u32({BARRIER_BYTES}), free)")
            _emit_step(out, traits)
            emit_advance(out, "stage", "free", traits.stages)
        out.line("tile = u32(tile + ptx.grid_size())")


def _emit_step(out: KernelWriter, traits: ProjectionTraits) -> None:
    """A span of a head, and where the next one is."""
    with out.part("load_step", "A span of the slots' gradients and of the tokens."):
        out.lines(
            f"""
            barrier = u32(full + stage * u32({BARRIER_BYTES}))
            ptx.mbarrier_expect(barrier, u32({traits.slot_bytes + traits.token_bytes}), leader)
            column = u32(span * u32({SPAN}))
            head_here = u32(head_of_tile + head)
            to = u32(slot_place + stage * u32({traits.slot_bytes}))
            ptx.tensor_copy(to, slot_map, barrier, column, first_slot, u32(0), head_here, entry, leader)
            to = u32(token_place + stage * u32({traits.token_bytes}))
            ptx.tensor_copy(to, token_map, barrier, column, first_token, u32(0), head_here, entry, leader)
            """
        )
    out.line("step = u32(step + u32(1))")
    with out.part("next_span", "On through a head, then through heads, then through batch entries."):
        out.lines(
            """
            span = u32(span + u32(1))
            if span == spans:
                span = u32(0)
                head = u32(head + u32(1))
                if head == heads_of_tile:
                    head = u32(0)
                    entry = u32(entry + u32(1))
            """
        )


def _emit_maps(out: KernelWriter, traits: ProjectionTraits) -> None:
    with out.part("choose_maps", "Of keys or of values, before the first copies by them; and the spans of a head."):
        out.lines(
            f"""
            slot_map = dv_slots_map if of_values else dk_slots_map
            token_map = v_map if of_values else k_map
            spans = ptx.select(u32({spans(traits.value_dim)}), u32({spans(traits.head_dim)}), of_values)
            ptx.fence_tensor_map(slot_map)
            ptx.fence_tensor_map(token_map)
            """
        )


def _emit_consumer(out: KernelWriter, traits: ProjectionTraits) -> None:
    """64 slots of each tile."""
    out.lines(
        f"""
        warpgroup = u32{GROUP_OF_BLOCK}
        total = cuda.local.array({sums_of(traits.columns)}, dtype=np.float32)
        stage = u32(0)
        phase = u32(0)
        before = u32(0)
        for i in range({sums_of(traits.columns)}):
            total[i] = f32(0.0)
        """
    )
    operands = f"""
        slots_at = slot_place + stage * u32({traits.slot_bytes}) + warpgroup * u32({GROUP * SPAN_BYTES})
        tokens_at = token_place + stage * u32({traits.token_bytes})
        slot_rows = u64({keys_descriptor()}) | u64(slots_at >> u32(4))
        token_rows = u64({keys_descriptor()}) | u64(tokens_at >> u32(4))
        """
    # Set to 0 where a tile begins, sums would make ptxas serialise the products (C7515).
    products = [
        f"product(total, slot_rows + u64({2 * k}), token_rows + u64({2 * k}), {'u32(1)' if k else 'held'})"
        for k in range(SPAN // PRODUCT_DEPTH)
    ]
    with out.block("while tile < tiles"):
        _emit_place(out, traits)
        out.line("held = u32(0)")
        emit_steps(out, "steps", traits.stages, operands, products)
        out.line("ptx.wgmma_wait_all()")
        out.line(f"ptx.mbarrier_arrive(empty + before * u32({BARRIER_BYTES}), leader & held)")
        with out.part("store_tile", "Rounded and stored, 16 bytes a lane."):
            emit_results(out, traits)
        out.line("tile = u32(tile + ptx.grid_size())")
