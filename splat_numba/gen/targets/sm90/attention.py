"""The attention kernel's text: imports, places in shared memory, the entry function, then those that it calls.

Functions are inlined where they are called, so that arrays they are given stay registers of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import WARP
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import emit_header
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, emit_shared_start, wrapped
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
    subject = "Sparse attention on Hopper, generated for every mask that tables of boxes describe."
    emit_head(out, traits, subject, ("queries", "keys"), "", "q, k and v")
    scores = f'{traits.tile_kv}, "{traits.dtype}", from_registers=False, transposed=False'
    values = f'{value_columns(traits)}, "{traits.dtype}", from_registers=True, transposed=True'
    out.line(f"score_product = ptx.matrix_product({scores})")
    out.line(f"value_product = ptx.matrix_product({values})")


def emit_head(
    out: SourceWriter, boxes: Traits, subject: str, tokens: tuple[str, str], more: str, fetched: str
) -> None:  # fmt: skip
    """How a text begins, but for its products. tokens: what a tile's rows and columns are; more: that is to be said of
    tiles; fetched: whose boxes the producer fetches.
    """
    registers, claimed = REGISTERS[boxes.groups, boxes.blocks_per_multiprocessor]
    quotes, (rows, columns) = '"' * 3, tokens
    dims = f"head_dim {boxes.head_dim}, value_dim {boxes.value_dim}, {boxes.dtype}"
    out.lines(
        f"""
        {quotes}{subject}

        {dims}; {boxes.tile_q} {rows} x {boxes.tile_kv} {columns} a tile{more}.
        A block is {boxes.groups} x 128 threads, each for 64 {rows}, and a producer that fetches boxes of {fetched},
        {boxes.stages} tiles ahead; blocks take items (row block, head, batch entry) in turn, longest row blocks first.
        {quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        NONE_KEPT = f32(-np.inf)
        NO_ITEM = u32({NO_ITEM})  # in place of a row block's number: nothing follows
        {DEVICE}
        fewer_registers = ptx.release_registers({registers})
        more_registers = ptx.claim_registers({claimed})
        """
    )


def _emit_places(out: SourceWriter, traits: Traits) -> None:
    """Shared memory as constants: tiles, what goes with them, barriers."""
    layout = shared_layout(traits)
    tiles = {"Q": (layout.q, layout.q_bytes), "K": (layout.k, layout.k_bytes), "V": (layout.v, layout.v_bytes)}
    if traits.partial:
        tiles["MASK"] = (layout.mask, layout.mask_bytes)
    barriers = {
        "Q": (layout.q_full, layout.q_empty), "K": (layout.k_full, layout.k_empty), "V": (layout.v_full, layout.v_empty)
    }  # fmt: skip
    stages = {"Q_STAGES": q_stages(traits), "STAGES": traits.stages}
    emit_places(out, stages, tiles, (layout.tile_info, layout.item_info), barriers)
    if traits.ragged:
        out.line(f"CLEARED = u32({layout.cleared})")


def emit_places(
    out: SourceWriter, stages: Mapping[str, int], tiles: Mapping[str, tuple[int, int]], info: tuple[int, int],
    barriers: Mapping[str, tuple[int, int]],
) -> None:  # fmt: skip
    """Constants of a text. tiles: where stages of a kind begin, and bytes of one; info: where what goes with tiles and
    with items begins; barriers: of each ring of stages, those that say that one is full, and that it is empty.
    """
    out.lines(
        f"""

        # Shared memory, in bytes from its aligned start: stages of tiles, what goes with them, and their barriers.
        {", ".join(stages)} = {", ".join(f"u32({count})" for count in stages.values())}
        """
    )
    pairs = {(f"{name}_TILE", f"{name}_BYTES"): places for name, places in tiles.items()}
    pairs |= {("TILE_INFO", "ITEM_INFO"): info}
    pairs |= {(f"{ring}_FULL", f"{ring}_EMPTY"): places for ring, places in barriers.items()}
    for (first, second), (start, end) in pairs.items():
        out.line(f"{first}, {second} = u32({start}), u32({end})")


def _emit_entry(out: SourceWriter, traits: Traits) -> None:
    """Barriers, then the two roles."""
    emit_header(out, ENTRY, (POINTERS, ("scale_log2",), COUNTS, STRIDES, rest_pointer(traits)))
    emit_roles(out, traits.groups, producer.arguments(traits), consumer.arguments(traits))


def emit_roles(out: SourceWriter, groups: int, produce: Sequence[str], consume: Sequence[str]) -> None:
    """The entry's body: barriers are made, then a warp of the last warpgroup produces, and the others consume."""
    with out.suite():
        emit_shared_start(out, "base", ALIGNMENT)
        out.lines(
            f"""
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
    text, rings = "With the arrivals (warps) that complete a phase of each.", {"Q_STAGES": "Q", "STAGES": "KV"}
    emit_barriers(out, text, rings, 4 * traits.groups, cleared=traits.ragged)
    emit_turns(out)


def emit_barriers(
    out: SourceWriter, text: str, rings: Mapping[str, Sequence[str]], arrivals: int, *, cleared: bool
) -> None:
    """``make_barriers``. rings: of so many stages, by the constant's name; arrivals: that give a stage back; cleared:
    whether the producer waits for tiles that it clears in part.
    """
    with device_function(out, "make_barriers", ("base",), text):
        for stages, names in rings.items():
            with out.block(f"for stage in range({stages})"):
                for name in names:
                    out.line(f"ptx.mbarrier_init(base + {name}_FULL + u32(8) * u32(stage), u32(1))")
                    out.line(f"ptx.mbarrier_init(base + {name}_EMPTY + u32(8) * u32(stage), u32({arrivals}))")
        if cleared:
            out.line("ptx.mbarrier_init(base + CLEARED, u32(1))")
        out.line("ptx.fence_mbarrier_init()")


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
