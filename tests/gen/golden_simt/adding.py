"""Sums of the parts of long rows, generated for every mask; a warp has a row.

Rows of 20 numbers, float16, computed in float32.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

real, f32, u32, u64 = np.float32, np.float32, np.uint32, np.uint64
NONE_KEPT, ZERO = real(-np.inf), real(0.0)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
exp2, log2, reciprocal, maximum = ptx.exp2, ptx.log2, ptx.reciprocal, ptx.maximum
from_lane, read_chunk = ptx.shuffle_xor, ptx.load_shared_reals4


@device
def write_number(place, x):
    """A number into shared memory."""
    ptx.store_shared_word(place, ptx.real_bits(x), u32(1))


def adding(
    rows, parts, out,
    parts_row, parts_head, parts_batch, out_row, out_head, out_batch,
    scale,
    row_blocks, rows_listed, heads,
):
    thread, item = ptx.thread_index(), ptx.block_index()
    lane = u32(thread & u32(31))
    pair = u32(item // row_blocks)
    rank = u32(u32(item - pair * row_blocks) * u32(4) + u32(thread // u32(32)))
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    if rank < rows_listed:
        row, slot, count, run = ptx.load_words4(rows + u64(16) * u64(rank))
        parts_at = parts + u64(entry) * parts_batch + u64(head) * parts_head + u64(slot) * parts_row
        out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(row) * out_row
        total = cuda.local.array(8, dtype=np.float32)
        chunk = lane
        while chunk < u32(32):
            inside = u32(1) if chunk < u32(3) else u32(0)
            safe = chunk if inside != u32(0) else u32(0)
            for n in range(8):
                total[n] = ZERO
            part = u32(0)
            while part < count:
                at = parts_at + u64(part) * parts_row + u64(32) * u64(safe)
                x_0, x_1, x_2, x_3 = load_chunk(at + u64(0))
                x_4, x_5, x_6, x_7 = load_chunk(at + u64(16))
                total[0] += x_0
                total[1] += x_1
                total[2] += x_2
                total[3] += x_3
                total[4] += x_4
                total[5] += x_5
                total[6] += x_6
                total[7] += x_7
                part = u32(part + u32(1))
            to = out_at + u64(16) * u64(chunk)
            a = ptx.pack_float16(total[0] * scale, total[1] * scale)
            b = ptx.pack_float16(total[2] * scale, total[3] * scale)
            c = ptx.pack_float16(total[4] * scale, total[5] * scale)
            d = ptx.pack_float16(total[6] * scale, total[7] * scale)
            ptx.store_words4(to, a, b, c, d, inside)
            chunk = u32(chunk + u32(32))


@device
def load_chunk(at):
    """Neighbouring numbers that an earlier launch has written."""
    return ptx.load_reals4(at)
