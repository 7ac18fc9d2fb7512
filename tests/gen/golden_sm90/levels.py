"""lse in base 2, and delta = sum(dout * out) - dlse, of each query, by 16 lanes."""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
NONE_KEPT = f32(-np.inf)
def levels_of_queries(
    out, dout, lse, dlse, cleared, levels, heads, seq, rows, out_row, out_head, out_batch, dout_row, dout_head,
    dout_batch, lse_row, lse_head, lse_batch, dlse_row, dlse_head, dlse_batch, cleared_row, cleared_head,
    cleared_batch,
):
    thread = ptx.thread_index()
    lane = u32(thread & u32(15))
    number = u32(ptx.block_index() * u32(8) + (thread >> u32(4)))
    there = u32(1) if number < rows else u32(0)
    number = number if there != u32(0) else u32(0)
    pair = u32(number // seq)
    row = u32(number - pair * seq)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(row) * out_row
    dout_at = dout + u64(entry) * dout_batch + u64(head) * dout_head + u64(row) * dout_row
    lse_at = lse + u64(entry) * lse_batch + u64(head) * lse_head + u64(row) * lse_row
    dlse_at = dlse + u64(entry) * dlse_batch + u64(head) * dlse_head + u64(row) * dlse_row
    cleared_at = cleared + u64(entry) * cleared_batch + u64(head) * cleared_head + u64(row) * cleared_row
    level = ptx.load_state(lse_at)
    kept = u32(1) if level != NONE_KEPT else u32(0)  # NaN counts
    total = f32(0.0)
    for first in range(u32(0), u32(10), u32(16)):
        chunk = u32(u32(first) + lane)
        here = u32(1) if chunk < u32(10) else u32(0)
        b_0, b_1, b_2, b_3 = ptx.load_words4_when(dout_at + u64(16) * u64(chunk), here & kept)
        a_0, a_1, a_2, a_3 = ptx.load_words4_when(out_at + u64(16) * u64(chunk), here & kept)
        low, high = ptx.unpack_bfloat16(a_0)
        other_low, other_high = ptx.unpack_bfloat16(b_0)
        total += low * other_low + high * other_high
        low, high = ptx.unpack_bfloat16(a_1)
        other_low, other_high = ptx.unpack_bfloat16(b_1)
        total += low * other_low + high * other_high
        low, high = ptx.unpack_bfloat16(a_2)
        other_low, other_high = ptx.unpack_bfloat16(b_2)
        total += low * other_low + high * other_high
        low, high = ptx.unpack_bfloat16(a_3)
        other_low, other_high = ptx.unpack_bfloat16(b_3)
        total += low * other_low + high * other_high
        ptx.store_words4(cleared_at + u64(16) * u64(chunk), b_0, b_1, b_2, b_3, here & there)
    total += ptx.shuffle_xor(total, u32(8))
    total += ptx.shuffle_xor(total, u32(4))
    total += ptx.shuffle_xor(total, u32(2))
    total += ptx.shuffle_xor(total, u32(1))
    if dlse != u64(0):
        total -= ptx.load_state(dlse_at)
    delta = total if kept != u32(0) else f32(0.0)
    level = level * f32(1.4426950408889634) if kept != u32(0) else f32(np.inf)
    one_lane = there if lane == u32(0) else u32(0)
    to = levels + u64(16) * u64(number)
    ptx.store_reals4(to, level, delta, f32(0.0), f32(0.0), one_lane)
