"""Gradients of tokens, dk = E^T dk' and dv = F^T dv', for everybody's columns: one launch for both.

A block makes one tile after the other, 256 tokens by two spans of columns. The projection's columns for its tokens stay
in shared memory from tile to tile, as the next one has the same tokens but where a block goes on to others: what is
fetched again and again is the slots' gradients alone. A warp, in a warpgroup that gives its registers away, fetches;
warpgroups of 64 tokens each multiply. Columns of the slots' gradients are spread, see rows.py, so that each lane ends
with eight adjacent ones: exchanges between lanes were 160 instructions a tile more.
"""

from __future__ import annotations

from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.lanes import GROUP_OF_BLOCK
from flurka_numba.targets.sm90.ring import consuming, emit_advance, emit_rings, producing
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import BARRIER_BYTES
from flurka_numba.targets.sm90.token_producer import emit_place, emit_producer
from flurka_numba.targets.sm90.token_results import emit_results
from flurka_numba.targets.sm90.token_shape import (
    GROUPS,
    PIECE_BYTES,
    REGISTERS,
    STAGE_BYTES,
    STAGES,
    STEP,
    TILE_SPANS,
    TOKENS,
    TokenTraits,
)
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
    STEP_OF_ROWS,
    WARPGROUP,
    spans,
    values_descriptor,
)

MAPS = ("proj_k_map", "dk_spread_map", "proj_v_map", "dv_spread_map")
OUTPUTS = ("dk", "dv")
COUNTS = ("items_k", "items", "items_of_block", "batch", "heads", "seq_kv")
ENTRY = "token_gradients"


def token_parameters(traits: TokenTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    scales = ("gradient_scales",) if is_scaled(traits.dtype) else ()
    strides = (f"{name}_{axis}" for name in OUTPUTS for axis in ("row", "head", "batch"))
    return parameters_of((*MAPS, *OUTPUTS, *scales), COUNTS, strides)


def token_entry(traits: TokenTraits) -> Entry:
    """How the kernel is called."""
    return Entry(ENTRY, token_parameters(traits), WARPGROUP * (GROUPS + 1), 1, traits.shared_bytes)


def render_token_gradients(traits: TokenTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    options = f'"{traits.dtype}", from_registers=False, transposed=True, a_transposed=True'
    out = start_text(
        token_entry(traits),
        f"Gradients of tokens from those of up to {STEP * traits.steps} slots, {traits.dtype}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}; {TOKENS} tokens x {TILE_SPANS * SPAN} columns a "
        "tile.",
        {
            "product": f"matrix_product({TILE_SPANS * SPAN}, {options})",
            "fewer_registers": f"release_registers({REGISTERS[0]})",
            "more_registers": f"claim_registers({REGISTERS[1]})",
        },
    )
    with out.suite():
        _emit_start(out, traits)
        fetches = "The warp that fetches; what one lane alone may do is predicated by ``leader``."
        with producing(out, GROUPS, fetches, gives_registers=True):
            emit_producer(out, traits)
        with consuming(out, f"A warpgroup: {GROUP} tokens of each tile.", takes_registers=True):
            _emit_consumer(out, traits)
    return out.text()


def _emit_start(out: KernelWriter, traits: TokenTraits) -> None:
    """Places, barriers of stages and of the projection's pieces, and which tiles this block makes."""
    pieces = traits.steps * PIECE_BYTES
    stages = pieces + STAGES * STAGE_BYTES
    emit_shared_start(out, "piece_place", ALIGNMENT)
    out.lines(
        f"""
        slot_place = u32(piece_place + u32({pieces}))
        full = u32(piece_place + u32({stages}))
        empty = u32(full + u32({BARRIER_BYTES * STAGES}))
        piece_full = u32(empty + u32({BARRIER_BYTES * STAGES}))
        piece_empty = u32(piece_full + u32({BARRIER_BYTES * traits.steps}))
        """
    )
    emit_rings(out, {"": STAGES, "piece_": traits.steps}, GROUPS * WARPGROUP // WARP)
    out.lines(
        f"""
        pairs_k = u32((heads * u32({spans(traits.head_dim)}) + u32({TILE_SPANS - 1})) // u32({TILE_SPANS}))
        pairs_v = u32((heads * u32({spans(traits.value_dim)}) + u32({TILE_SPANS - 1})) // u32({TILE_SPANS}))
        item = u32(ptx.block_index() * items_of_block)
        last = u32(min(item + items_of_block, items))
        """
    )


def _emit_consumer(out: KernelWriter, traits: TokenTraits) -> None:
    """64 tokens of each tile; a stage, and a piece after its last tile, is given back when the next products have been
    issued.
    """
    out.lines(
        f"""
        warpgroup = u32{GROUP_OF_BLOCK}
        total = cuda.local.array({sums_of(TILE_SPANS * SPAN)}, dtype=np.float32)
        stage = u32(0)
        phase = u32(0)
        piece_phase = u32(1)
        begins = u32(1)
        before = u32(0)
        for i in range({sums_of(TILE_SPANS * SPAN)}):
            total[i] = f32(0.0)
        """
    )
    with out.block("while item < last"):
        emit_place(out, traits)
        with out.block("if rest == u32(0)"):
            out.line("begins = u32(1)")
        out.line("piece_phase = u32(piece_phase ^ begins)")
        out.line("begins = u32(0)")
        out.line("ends = leader if rest + u32(1) == of_tokens else u32(0)")
        for step in range(traits.steps):
            _emit_step(out, step)
            emit_advance(out, "stage", "phase", STAGES)
        out.line("ptx.wgmma_wait_all()")
        _emit_give_back(out, traits.steps - 1)
        with out.part("store_tile", "Rounded and stored, 16 bytes a lane."):
            emit_results(out, traits)
        out.line("item = u32(item + u32(1))")


def _emit_step(out: KernelWriter, step: int) -> None:
    """Issue a step's products, which are the first of the tile or not; give back what the one before has read."""
    more = "u32(1)" if step else "u32(0)"
    with out.part("multiply_step", "Issue the products of a step, when it is full.", step=str(step), more=more):
        out.lines(
            f"""
            ptx.mbarrier_wait(piece_full + u32({BARRIER_BYTES}) * u32(step), piece_phase)
            ptx.mbarrier_wait(full + stage * u32({BARRIER_BYTES}), phase)
            piece = piece_place + u32({PIECE_BYTES}) * u32(step) + warpgroup * u32({STEP * SPAN_BYTES})
            proj = u64({values_descriptor(STEP)}) | u64(piece >> u32(4))
            slots = u64({values_descriptor(STEP)}) | u64((slot_place + stage * u32({STAGE_BYTES})) >> u32(4))
            ptx.wgmma_fence()
            """
        )
        for k in range(STEP // PRODUCT_DEPTH):
            at = STEP_OF_ROWS * k
            out.line(f"product(total, proj + u64({at}), slots + u64({at}), {'u32(1)' if k else 'more'})")
        out.line("ptx.wgmma_commit()")
    if step:
        out.line("ptx.wgmma_wait_but_one()")
        _emit_give_back(out, step - 1)
    out.line("before = stage")


def _emit_give_back(out: KernelWriter, step: int) -> None:
    out.line(f"ptx.mbarrier_arrive(empty + before * u32({BARRIER_BYTES}), leader)")
    out.line(f"ptx.mbarrier_arrive(piece_empty + u32({BARRIER_BYTES * step}), ends)")
