"""The attention kernel's text: imports, places in shared memory, the entry function, then those that it calls.

Functions are inlined where they are called, so that arrays they are given stay registers of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import emit_header
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, wrapped
from splat_numba.gen.targets.gpu.results import rest_pointer
from splat_numba.gen.targets.sm90 import consumer, producer
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    REGISTERS,
    WARPGROUP,
    q_stages,
    shared_bytes,
    shared_layout,
    threads_per_block,
    value_columns,
)

POINTERS = (
    "q_maps",
    "kv_maps",
    "rows",
    "block",
    "piece",
    "bits",
    "heads",
    "kv_lengths",
    "views",
    "out",
    "lse",
    "counter",
)
COUNTS = ("blocks", "heads_count", "heads_q", "group", "batch", "heads_per_wave", "seq_q", "q_views", "kv_views")
STRIDES = ("out_row", "out_head", "out_batch")
PARAMETERS = (
    *((name, "l") for name in POINTERS),
    ("scale_log2", "f"),
    *((name, "r") for name in COUNTS),
    *((name, "l") for name in STRIDES),
)
ENTRY = "attention"
NO_ITEM = 2**32 - 1  # in place of a row block's number: nothing follows


def attention_entry(traits: Traits) -> Entry:
    """How the kernel of these traits is called."""
    rest = [(name, "l") for name in rest_pointer(traits)]
    return Entry(
        ENTRY, (*PARAMETERS, *rest), threads_per_block(traits), traits.blocks_per_multiprocessor, shared_bytes(traits)
    )


def render_attention(traits: Traits) -> str:
    """Python source of the kernel ``attention`` that serves every mask of these traits. Pure and deterministic."""
    out = SourceWriter()
    _emit_head(out, traits)
    _emit_places(out, traits)
    _emit_entry(out, traits)
    _emit_shared(out, traits)
    producer.emit_producer(out, traits)
    consumer.emit_consumer(out, traits)
    return out.text()


def _emit_head(out: SourceWriter, traits: Traits) -> None:
    """Docstring, imports, and the instructions that depend on the traits."""
    registers, more = REGISTERS[traits.groups, traits.blocks_per_multiprocessor]
    quotes = '"' * 3
    dims = f"head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}"
    scores = f'{traits.tile_kv}, "{traits.dtype}", from_registers=False, transposed=False'
    values = f'{value_columns(traits)}, "{traits.dtype}", from_registers=True, transposed=True'
    out.lines(
        f"""
        {quotes}Sparse attention on Hopper, generated for every mask that tables of boxes describe.

        {dims}; {traits.tile_q} queries x {traits.tile_kv} keys a tile.
        A block is {traits.groups} x 128 threads, each for 64 queries, and a producer that fetches boxes of q, k and v,
        {traits.stages} tiles ahead; blocks take items (row block, head, batch entry) in turn, longest row blocks first.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        NONE_KEPT = f32(-np.inf)
        NO_ITEM = u32({NO_ITEM})  # in place of a row block's number: nothing follows
        {DEVICE}
        fewer_registers = ptx.release_registers({registers})
        more_registers = ptx.claim_registers({more})
        score_product = ptx.matrix_product({scores})
        value_product = ptx.matrix_product({values})
        """
    )


def _emit_places(out: SourceWriter, traits: Traits) -> None:
    """Shared memory as constants: tiles, what goes with them, barriers."""
    layout = shared_layout(traits)
    tiles = {"Q": (layout.q, layout.q_bytes), "K": (layout.k, layout.k_bytes), "V": (layout.v, layout.v_bytes)}
    if traits.partial:
        tiles["MASK"] = (layout.mask, layout.mask_bytes)
    out.lines(
        f"""

        # Shared memory, in bytes from its aligned start: stages of tiles, what goes with them, and their barriers.
        Q_STAGES, STAGES = u32({q_stages(traits)}), u32({traits.stages})
        """
    )
    for name, (start, size) in tiles.items():
        out.line(f"{name}_TILE, {name}_BYTES = u32({start}), u32({size})")
    out.lines(
        f"""
        TILE_INFO, ITEM_INFO = u32({layout.tile_info}), u32({layout.item_info})
        Q_FULL, Q_EMPTY = u32({layout.q_full}), u32({layout.q_empty})
        K_FULL, K_EMPTY = u32({layout.k_full}), u32({layout.k_empty})
        V_FULL, V_EMPTY = u32({layout.v_full}), u32({layout.v_empty})
        """
    )
    if traits.ragged:
        out.line(f"CLEARED = u32({layout.cleared})")


def _emit_entry(out: SourceWriter, traits: Traits) -> None:
    """Barriers, then the two roles."""
    emit_header(out, ENTRY, (POINTERS, ("scale_log2",), COUNTS, STRIDES, rest_pointer(traits)))
    emit_roles(out, traits.groups, producer.arguments(traits), consumer.arguments(traits))


def emit_roles(out: SourceWriter, groups: int, produce: Sequence[str], consume: Sequence[str]) -> None:
    """The entry's body: barriers are made, then a warp of the last warpgroup produces, and the others consume."""
    with out.suite():
        out.lines(
            f"""
            start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
            base = u32((start + u32({ALIGNMENT - 1})) & u32({2**32 - ALIGNMENT}))
            thread = ptx.thread_index()
            warpgroup = u32(thread >> u32(7))
            if thread == u32(0):
                make_barriers(base)
            ptx.block_barrier()
            if warpgroup == u32({groups}):
                fewer_registers()
            """
        )
        with out.suite(), out.block(f"if thread < u32({WARPGROUP * groups + WARP})"):
            wrapped(out, "produce", produce)
        out.line("else:")
        with out.suite():
            out.line("more_registers()")
            wrapped(out, "consume", consume)


def _emit_shared(out: SourceWriter, traits: Traits) -> None:
    """What both roles need."""
    warps = 4 * traits.groups
    with device_function(out, "make_barriers", ("base",), "With the arrivals (warps) that complete a phase of each."):
        with out.block("for stage in range(Q_STAGES)"):
            _emit_pair(out, "Q", warps)
        with out.block("for stage in range(STAGES)"):
            _emit_pair(out, "K", warps)
            _emit_pair(out, "V", warps)
        if traits.ragged:
            out.line("ptx.mbarrier_init(base + CLEARED, u32(1))")
        out.line("ptx.fence_mbarrier_init()")
    emit_turns(out)


def emit_turns(out: SourceWriter) -> None:
    """Who acts for a warp, and how a ring of stages goes on."""
    with device_function(out, "leader", (), "1 in the lane that acts for its warp, 0 in the others."):
        out.line("return u32(1) if (ptx.thread_index() & u32(31)) == u32(0) else u32(0)")
    emit_advance(out)


def emit_advance(out: SourceWriter) -> None:
    """How a ring of stages goes on."""
    with device_function(
        out, "advance", ("stage", "phase", "stages"), "On to the next stage; its barriers' phase turns with the round."
    ):
        out.lines(
            """
            stage = u32(stage + u32(1))
            if stage == stages:
                return u32(0), u32(phase ^ u32(1))
            return stage, phase
            """
        )


def _emit_pair(out: SourceWriter, name: str, warps: int) -> None:
    out.line(f"ptx.mbarrier_init(base + {name}_FULL + u32(8) * u32(stage), u32(1))")
    out.line(f"ptx.mbarrier_init(base + {name}_EMPTY + u32(8) * u32(stage), u32({warps}))")
