"""Sums over a sequence: phi(x)^T y, and phi(x)^T w for a number w a row, in float32 shares.

The state of kernel attention (x = k, y = v, w = 1), and the gradient of a state (x = q, features over the row's
divisor, y = dout, w as gradients.py has it). A block of one warpgroup makes 64 features x 64 values from its share of
the rows. Rows go through registers, where phi is taken, into shared memory, and both operands of the product are read
there with the rows as its depth. Two buffers, so that one barrier a tile does.
"""

from __future__ import annotations

from flurka_numba.targets.gpu_text import parameters_of, start_text
from flurka_numba.targets.sm90.accumulate_results import emit_products, emit_share
from flurka_numba.targets.sm90.accumulate_rows import emit_factors, emit_operands, emit_rows
from flurka_numba.targets.sm90.accumulate_shape import (
    BUFFERS,
    OPERANDS,
    TILE,
    TILE_BYTES,
    AccumulateTraits,
)
from flurka_numba.targets.sm90.lanes import CHUNK
from flurka_numba.targets.sm90.rows import emit_lane, words
from flurka_numba.targets.sm90.scales import SCALE_ROW, emit_slot_factors
from flurka_numba.targets.sm90.shape import STATE_SIDE, SUM_ROWS, chunks, state_bytes
from flurka_numba.targets.sm90.state_block import emit_state_share
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, sums_of
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    SPAN_BYTES,
    WARPGROUP,
)

POINTERS = ("row_weights", "kv_lengths", "shares")
COUNTS = ("heads", "rows", "shares_of_state")
ENTRY = "accumulate"


def accumulate_parameters(traits: AccumulateTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    operands = OPERANDS[traits.of]
    strides = (f"{name}_{axis}" for name in operands for axis in ("row", "head", "batch"))
    further = ("states",) if traits.scaled else ("slot_scales",) if traits.slots_scaled else ()
    return parameters_of((*operands, *POINTERS, *further), COUNTS, strides)


def accumulate_entry(traits: AccumulateTraits) -> Entry:
    """How the kernel is called."""
    whole = not (traits.head_dim % STATE_SIDE or traits.value_dim % STATE_SIDE)
    resident = 4 if whole and not traits.slots_scaled else 2  # narrower blocks take up to 168 registers
    return Entry(ENTRY, accumulate_parameters(traits), WARPGROUP, resident, traits.shared_bytes)


def render_accumulate(traits: AccumulateTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    options = f'"{traits.dtype}", from_registers=False, transposed=True, a_transposed=True'
    out = start_text(
        accumulate_entry(traits),
        f"Sums of features times values over a sequence, generated for feature map {traits.feature_map.name}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; {TILE} rows at a time.",
        {
            "add_products": f"matrix_product({STATE_SIDE}, {options})",
            "add_weights": f"matrix_product({SUM_ROWS}, {options})",
        },
    )
    with out.suite():
        _emit_start(out, traits)
        emit_rows(out, traits, "ahead")
        with out.block("while tile < last"):
            out.line(f"base = u32(buffers + buffer * u32({3 * TILE_BYTES}))")
            out.line(f"value_place = u32(base + u32({TILE_BYTES}))")
            out.line(f"weight_place = u32(base + u32({2 * TILE_BYTES}))")
            emit_operands(out, traits)
            out.line("tile = u32(tile + u32(1))")
            emit_rows(out, traits, "ahead")
            out.line("ptx.wgmma_fence()")
            emit_products(out, "base", "value_place", "weight_place")
            out.line("ptx.wgmma_wait_all()  # left open over the end of the loop, ptxas would serialise them (C7515)")
            out.line("buffer = u32(buffer + u32(1))")
            with out.block(f"if buffer == u32({BUFFERS})"):
                out.line("buffer = u32(0)")
        if traits.slots_scaled:
            emit_factors(out, "inverse")
        emit_share(out, scaled=traits.scaled)
    return out.text()


def _emit_start(out: KernelWriter, traits: AccumulateTraits) -> None:
    """Which head, features, values and rows."""
    (x, x_column), (y, y_column) = (
        (name, f"u64(2) * u64({block} * u32({STATE_SIDE}) + eighth)")
        for name, block in zip(OPERANDS[traits.of], ("feature_block", "value_block"), strict=True)
    )
    emit_shared_start(out, "buffers", ALIGNMENT)
    out.lines(
        """
        thread = ptx.thread_index()
        """
    )
    emit_lane(out)
    emit_state_share(out, traits.blocks)
    if traits.ragged:
        emit_length(out, "length", "rows")
    else:
        out.line("length = rows")
    out.lines(
        f"""
        tiles = u32((length + u32({TILE - 1})) // u32({TILE}))
        tiles = u32((tiles + shares_of_state - u32(1)) // shares_of_state)
        tile = u32(share * tiles)
        last = u32(min(tile + tiles, (length + u32({TILE - 1})) // u32({TILE})))
        {x}_at = {x} + u64(entry) * {x}_batch + u64(head) * {x}_head + {x_column}
        {y}_at = {y} + u64(entry) * {y}_batch + u64(head) * {y}_head + {y_column}
        x_columns = u32(u32({traits.head_dim}) - u32({STATE_SIDE}) * feature_block)
        y_columns = u32(u32({traits.value_dim}) - u32({STATE_SIDE}) * value_block)
        weight_at = row_weights + u64(8) * u64(pair) * u64(rows)
        buffer = u32(0)
        {_state_scale(traits)}
        total = cuda.local.array({sums_of(STATE_SIDE)}, dtype=np.float32)
        sums = cuda.local.array({sums_of(SUM_ROWS)}, dtype=np.float32)
        x_ahead = cuda.local.array({words(STATE_SIDE)}, dtype=np.uint32)
        y_ahead = cuda.local.array({words(STATE_SIDE)}, dtype=np.uint32)
        word = cuda.local.array({words(STATE_SIDE)}, dtype=np.uint32)
        for i in range({sums_of(STATE_SIDE)}):
            total[i] = f32(0.0)
        for i in range({sums_of(SUM_ROWS)}):
            sums[i] = f32(0.0)
        """
    )
    if traits.slots_scaled:
        emit_slot_factors(out, "key_factor")
        out.line("inverse = f32(0.0)  # of the features' scale up to now")
        out.line(f"phi = cuda.local.array({LANE_COLUMNS * words(STATE_SIDE)}, dtype=np.float32)")


def _state_scale(traits: AccumulateTraits) -> str:
    """The text that reads it from a state's image in memory."""
    if not traits.scaled:
        return ""
    row = CHUNK * chunks(traits.value_dim) + SCALE_ROW
    at = f"states + u64({state_bytes(traits.head_dim, traits.value_dim)}) * u64(pair) + u64({SPAN_BYTES * row})"
    return f"state_scale = ptx.load_state({at})"
