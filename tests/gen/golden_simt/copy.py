"""A copy between any strides, int64 to int32; 4 numbers a thread."""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers


@device
def row_of(place, row, dim, rows):
    """Row and column of a place, counted from the start of ``row``."""
    below = u32(place // dim)
    row = u32(row + below)
    inside = u32(1) if row < rows else u32(0)
    return inside, row if inside != u32(0) else u32(0), u32(place - below * dim)


@device
def address_of(start, row, column, heads, seq, to_batch, to_head, to_row, to_column):
    """The address of a number."""
    pair = u32(row // seq)
    token = u32(row - pair * seq)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    return start + u64(entry) * to_batch + u64(head) * to_head + u64(token) * to_row + u64(column) * to_column


@device
def nearest_word(low, high):
    """The nearest number of 32 bits with a sign to one of 64: lengths must not wrap into range."""
    negative = u32(1) if high >= u32(2147483648) else u32(0)
    sign = u32(0) if negative == u32(0) else u32(4294967295)
    below = u32(1) if low < u32(2147483648) else u32(0)
    farthest = u32(u32(2147483647) + negative)
    return low if high == sign and below != negative else farthest


@device
def load_number(at):
    """The words of a number, int64 as int32."""
    low = ptx.load_pair(at)
    high = ptx.load_pair(at + u64(4))
    low = nearest_word(low, high)
    return low


@device
def store_number(to, low, inside):
    """Store these words."""
    ptx.store_word(to, low, inside)


def copy_elements(
    source, target, heads, seq, dim, rows, source_batch, source_head, source_row, source_column, target_batch,
    target_head, target_row, target_column,
):
    first = u64(ptx.block_index()) * u64(512)
    row = u32(first // u64(dim))
    start = u32(u32(first - u64(row) * u64(dim)) + ptx.thread_index())
    inside_0, row_0, column_0 = row_of(start, row, dim, rows)
    at = address_of(source, row_0, column_0, heads, seq, source_batch, source_head, source_row, source_column)
    low_0 = load_number(at)
    inside_1, row_1, column_1 = row_of(u32(start + u32(128)), row, dim, rows)
    at = address_of(source, row_1, column_1, heads, seq, source_batch, source_head, source_row, source_column)
    low_1 = load_number(at)
    inside_2, row_2, column_2 = row_of(u32(start + u32(256)), row, dim, rows)
    at = address_of(source, row_2, column_2, heads, seq, source_batch, source_head, source_row, source_column)
    low_2 = load_number(at)
    inside_3, row_3, column_3 = row_of(u32(start + u32(384)), row, dim, rows)
    at = address_of(source, row_3, column_3, heads, seq, source_batch, source_head, source_row, source_column)
    low_3 = load_number(at)
    to = address_of(target, row_0, column_0, heads, seq, target_batch, target_head, target_row, target_column)
    store_number(to, low_0, inside_0)
    to = address_of(target, row_1, column_1, heads, seq, target_batch, target_head, target_row, target_column)
    store_number(to, low_1, inside_1)
    to = address_of(target, row_2, column_2, heads, seq, target_batch, target_head, target_row, target_column)
    store_number(to, low_2, inside_2)
    to = address_of(target, row_3, column_3, heads, seq, target_batch, target_head, target_row, target_column)
    store_number(to, low_3, inside_3)
