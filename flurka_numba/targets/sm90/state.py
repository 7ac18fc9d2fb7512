"""Stage 2 for random features: the state of every head, S = phi(K')^T V' and z, its features' sum.

Slots are what stage 1 left, or tokens. Elementwise maps have slot_state.py and accumulate.py.

A block makes 64 features x 64 values in float32 from its share of the slots. The last block of a state adds up the
shares, in their order, and writes them in 16 bits, turned round and in the order in which stage 3's products read
shared memory: a row for each value, features along it, 128-byte swizzle; then rows of z. Features need all of a slot:
see random_slots.py; the largest exponent of favor's slots was found by a launch before, see largest.py.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import QUAD, QUAD_BYTES
from flurka_numba.targets.gpu.warps import emit_largest_of_block
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.powers import emit_scale
from flurka_numba.targets.sm90.bounds import bound_pointers, emit_bound
from flurka_numba.targets.sm90.lanes import CHUNK
from flurka_numba.targets.sm90.largest import emit_largest_of_all
from flurka_numba.targets.sm90.random_slots import (
    emit_exponents,
    emit_omega,
    emit_slot_features,
    key_columns,
    random_parameters,
)
from flurka_numba.targets.sm90.scales import VALUE_TOP, emit_carrier, inverse_word, is_scaled
from flurka_numba.targets.sm90.shape import (
    SIDE_ROW,
    SLOTS,
    STATE_NUMBERS,
    STATE_SIDE,
    STATE_THREADS,
    SUM_ROWS,
    StateTraits,
    chunks,
    state_bytes,
    state_rows,
)
from flurka_numba.targets.sm90.slots import VALUES, emit_place, emit_slot_places, emit_slots, slot_parameters
from flurka_numba.targets.sm90.state_block import emit_image_row, emit_last_share, operand_place, row_of_four
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import log2
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES, spans

POINTERS = ("states", "shares", "counters")
ENTRY = "state"
THREAD_BYTES = 4 * STATE_NUMBERS // STATE_THREADS  # of its share


def state_parameters(traits: StateTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    states = ((name, "l") for name in (*POINTERS, *(bound_pointers(traits.dtype) if traits.parts else ())))
    return (*slot_parameters(traits), *states, *random_parameters(traits.feature_map))


def state_entry(traits: StateTraits) -> Entry:
    """How the kernel is called."""
    return Entry(ENTRY, state_parameters(traits), STATE_THREADS, traits.resident, traits.shared_bytes, overlaps=True)


def render_state(traits: StateTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    slots = f"slots come in {traits.splits} parts" if traits.parts else "slots are tokens"
    out = start_text(
        state_entry(traits),
        f"Slots to the state of every head, generated for feature map {traits.feature_map.name}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}, {traits.dtype}; {slots}.",
    )
    columns = [*key_columns(traits), VALUES]
    with out.suite():
        emit_place(out, traits.blocks)
        _emit_start(out)
        emit_slot_places(out, traits, columns)
        emit_omega(out, traits, traits.feature_map)
        if traits.feature_map.name == "favor":
            emit_largest_of_all(out)
        with out.block("while chunk < last"):
            emit_slots(out, traits, columns)
            out.line("ptx.block_barrier()")
            emit_exponents(out, traits)
            emit_slot_features(out, traits, traits.feature_map)
            out.line("ptx.block_barrier()")
            _emit_products(out)
            out.line("ptx.block_barrier()")
            out.line(f"chunk = u32(chunk + u32({SLOTS}))")
        with out.block("if shares_of_state > u32(1)"):
            _emit_share(out)
        with (
            out.block("if is_last != u32(0)"),
            out.part("store_state", "Two features in a word; values where a lane of the next stage has them."),
        ):
            _emit_state(out, traits)
    return out.text()


def _emit_start(out: KernelWriter) -> None:
    """Sums of 4 x 4 products and of 4 features a thread."""
    out.lines(
        f"""
        value_tile = u32(feature_tile + u32({SLOTS * STATE_SIDE * 4}))
        first_feature = u32({SIDE_ROW} * u32({QUAD}))
        is_last = u32(1)
        total = cuda.local.array({QUAD * QUAD}, dtype=np.float32)
        sums = cuda.local.array({QUAD}, dtype=np.float32)
        for i in range({QUAD * QUAD}):
            total[i] = f32(0.0)
        for i in range({QUAD}):
            sums[i] = f32(0.0)
        """
    )


def _emit_products(out: KernelWriter) -> None:
    """A thread's 4 features times its 4 values, slot by slot."""
    text = "A thread's 4 features times its 4 values, slot by slot."
    with out.part("multiply_slots", text), out.block(f"for slot in range({SLOTS})"):
        at = f"u32({STATE_SIDE * 4}) * u32(slot)"
        out.line(f"a_0, a_1, a_2, a_3 = ptx.load_shared_reals4(feature_tile + {at} + u32(4) * first_feature)")
        out.line(f"b_0, b_1, b_2, b_3 = ptx.load_shared_reals4(value_tile + {at} + u32(4) * column)")
        for i in range(QUAD):
            out.line(f"sums[{i}] += a_{i}")
            for j in range(QUAD):
                out.line(f"total[{QUAD * i + j}] += a_{i} * b_{j}")


def _emit_share(out: KernelWriter) -> None:
    """Leave this block's share; who comes last adds up all of them in their order, which is the same at every run."""
    out.lines(
        f"""
        share_at = shares + u64({4 * STATE_NUMBERS}) * (u64(state) * u64(shares_of_state))
        """
    )
    four = ", ".join(f"total[{QUAD} * i{f' + {j}' if j else ''}]" for j in range(QUAD))
    with out.part("leave_share", f"This block's numbers, {THREAD_BYTES} bytes a thread."):
        out.lines(
            f"""
            to = share_at + u64({4 * STATE_NUMBERS}) * u64(share) + u64({THREAD_BYTES}) * u64(thread)
            for i in range({QUAD}):
                at = to + u64({QUAD_BYTES}) * u64(i)
                ptx.store_reals4(at, {four}, u32(1))
            ptx.store_reals4(to + u64({QUAD * QUAD_BYTES}), sums[0], sums[1], sums[2], sums[3], u32(1))
            """
        )
    emit_last_share(out, "feature_tile")
    with out.block("if is_last != u32(0)"), out.part("add_shares", "All shares of this state, in their order."):
        out.lines(
            f"""
            for i in range({QUAD * QUAD}):
                total[i] = f32(0.0)
            for i in range({QUAD}):
                sums[i] = f32(0.0)
            for other in range(shares_of_state):
                at = share_at + u64({4 * STATE_NUMBERS}) * u64(other) + u64({THREAD_BYTES}) * u64(thread)
                for i in range({QUAD}):
                    a, b, c, d = ptx.load_reals4(at + u64({QUAD_BYTES}) * u64(i))
                    total[{QUAD} * i] += a
                    total[{QUAD} * i + 1] += b
                    total[{QUAD} * i + 2] += c
                    total[{QUAD} * i + 3] += d
                a, b, c, d = ptx.load_reals4(at + u64({QUAD * QUAD_BYTES}))
                sums[0] += a
                sums[1] += b
                sums[2] += c
                sums[3] += d
            """
        )


def _emit_scaled(out: KernelWriter, traits: StateTraits) -> None:
    """State and sums times the scale of this block's features. rfa's are signed, so z may be far smaller than S: all of
    them are as large as could be, and the number of slots is a bound. F v has a scale of its own.
    """
    with out.part("scale_state", "State and sums times the scale of this block's features."):
        if traits.feature_map.name == "rfa":
            out.line("largest = f32(slots)")
        else:
            out.line("largest = f32(0.0)")
            for i in range(QUAD):
                out.line(f"largest = ptx.maximum(largest, sums[{i}])")
            emit_largest_of_block(out, "largest", "value_tile", STATE_THREADS)
        emit_scale(out, "scale", "largest")
        of_total = "scale"
        if traits.parts:
            of_head = f"u32({spans(traits.value_dim)})"
            emit_bound(out, traits.parts, traits.splits, "value_top", "pairs_v", of_head, "tiles_k")
            emit_scale(out, "value_scale", "value_top", VALUE_TOP)
            of_total = "scale * value_scale"  # one after the other: both may be 2^126
        out.lines(
            f"""
            for i in range({QUAD * QUAD}):
                total[i] = total[i] * {of_total}
            for i in range({QUAD}):
                sums[i] = sums[i] * scale
            """
        )


def _emit_state(out: KernelWriter, traits: StateTraits) -> None:
    """Two features in a word; values where a lane of stage 3 has them: see apply.py."""
    scaled = is_scaled(traits.dtype)
    if scaled:
        _emit_scaled(out, traits)
    out.line(f"b = u32(column >> u32({log2(QUAD)}))")
    out.lines(
        f"""
        place = first_feature
        first_row = u32({operand_place("b")} + value_block * u32({STATE_SIDE}))
        to = states + u64({state_bytes(traits.features, traits.value_dim)}) * u64(pair)
        to = to + u64({state_rows(traits.value_dim) * SPAN_BYTES}) * u64(feature_block)
        """
    )
    values = CHUNK * chunks(traits.value_dim)
    for j in range(QUAD):
        row = f"u32(first_row + u32({row_of_four(j)}))"
        with out.part("store_row", "Four features of a value.", row=row, j=str(j)):
            when = "u32(1)" if traits.value_dim % STATE_SIDE == 0 else f"u32(1) if row < u32({values}) else u32(0)"
            emit_image_row(out, traits.dtype, [f"total[{QUAD * i} + j]" for i in range(QUAD)], when, further=2)
    with out.part("store_sums", "Four features of z, or of what goes with it."):
        out.line(f"row = u32(u32({values}) + b)")
        first = f"u32(1) if b < u32({SUM_ROWS}) and value_block == u32(0) else u32(0)"
        if scaled:
            emit_carrier(out, "scale", "b", inverse_word("value_scale") if traits.parts else None)
        emit_image_row(out, traits.dtype, [f"sums[{i}]" for i in range(QUAD)], first, further=2, carries=scaled)
