"""Stage 1: E K and F V for all heads, in float32 parts: one product of the projections with everybody's tokens.

A block makes one tile from its share of the tokens. A warp fetches steps of 64 tokens and the projections' columns for
them; warpgroups of 64 slots each multiply. Parts are added by the next stage, in the same order at every run.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import WARP_OF_BLOCK
from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.bounds import bound_pointers, emit_largest_of_part
from flurka_numba.targets.sm90.lanes import GROUP_OF_BLOCK, LANE_OF_ROW, LANE_ROW
from flurka_numba.targets.sm90.ring import consuming, emit_advance, emit_rings, emit_steps, producing
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import BARRIER_BYTES, STEP, CompressTraits
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, WARP, sum_at, sums_of
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    GROUP,
    PRODUCT_DEPTH,
    SPAN_BYTES,
    STEP_OF_ROWS,
    WARPGROUP,
    keys_descriptor,
    spans,
    values_descriptor,
)

POINTERS = ("k_map", "v_map", "proj_k_map", "proj_v_map", "kv_lengths", "parts")
COUNTS = ("tiles_k", "tiles", "row_blocks", "pairs_k", "pairs_v", "splits", "seq_kv")
ENTRY = "compress"


def compress_entry(traits: CompressTraits) -> Entry:
    """How the kernel is called."""
    parameters = parameters_of((*POINTERS, *bound_pointers(traits.dtype)), COUNTS)
    return Entry(ENTRY, parameters, WARPGROUP * traits.groups + WARP, 1, traits.shared_bytes)


def render_compress(traits: CompressTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    product = f'{traits.columns}, "{traits.dtype}", from_registers=False, transposed=True'
    out = start_text(
        compress_entry(traits),
        f"Tokens to slots, E K and F V: {traits.dtype}, {traits.rows} slots x {traits.columns} columns a block.",
        f"{traits.groups} warpgroups of {GROUP} slots, and a warp that fetches {traits.stages} steps of {STEP} tokens "
        "ahead.",
        {"product": f"matrix_product({product})"},
    )
    with out.suite():
        _emit_start(out, traits)
        _emit_share(out, traits)
        fetches = "The warp that fetches steps; what one lane alone may do is predicated by ``leader``."
        with producing(out, traits.groups, fetches):
            _emit_producer(out, traits)
        with consuming(out, f"A warpgroup: {GROUP} slots of the tile."):
            _emit_consumer(out, traits)
    return out.text()


def _emit_start(out: KernelWriter, traits: CompressTraits) -> None:
    """Places in shared memory, and barriers: full for the copies' bytes, empty for a lane of every warp."""
    barriers = traits.stages * (traits.proj_bytes + traits.token_bytes)
    emit_shared_start(out, "base", ALIGNMENT)
    out.lines(
        f"""
        proj_tile = base
        token_tile = u32(base + u32({traits.stages * traits.proj_bytes}))
        full = u32(base + u32({barriers}))
        empty = u32(full + u32({BARRIER_BYTES * traits.stages}))
        cleared = u32(empty + u32({BARRIER_BYTES * traits.stages}))
        """
    )
    emit_rings(out, {"": traits.stages}, traits.groups * WARPGROUP // WARP, {"cleared": 1})
    out.line("ptx.allow_launch()  # of the next stage, which waits for the results")


def _emit_share(out: KernelWriter, traits: CompressTraits) -> None:
    """Which tile this block makes, and of which of its steps."""
    with out.part("find_tile", "Which tile this block makes, and which share of its tokens."):
        out.lines(
            """
            block = ptx.block_index()
            split = u32(block // tiles)
            tile = u32(block - split * tiles)
            of_values = u32(1) if tile >= tiles_k else u32(0)
            rest = u32(tile - tiles_k * of_values)
            pairs = ptx.select(pairs_v, pairs_k, of_values)
            place = u32(rest // row_blocks)
            row_block = u32(rest - place * row_blocks)
            entry = u32(place // pairs)
            pair = u32(place - entry * pairs)
            """
        )
    if traits.ragged:
        emit_length(out, "length", "seq_kv")
    else:
        out.line("length = seq_kv")
    with out.part("find_steps", "The steps of this block's share, up to the last."):
        out.lines(
            f"""
            steps = u32((length + u32({STEP - 1})) // u32({STEP}))
            share = u32((steps + splits - u32(1)) // splits)
            step = u32(min(split * share, steps))
            last = u32(min(step + share, steps))
            """
        )


def _emit_producer(out: KernelWriter, traits: CompressTraits) -> None:
    """One warp; what only one lane may do is predicated by ``leader``."""
    of_key, of_value = spans(traits.head_dim), spans(traits.value_dim)
    out.lines(
        f"""
        token_map = v_map if of_values else k_map
        proj_map = proj_v_map if of_values else proj_k_map
        spans = ptx.select(u32({of_value}), u32({of_key}), of_values)
        ptx.fence_tensor_map(token_map)
        ptx.fence_tensor_map(proj_map)
        stage = u32(0)
        free = u32(1)  # parity of the phase in which a stage was given back; a fresh barrier counts as given back
        """
    )
    with out.block("while step < last"):
        out.line(f"ptx.mbarrier_wait(empty + stage * u32({BARRIER_BYTES}), free)")
        if traits.ragged:
            out.line(f"kept = u32(length - step * u32({STEP}))")
            with out.block(f"if kept >= u32({STEP})"):
                _emit_copies(out, traits, f"full + stage * u32({BARRIER_BYTES})")
            with out.block("else"):
                _emit_copies(out, traits, "cleared")
                with out.part(
                    "clear_rest", "Tokens beyond the length become 0, as 0 x NaN is NaN; then the step is full."
                ):
                    _emit_clear(out, traits)
        else:
            _emit_copies(out, traits, f"full + stage * u32({BARRIER_BYTES})")
        out.line("step = u32(step + u32(1))")
        emit_advance(out, "stage", "free", traits.stages)


def _emit_copies(out: KernelWriter, traits: CompressTraits, barrier: str) -> None:
    """A step's columns of the projection and its tokens. What lies outside an array arrives as 0."""
    head = f"u32(pair * u32({traits.tile_spans}) // spans)" if traits.per_head else "u32(0)"
    with out.part("load_step", "The projection's columns for a step, and its tokens.", barrier=barrier):
        out.lines(
            f"""
            ptx.mbarrier_expect(barrier, u32({traits.proj_bytes + traits.token_bytes}), leader)
            to = u32(proj_tile + stage * u32({traits.proj_bytes}))
            token = u32(step * u32({STEP}))
            ptx.tensor_copy(
                to, proj_map, barrier, token, row_block * u32({traits.rows}), u32(0), {head}, u32(0), leader
            )
            """
        )
        with out.block(f"for i in range({traits.tile_spans})"):
            out.lines(
                f"""
                span = u32(pair * u32({traits.tile_spans}) + u32(i))
                head = u32(span // spans)
                column = u32((span - head * spans) * u32({SPAN}))
                to = u32(token_tile + stage * u32({traits.token_bytes}) + u32({STEP * SPAN_BYTES}) * u32(i))
                ptx.tensor_copy(to, token_map, barrier, column, token, u32(0), head, entry, leader)
                """
            )


def _emit_clear(out: KernelWriter, traits: CompressTraits) -> None:
    """Tokens at or beyond the length become 0, since they may be NaN and 0 x NaN is NaN; then the step is full."""
    out.line("ptx.mbarrier_wait(cleared, u32(0))  # of a block's steps the last alone can be ragged")
    with out.block(f"for row in range(kept, u32({STEP}))"):
        for i in range(traits.tile_spans):
            at = f"u32({i * STEP * SPAN_BYTES}) + u32(row) * u32({SPAN_BYTES}) + lane * u32(4)"
            out.line(f"ptx.store_shared_word(token_tile + stage * u32({traits.token_bytes}) + {at}, u32(0), u32(1))")
    out.lines(
        f"""
        ptx.fence_shared()
        ptx.warp_barrier()
        ptx.mbarrier_arrive(full + stage * u32({BARRIER_BYTES}), leader)
        """
    )


def _emit_consumer(out: KernelWriter, traits: CompressTraits) -> None:
    """64 slots of the tile."""
    out.lines(
        f"""
        warpgroup = u32{GROUP_OF_BLOCK}
        total = cuda.local.array({sums_of(traits.columns)}, dtype=np.float32)
        for i in range({sums_of(traits.columns)}):
            total[i] = f32(0.0)
        stage = u32(0)
        phase = u32(0)
        before = u32(0)
        held = u32(0)
        """
    )
    operands = f"""
        proj_at = proj_tile + stage * u32({traits.proj_bytes}) + warpgroup * u32({GROUP * SPAN_BYTES})
        proj = u64({keys_descriptor()}) | u64(proj_at >> u32(4))
        tokens = u64({values_descriptor(STEP)}) | u64((token_tile + stage * u32({traits.token_bytes})) >> u32(4))
        """
    products = [
        f"product(total, proj + u64({2 * k}), tokens + u64({STEP_OF_ROWS * k}), u32(1))"
        for k in range(STEP // PRODUCT_DEPTH)
    ]
    emit_steps(out, "last", traits.stages, operands, products)
    out.line("ptx.wgmma_wait_all()")
    with out.part("store_part", "(rows, columns) float32. A lane has two rows, and of every 8 columns two."):
        _emit_results(out, traits)
    if is_scaled(traits.dtype):
        with out.part("leave_bounds", "The largest numbers of a warp's rows."):
            emit_largest_of_part(out, traits)


def _emit_results(out: KernelWriter, traits: CompressTraits) -> None:
    """The part of this block: (rows, columns) float32. A lane has two rows, and of every 8 columns two."""
    row_bytes, first = 4 * traits.columns, f"u64({4 * LANE_COLUMNS}) * u64{LANE_OF_ROW}"
    out.lines(
        f"""
        row = u32{WARP_OF_BLOCK} * u32({ATOM}) + {LANE_ROW}
        to = parts + u64({row_bytes}) * (u64(block) * u64({traits.rows}) + u64(row)) + {first}
        """
    )
    with out.block(f"for j in range({traits.columns // MATRIX})"):
        for row in range(LANE_ROWS):
            pair = ", ".join(sum_at("total", row, x) for x in range(LANE_COLUMNS))
            out.line(
                f"ptx.store_reals2(to + u64({MATRIX * row * row_bytes}) + u64({4 * MATRIX}) * u64(j), {pair}, u32(1))"
            )
