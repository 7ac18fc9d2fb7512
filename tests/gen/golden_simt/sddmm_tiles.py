"""Sampled products in tiles on any GPU, generated for every mask whose rows share columns.

Rows of 64 numbers, float32, computed in float32;
64 rows x 64 places a tile, by 128 threads:
16 lanes share 8 rows.
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


# Shared memory, in bytes from its aligned start: keys or rows of v of a tile come first.
QUERIES, NOTES = u32(17408), u32(34816)


def sddmm(
    rows, blocks, q, k, values,
    q_row, q_head, q_batch, k_row, k_head, k_batch, values_row, values_head, values_batch,
    scale,
    blocks_listed, heads, share, seq_q, seq_kv, dim_steps,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    thread = ptx.thread_index()
    row = u32(u32(thread // u32(16)) * u32(8))
    column = u32(thread & u32(15))
    item = ptx.block_index()
    pair = u32(item // blocks_listed)
    rank = u32(item - pair * blocks_listed)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    rows_at = rows + u64(1024) * u64(rank)
    residue, lattice, corner, tiles = ptx.load_words4(blocks + u64(16) * u64(rank))
    limit = seq_kv
    keep_rows(rows_at, u32(base + NOTES), thread)
    notes = u32(base + NOTES + u32(16) * row)
    q_at = q + u64(entry) * q_batch + u64(head) * q_head
    k_at = k + u64(entry) * k_batch + u64(head // share) * k_head
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    score = cuda.local.array(32, dtype=np.float32)
    load_queries(q_at, q_row, base + QUERIES, rows_at, seq_q)
    while tiles > u32(0):
        load_keys(k_at, k_row, base, corner, residue, lattice, limit)
        ptx.block_barrier()
        multiply_keys(score, base + QUERIES + u32(272) * row, base + u32(272) * column, dim_steps)
        ptx.block_barrier()  # nobody reads the keys any more
        store_scores(score, scale, notes, values_at, values_row, corner, column)
        tiles, corner = u32(tiles - u32(1)), u32(corner + u32(64))


@device
def store_scores(score, scale, notes, values_at, values_row, corner, column):
    """What is kept of a thread's rows of a tile."""
    for i in range(8):
        _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32(16 * i)))
        for j in range(4):
            place = u32(corner + column + u32(16 * j))
            there = u32(1) if u32(place - begin) < count else u32(0)
            at = values_at + values_row * u64(u32(slot + place))
            store_number(at, score[4 * i + j] * scale, there)


@device
def store_number(to, x, when):
    """A number of an array, as float32."""
    ptx.store_real(to, x, when)


@device
def load_queries(first, step, to, rows_at, limit):
    """The queries of a tile, into shared memory."""
    chunks = cuda.local.array(32, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(1024):
        fetch_queries(0, begin, chunks, first, step, rows_at, limit)
        fetch_queries(1, begin, chunks, first, step, rows_at, limit)
        fetch_queries(2, begin, chunks, first, step, rows_at, limit)
        fetch_queries(3, begin, chunks, first, step, rows_at, limit)
        fetch_queries(4, begin, chunks, first, step, rows_at, limit)
        fetch_queries(5, begin, chunks, first, step, rows_at, limit)
        fetch_queries(6, begin, chunks, first, step, rows_at, limit)
        fetch_queries(7, begin, chunks, first, step, rows_at, limit)
        store_queries(0, begin, chunks, to)
        store_queries(1, begin, chunks, to)
        store_queries(2, begin, chunks, to)
        store_queries(3, begin, chunks, to)
        store_queries(4, begin, chunks, to)
        store_queries(5, begin, chunks, to)
        store_queries(6, begin, chunks, to)
        store_queries(7, begin, chunks, to)
        begin = u32(begin + u32(1024))


@device
def fetch_queries(i, begin, chunks, first, step, rows_at, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    token = ptx.load_word(rows_at + u64(16) * u64(place))  # 2**32 - 1: none
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_queries(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    at = u32(to + place * u32(272) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], u32(1))


@device
def load_keys(first, step, to, corner, residue, lattice, limit):
    """The keys of a tile, into shared memory."""
    chunks = cuda.local.array(32, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(1024):
        fetch_keys(0, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_keys(1, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_keys(2, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_keys(3, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_keys(4, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_keys(5, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_keys(6, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_keys(7, begin, chunks, first, step, corner, residue, lattice, limit)
        store_keys(0, begin, chunks, to)
        store_keys(1, begin, chunks, to)
        store_keys(2, begin, chunks, to)
        store_keys(3, begin, chunks, to)
        store_keys(4, begin, chunks, to)
        store_keys(5, begin, chunks, to)
        store_keys(6, begin, chunks, to)
        store_keys(7, begin, chunks, to)
        begin = u32(begin + u32(1024))


@device
def fetch_keys(i, begin, chunks, first, step, corner, residue, lattice, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    token = u32(residue + lattice * u32(corner + place))
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_keys(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    at = u32(to + place * u32(272) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], u32(1))


@device
def multiply_keys(score, left, right, steps):
    """Products of a thread's rows with its keys."""
    key = cuda.local.array(16, dtype=np.float32)
    for i in range(32):
        score[i] = ZERO
    for step in range(steps):
        for j in range(4):
            key[4 * j + 0], key[4 * j + 1], key[4 * j + 2], key[4 * j + 3] = read_chunk(right + u32(4352) * u32(j) + u32(16) * u32(step))
        for i in range(8):
            x_0, x_1, x_2, x_3 = read_chunk(left + u32(272) * u32(i) + u32(16) * u32(step))
            for j in range(4):
                score[4 * i + j] += x_0 * key[4 * j + 0]
                score[4 * i + j] += x_1 * key[4 * j + 1]
                score[4 * i + j] += x_2 * key[4 * j + 2]
                score[4 * i + j] += x_3 * key[4 * j + 3]


@device
def keep_rows(rows_at, to, thread):
    """The block's rows, where all its warps find them."""
    place = u32(thread & u32(63))
    row, slot, begin, count = ptx.load_words4(rows_at + u64(16) * u64(place))
    mine = u32(1) if thread < u32(64) else u32(0)
    ptx.store_shared_words4(u32(to + u32(16) * place), row, slot, begin, count, mine)
