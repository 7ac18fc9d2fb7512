"""Sums of 72 numbers a row, rounded to float16: four numbers a thread."""

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


def round_gradients(
    sums, result,
    sums_row, sums_head, sums_batch, result_row, result_head, result_batch,
    heads, seq, chunks,
):
    number = u32(ptx.block_index() * u32(128) + ptx.thread_index())
    there = u32(1) if number < chunks else u32(0)
    number = number if there != u32(0) else u32(0)
    place = u32(number // u32(18))
    chunk = u32(number - place * u32(18))
    pair = u32(place // seq)
    row = u32(place - pair * seq)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    sums_at = sums + u64(entry) * sums_batch + u64(head) * sums_head + u64(row) * sums_row
    result_at = result + u64(entry) * result_batch + u64(head) * result_head + u64(row) * result_row
    a, b, c, d = ptx.load_reals4(sums_at + u64(16) * u64(chunk))
    store_chunk(result_at + u64(8) * u64(chunk), a, b, c, d, there)


@device
def store_chunk(to, x_0, x_1, x_2, x_3, when):
    """Neighbouring numbers of an array, as float16."""
    ptx.store_word(to, ptx.pack_float16(x_0, x_1), when)
    ptx.store_word(to + u64(4), ptx.pack_float16(x_2, x_3), when)
