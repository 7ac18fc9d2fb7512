"""Packed values in the order of the transposed mask, generated for every mask; a thread has 8 chunks.

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


def gathering(
    places, values, turned,
    values_row, values_head, values_batch, turned_row, turned_head, turned_batch,
    blocks_listed, pairs, heads,
):
    thread, item = ptx.thread_index(), ptx.block_index()
    pair = u32(item // blocks_listed)
    rank = u32(item - pair * blocks_listed)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    turned_at = turned + u64(entry) * turned_batch + u64(head) * turned_head
    for i in range(8):
        chunk = u32(u32(rank * u32(1024)) + u32(thread + u32(128 * i)))
        first = u32(chunk * u32(8))
        inside = u32(1) if first < pairs else u32(0)
        to = turned_at + u64(16) * u64(chunk)
        number = u32(first + u32(0))
        place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
        x_0 = load_number(values_at + values_row * u64(place))
        number = u32(first + u32(1))
        place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
        x_1 = load_number(values_at + values_row * u64(place))
        number = u32(first + u32(2))
        place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
        x_2 = load_number(values_at + values_row * u64(place))
        number = u32(first + u32(3))
        place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
        x_3 = load_number(values_at + values_row * u64(place))
        number = u32(first + u32(4))
        place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
        x_4 = load_number(values_at + values_row * u64(place))
        number = u32(first + u32(5))
        place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
        x_5 = load_number(values_at + values_row * u64(place))
        number = u32(first + u32(6))
        place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
        x_6 = load_number(values_at + values_row * u64(place))
        number = u32(first + u32(7))
        place = ptx.load_word(places + u64(4) * u64(number if number < pairs else u32(pairs - u32(1))))
        x_7 = load_number(values_at + values_row * u64(place))
        a = ptx.pack_bfloat16(x_0, x_1)
        b = ptx.pack_bfloat16(x_2, x_3)
        c = ptx.pack_bfloat16(x_4, x_5)
        d = ptx.pack_bfloat16(x_6, x_7)
        ptx.store_words4(to, a, b, c, d, inside)


@device
def load_number(at):
    """A number of an array, bfloat16."""
    low, high = ptx.unpack_bfloat16(ptx.load_pair(at & u64(18446744073709551612)))
    return ptx.select_real(high, low, u32(at & u64(2)))
