"""Gradients of the values whose softmax are weights, generated for every mask; a warp has a row.

Packed values, bfloat16, computed in float32.
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


def softmax_backward(
    rows, weights, dweights, dvalues,
    weights_row, weights_head, weights_batch, dweights_row, dweights_head, dweights_batch, dvalues_row, dvalues_head, dvalues_batch,
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
        weights_at = weights + u64(entry) * weights_batch + u64(head) * weights_head + u64(slot) * weights_row
        dweights_at = dweights + u64(entry) * dweights_batch + u64(head) * dweights_head + u64(slot) * dweights_row
        dvalues_at = dvalues + u64(entry) * dvalues_batch + u64(head) * dvalues_head + u64(slot) * dvalues_row
        last = u32(count - u32(1))
        rounded = u32(u32(count + u32(31)) & u32(4294967264))
        added, begin = ZERO, lane
        while begin < rounded:
            there = u32(1) if begin < count else u32(0)
            place = u64(begin if begin < count else last)
            weight = load_number(weights_at + place * weights_row)
            change = load_number(dweights_at + place * dweights_row)
            product = weight * change if (there != u32(0)) and (weight != ZERO) else ZERO
            added = added + product
            begin = u32(begin + u32(32))
        total = sum_of_warp(added)
        begin = lane
        while begin < rounded:
            there = u32(1) if begin < count else u32(0)
            place = u64(begin if begin < count else last)
            weight = load_number(weights_at + place * weights_row)
            change = load_number(dweights_at + place * dweights_row)
            slope = weight * (change - total) if weight != ZERO else ZERO
            store_number(dvalues_at + place * dvalues_row, slope, there)
            begin = u32(begin + u32(32))


@device
def sum_of_warp(x):
    """The sum of what lanes have."""
    x = x + from_lane(x, u32(1))
    x = x + from_lane(x, u32(2))
    x = x + from_lane(x, u32(4))
    x = x + from_lane(x, u32(8))
    x = x + from_lane(x, u32(16))
    return x


@device
def load_number(at):
    """A number of an array, bfloat16."""
    low, high = ptx.unpack_bfloat16(ptx.load_pair(at & u64(18446744073709551612)))
    return ptx.select_real(high, low, u32(at & u64(2)))


@device
def store_number(to, x, when):
    """A number of an array, as bfloat16."""
    ptx.store_half(to, ptx.pack_bfloat16(x, x), when)
