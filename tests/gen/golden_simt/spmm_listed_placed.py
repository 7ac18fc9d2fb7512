"""Packed values times the rows of a dense array, generated for every mask; a warp has a row.

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


def spmm(
    rows, columns, places, values, v, out,
    values_row, values_head, values_batch, v_row, v_head, v_batch, out_row, out_head, out_batch,
    scale,
    row_blocks, rows_listed, heads, members, share,
):
    thread, item = ptx.thread_index(), ptx.block_index()
    lane = u32(thread & u32(31))
    pair = u32(item // row_blocks)
    rank = u32(u32(item - pair * row_blocks) * u32(4) + u32(thread // u32(32)))
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    if rank < rows_listed:
        row, slot, count, run = ptx.load_words4(rows + u64(16) * u64(rank))
        total = cuda.local.array(8, dtype=np.float32)
        for n in range(8):
            total[n] = ZERO
        member = u32(0)
        while member < members:
            source = u32(head * members + member)
            values_at = values + u64(entry) * values_batch + u64(source) * values_head
            v_at = v + u64(entry) * v_batch + u64(source // share) * v_head
            done, size = u32(0), count
            begin = u32(0)
            while begin < size:
                place = u32(begin + lane)
                safe = place if place < size else u32(size - u32(1))
                column = ptx.load_word(columns + u64(4) * u64(slot + safe))
                at = u32(slot + u32(done + safe))
                at = ptx.load_word(places + u64(4) * u64(at))
                weight = load_number(values_at + u64(at) * values_row)
                add_rows(total, weight, column, v_at, v_row, begin, size, lane)
                begin = u32(begin + u32(32))
            member = u32(member + u32(1))
        store_row(total, out + u64(entry) * out_batch + u64(head) * out_head + u64(row) * out_row, lane, scale)


@device
def add_rows(total, weight, column, v_at, v_row, begin, size, lane):
    """The rows of v of what a warp has read, at most a pair a lane."""
    left = u32(size - begin)
    left = left if left < u32(32) else u32(32)
    turn = u32(0)
    while turn < left:
        add_row(u32(turn + u32(0)), total, weight, column, v_at, v_row, begin, size, lane)
        add_row(u32(turn + u32(8)), total, weight, column, v_at, v_row, begin, size, lane)
        add_row(u32(turn + u32(16)), total, weight, column, v_at, v_row, begin, size, lane)
        add_row(u32(turn + u32(24)), total, weight, column, v_at, v_row, begin, size, lane)
        turn = u32(turn + u32(32))


@device
def add_row(turn, total, weight, column, v_at, v_row, begin, size, lane):
    """A row of v, times its pair's value, of a lane's chunks."""
    whose = u32(turn + u32(lane // u32(4)))
    there = u32(1) if u32(begin + whose) < size else u32(0)
    row_at = v_at + u64(ptx.word_of_lane(column, whose)) * v_row
    factor = number_of_lane(weight, whose)
    factor = factor if there != u32(0) else ZERO
    for piece in range(1):
        chunk = u32(u32(lane & u32(3)) + u32(4 * piece))
        x_0, x_1, x_2, x_3, x_4, x_5, x_6, x_7 = fetch(row_at, chunk, there)
        total[8 * piece + 0] += factor * x_0
        total[8 * piece + 1] += factor * x_1
        total[8 * piece + 2] += factor * x_2
        total[8 * piece + 3] += factor * x_3
        total[8 * piece + 4] += factor * x_4
        total[8 * piece + 5] += factor * x_5
        total[8 * piece + 6] += factor * x_6
        total[8 * piece + 7] += factor * x_7


@device
def store_row(total, out_at, lane, scale):
    """A row of results, by the lanes that share it."""
    for n in range(8):
        total[n] = sum_over_rows(total[n])
    for piece in range(1):
        chunk = u32(lane + u32(4 * piece))
        there = u32(1) if (lane < u32(4)) and (chunk < u32(3)) else u32(0)
        to = out_at + u64(16) * u64(chunk)
        a = ptx.pack_float16(total[8 * piece + 0] * scale, total[8 * piece + 1] * scale)
        b = ptx.pack_float16(total[8 * piece + 2] * scale, total[8 * piece + 3] * scale)
        c = ptx.pack_float16(total[8 * piece + 4] * scale, total[8 * piece + 5] * scale)
        d = ptx.pack_float16(total[8 * piece + 6] * scale, total[8 * piece + 7] * scale)
        ptx.store_words4(to, a, b, c, d, there)


@device
def number_of_lane(x, whose):
    """A lane's number for others."""
    return ptx.word_of_lane(x.view(np.uint32), whose).view(np.float32)


@device
def fetch(row_at, chunk, when):
    """Neighbouring numbers of a row; beyond its end 0, as 0 x NaN is NaN."""
    inside = when if chunk < u32(3) else u32(0)
    a, b, c, d = ptx.load_words4_when(row_at + u64(16) * u64(chunk), inside)
    x_0, x_1 = ptx.unpack_float16(a)
    x_2, x_3 = ptx.unpack_float16(b)
    x_4, x_5 = ptx.unpack_float16(c)
    x_6, x_7 = ptx.unpack_float16(d)
    full = u32(1) if chunk < u32(2) else u32(0)
    x_4 = ptx.select_real(x_4, ZERO, full)
    x_5 = ptx.select_real(x_5, ZERO, full)
    x_6 = ptx.select_real(x_6, ZERO, full)
    x_7 = ptx.select_real(x_7, ZERO, full)
    return x_0, x_1, x_2, x_3, x_4, x_5, x_6, x_7


@device
def load_number(at):
    """A number of an array, float16."""
    low, high = ptx.unpack_float16(ptx.load_pair(at & u64(18446744073709551612)))
    return ptx.select_real(high, low, u32(at & u64(2)))


@device
def sum_over_rows(x):
    """The sum of what lanes of one chunk have."""
    x = x + from_lane(x, u32(4))
    x = x + from_lane(x, u32(8))
    x = x + from_lane(x, u32(16))
    return x
