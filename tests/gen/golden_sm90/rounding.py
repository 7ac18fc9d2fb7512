"""Sums of 72 numbers a row, rounded to float16: eight numbers a thread."""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
def round_gradients(
    sums, result, heads, seq, chunks, sums_row, sums_head, sums_batch, result_row, result_head, result_batch,
):
    number = u32(ptx.block_index() * u32(128) + ptx.thread_index())
    there = u32(1) if number < chunks else u32(0)
    number = number if there != u32(0) else u32(0)
    place = u32(number // u32(9))
    column = u32((number - place * u32(9)) * u32(8))
    pair = u32(place // seq)
    row = u32(place - pair * seq)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    sums_at = sums + u64(entry) * sums_batch + u64(head) * sums_head + u64(row) * sums_row
    result_at = result + u64(entry) * result_batch + u64(head) * result_head + u64(row) * result_row
    x_0, x_1, x_2, x_3 = ptx.load_reals4(sums_at + u64(4) * u64(column))
    x_4, x_5, x_6, x_7 = ptx.load_reals4(sums_at + u64(4) * u64(column) + u64(16))
    to = result_at + u64(2) * u64(column)
    ptx.store_words4(to, ptx.pack_float16(x_0, x_1), ptx.pack_float16(x_2, x_3), ptx.pack_float16(x_4, x_5), ptx.pack_float16(x_6, x_7), there)
