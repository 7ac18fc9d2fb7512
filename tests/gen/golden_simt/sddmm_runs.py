"""Sampled products of queries and keys, generated for every mask; a warp has a row.

Rows of 64 numbers, float32, computed in float32.
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


def sddmm(
    rows, runs, q, k, values,
    q_row, q_head, q_batch, k_row, k_head, k_batch, values_row, values_head, values_batch,
    scale,
    row_blocks, rows_listed, heads, group,
):
    thread, item = ptx.thread_index(), ptx.block_index()
    lane = u32(thread & u32(31))
    pair = u32(item // row_blocks)
    rank = u32(u32(item - pair * row_blocks) * u32(4) + u32(thread // u32(32)))
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    if rank < rows_listed:
        row, slot, count, run = ptx.load_words4(rows + u64(16) * u64(rank))
        query = cuda.local.array(8, dtype=np.float32)
        score = cuda.local.array(8, dtype=np.float32)
        load_query(query, q + u64(entry) * q_batch + u64(head) * q_head + u64(row) * q_row, u32(lane & u32(7)))
        k_at = k + u64(entry) * k_batch + u64(head // group) * k_head
        values_at = values + u64(entry) * values_batch + u64(head) * values_head + u64(slot) * values_row
        done, which = u32(0), run
        while done < count:
            start, step, size, _ = ptx.load_words4(runs + u64(16) * u64(which))
            begin = u32(0)
            while begin < size:
                place = u32(begin + lane)
                safe = place if place < size else u32(size - u32(1))
                column = u32(start + step * safe)
                for key in range(8):
                    score[key] = ZERO
                multiply(0, score, query, k_at, k_row, column, begin, size, lane)
                multiply(1, score, query, k_at, k_row, column, begin, size, lane)
                multiply(2, score, query, k_at, k_row, column, begin, size, lane)
                multiply(3, score, query, k_at, k_row, column, begin, size, lane)
                if u32(begin + u32(16)) < size:
                    multiply(4, score, query, k_at, k_row, column, begin, size, lane)
                    multiply(5, score, query, k_at, k_row, column, begin, size, lane)
                    multiply(6, score, query, k_at, k_row, column, begin, size, lane)
                    multiply(7, score, query, k_at, k_row, column, begin, size, lane)
                share(score, lane)
                mine = u32(begin + u32(4 * u32(lane & u32(7))) + u32(lane // u32(8)))
                there = u32(1) if mine < size else u32(0)
                to = values_at + u64(u32(done + mine if mine < size else done)) * values_row
                store_number(to, score[0] * scale, there)
                begin = u32(begin + u32(32))
            done, which = u32(done + size), u32(which + u32(1))


@device
def load_query(query, q_at, part):
    """A lane's chunks of the row of q."""
    for piece in range(2):
        x_0, x_1, x_2, x_3 = fetch(q_at, u32(part + u32(8 * piece)), u32(1))
        query[4 * piece + 0] = x_0
        query[4 * piece + 1] = x_1
        query[4 * piece + 2] = x_2
        query[4 * piece + 3] = x_3


@device
def multiply(number, score, query, k_at, k_row, column, begin, size, lane):
    """A lane's part of the product with a key of its eight lanes."""
    whose = u32(u32(4 * number) + u32(lane // u32(8)))
    row_at = k_at + u64(ptx.word_of_lane(column, whose)) * k_row
    there = u32(1) if u32(begin + whose) < size else u32(0)
    total = ZERO
    for piece in range(2):
        chunk = u32(u32(lane & u32(7)) + u32(8 * piece))
        x_0, x_1, x_2, x_3 = fetch(row_at, chunk, there)
        total += query[4 * piece + 0] * x_0
        total += query[4 * piece + 1] * x_1
        total += query[4 * piece + 2] * x_2
        total += query[4 * piece + 3] * x_3
    score[number] = total


@device
def share(score, lane):
    """Parts of eight keys become score[0], the whole of the key that is the lane's own."""
    upper = (lane & u32(4)) != u32(0)
    low, high = score[0], score[4]
    given, kept = low if upper else high, high if upper else low
    score[0] = kept + from_lane(given, u32(4))
    low, high = score[1], score[5]
    given, kept = low if upper else high, high if upper else low
    score[1] = kept + from_lane(given, u32(4))
    low, high = score[2], score[6]
    given, kept = low if upper else high, high if upper else low
    score[2] = kept + from_lane(given, u32(4))
    low, high = score[3], score[7]
    given, kept = low if upper else high, high if upper else low
    score[3] = kept + from_lane(given, u32(4))
    upper = (lane & u32(2)) != u32(0)
    low, high = score[0], score[2]
    given, kept = low if upper else high, high if upper else low
    score[0] = kept + from_lane(given, u32(2))
    low, high = score[1], score[3]
    given, kept = low if upper else high, high if upper else low
    score[1] = kept + from_lane(given, u32(2))
    upper = (lane & u32(1)) != u32(0)
    low, high = score[0], score[1]
    given, kept = low if upper else high, high if upper else low
    score[0] = kept + from_lane(given, u32(1))


@device
def fetch(row_at, chunk, when):
    """Neighbouring numbers of a row; beyond its end 0, as 0 x NaN is NaN."""
    inside = when if chunk < u32(16) else u32(0)
    a, b, c, d = ptx.load_words4_when(row_at + u64(16) * u64(chunk), inside)
    x_0, x_1, x_2, x_3 = a.view(np.float32), b.view(np.float32), c.view(np.float32), d.view(np.float32)
    return x_0, x_1, x_2, x_3


@device
def store_number(to, x, when):
    """A number of an array, as float32."""
    ptx.store_real(to, x, when)
