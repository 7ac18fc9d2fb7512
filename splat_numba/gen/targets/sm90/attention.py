"""The attention kernel's text: imports, parameters, barriers, then the two roles, producer and consumer."""

from __future__ import annotations

from splat_numba.gen.boxes import Traits
from splat_numba.gen.entry import Entry
from splat_numba.gen.targets.sm90.consumer import emit_consumer
from splat_numba.gen.targets.sm90.producer import emit_producer
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    REGISTERS,
    q_stages,
    shared_bytes,
    shared_layout,
    threads_per_block,
    value_columns,
)
from splat_numba.gen.writer import SourceWriter

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


def attention_entry(traits: Traits) -> Entry:
    """How the kernel of these traits is called."""
    return Entry(ENTRY, PARAMETERS, threads_per_block(traits), traits.blocks_per_multiprocessor, shared_bytes(traits))


def render_attention(traits: Traits) -> str:
    """Python source of the kernel ``attention`` that serves every mask of these traits. Pure and deterministic."""
    out = SourceWriter()
    _emit_head(out, traits)
    out.line()
    out.line()
    out.line(f"def {ENTRY}(")
    with out.suite():
        for names in (POINTERS, ("scale_log2",), COUNTS, STRIDES):
            out.line(f"{', '.join(names)},")
    out.line("):")
    with out.suite():
        _emit_start(out, traits)
        with out.block(f"if warpgroup == u32({traits.groups})"):
            out.line("fewer_registers()")
            emit_producer(out, traits)
        with out.block("else"):
            out.line("more_registers()")
            emit_consumer(out, traits)
    return out.text()


def _emit_head(out: SourceWriter, traits: Traits) -> None:
    """Docstring, imports, and the instructions that depend on the traits."""
    producer, consumer = REGISTERS[traits.groups, traits.blocks_per_multiprocessor]
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
        from numba import cuda

        from splat_numba.runtime.cuda import intrinsics as ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        NONE_KEPT = f32(-np.inf)
        fewer_registers = ptx.release_registers({producer})
        more_registers = ptx.claim_registers({consumer})
        score_product = ptx.matrix_product({scores})
        value_product = ptx.matrix_product({values})
        """
    )


def _emit_start(out: SourceWriter, traits: Traits) -> None:
    """Names for places in shared memory; the barriers, with the number of arrivals (warps) that complete each."""
    layout = shared_layout(traits)
    out.lines(
        f"""
        start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
        base = u32((start + u32({ALIGNMENT - 1})) & u32({2**32 - ALIGNMENT}))
        q_tile = base
        k_tile = u32(base + u32({layout.k}))
        v_tile = u32(base + u32({layout.v}))
        mask_tile = u32(base + u32({layout.mask}))
        tile_info = u32(base + u32({layout.tile_info}))
        item_info = u32(base + u32({layout.item_info}))
        q_full = u32(base + u32({layout.q_full}))
        q_empty = u32(base + u32({layout.q_empty}))
        k_full = u32(base + u32({layout.k_full}))
        k_empty = u32(base + u32({layout.k_empty}))
        v_full = u32(base + u32({layout.v_full}))
        v_empty = u32(base + u32({layout.v_empty}))
        thread = ptx.thread_index()
        warpgroup = u32(thread >> u32(7))
        lane = u32(thread & u32(31))
        items = u32(blocks * heads_count * batch)
        """
    )
    if traits.ragged:
        out.line(f"cleared = base + u32({layout.cleared})")
    with out.block("if thread == u32(0)"):
        for stage in range(q_stages(traits)):
            out.line(f"ptx.mbarrier_init(q_full + u32({8 * stage}), u32(1))")
            out.line(f"ptx.mbarrier_init(q_empty + u32({8 * stage}), u32({4 * traits.groups}))")
        for stage in range(traits.stages):
            for full, empty in (("k_full", "k_empty"), ("v_full", "v_empty")):
                out.line(f"ptx.mbarrier_init({full} + u32({8 * stage}), u32(1))")
                out.line(f"ptx.mbarrier_init({empty} + u32({8 * stage}), u32({4 * traits.groups}))")
        if traits.ragged:
            out.line("ptx.mbarrier_init(cleared, u32(1))")
        out.line("ptx.fence_mbarrier_init()")
    out.line("ptx.block_barrier()")
