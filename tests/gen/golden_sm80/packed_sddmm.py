"""Sampled products of queries and keys by a warp's matrix products, generated for every mask whose rows share columns.

Rows of 64 numbers, bfloat16; 64 rows x 64 places a tile, by 128
threads: each warp has 16 rows. A tile is fetched while one is computed.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: two stages, a tile's packed values, the block's rows.
STAGE_BYTES, PACKED = u32(9216), u32(18432)
NOTES, QUERIES = u32(27648), u32(28672)


def sddmm(
    rows, blocks, q, k, values,
    q_row, q_head, q_batch, k_row, k_head, k_batch, values_row, values_head, values_batch,
    scale,
    blocks_listed, heads, share, seq_q, seq_kv,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    thread, stage = ptx.thread_index(), u32(0)
    lane, warp = u32(thread & u32(31)), u32(thread // u32(32))
    item = ptx.block_index()
    pair = u32(item // blocks_listed)
    rank = u32(item - pair * blocks_listed)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    rows_at = rows + u64(1024) * u64(rank)
    residue, lattice, corner, tiles = ptx.load_words4(blocks + u64(16) * u64(rank))
    limit = seq_kv
    keep_rows(rows_at, u32(base + NOTES), thread)
    notes = u32(base + NOTES + u32(256) * warp)
    packed = u32(base + PACKED + u32(2304) * warp)
    q_at = q + u64(entry) * q_batch + u64(head) * q_head
    k_at = k + u64(entry) * k_batch + u64(head // share) * k_head
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
    copy_keys(k_at, k_row, base, corner, residue, lattice, limit)
    ptx.async_commit()
    score = cuda.local.array(32, dtype=np.float32)
    queries, keys = places(base, lane, warp)
    while tiles > u32(0):
        wait_for_copies()
        ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
        here, now = corner, u32(keys + stage)
        tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32(64)), u32(STAGE_BYTES - stage)
        if tiles > u32(0):
            copy_keys(k_at, k_row, u32(base + stage), corner, residue, lattice, limit)
        ptx.async_commit()
        multiply_keys(score, queries, now)
        put_scores(score, scale, packed, lane)
        ptx.warp_barrier()
        row, rows_here = u32(0), whole_rows(notes, values_at, here, lane)
        while row < u32(16):
            store_rows(row, rows_here, notes, values_at, here, lane, packed)
            row = u32(row + u32(4))
        ptx.warp_barrier()


@device
def places(base, lane, warp):
    """Where a lane's rows of the first matrices of queries and keys begin."""
    upper = u32(u32(lane >> u32(4)) * u32(16))
    row = u32(u32(warp * u32(16)) + u32(lane & u32(15)))
    queries = u32(base + QUERIES + row * u32(144) + upper)
    key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
    keys = u32(base + key_row * u32(144) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    return queries, keys


@device
def put_scores(score, scale, packed, lane):
    """A warp's scores as packed values of its rows, in shared memory."""
    at = u32(packed + u32(lane >> u32(2)) * u32(144) + u32(lane & u32(3)) * u32(4))
    for j in range(8):
        ptx.store_shared_word(u32(at + u32(16 * j + 0)), ptx.pack_bfloat16(score[4 * j + 0] * scale, score[4 * j + 1] * scale), u32(1))
        ptx.store_shared_word(u32(at + u32(16 * j + 1152)), ptx.pack_bfloat16(score[4 * j + 2] * scale, score[4 * j + 3] * scale), u32(1))


@device
def store_rows(i, rows_here, notes, values_at, corner, lane, packed):
    """What is kept of a few rows of a tile, from row i on."""
    known_0 = ptx.word_of_lane(rows_here, u32(i + u32(0)))
    word_0 = ptx.load_shared_word(u32(packed + u32(144) * u32(i + u32(0)) + u32(4) * lane))
    known_1 = ptx.word_of_lane(rows_here, u32(i + u32(1)))
    word_1 = ptx.load_shared_word(u32(packed + u32(144) * u32(i + u32(1)) + u32(4) * lane))
    known_2 = ptx.word_of_lane(rows_here, u32(i + u32(2)))
    word_2 = ptx.load_shared_word(u32(packed + u32(144) * u32(i + u32(2)) + u32(4) * lane))
    known_3 = ptx.word_of_lane(rows_here, u32(i + u32(3)))
    word_3 = ptx.load_shared_word(u32(packed + u32(144) * u32(i + u32(3)) + u32(4) * lane))
    store_row(u32(i + u32(0)), known_0, word_0, notes, values_at, corner, lane)
    store_row(u32(i + u32(1)), known_1, word_1, notes, values_at, corner, lane)
    store_row(u32(i + u32(2)), known_2, word_2, notes, values_at, corner, lane)
    store_row(u32(i + u32(3)), known_3, word_3, notes, values_at, corner, lane)


@device
def store_row(i, known, word, notes, values_at, corner, lane):
    """What is kept of row i: two values a lane, and those whose word is another's too alone."""
    if known != u32(0):
        first = u32(known >> u32(1))
        if odd_at(first, values_at) == u32(0):
            ptx.store_word(values_at + u64(2) * u64(u32(first + lane + lane)), word, u32(1))
        else:
            store_whole_odd(values_at + u64(2) * u64(u32(first + lane + lane)), word, lane)
    else:
        store_part(i, word, notes, values_at, corner, lane)


@device
def store_whole_odd(at, word, lane):
    """Column 0 and the last one alone; at: where the second value of the lane's word goes."""
    ahead = u32(0) if lane == u32(0) else u32(1)
    end = u32(1) if (lane == u32(0)) or (lane == u32(31)) else u32(0)
    ptx.store_word(at - u64(2), across(word, lane), ahead)
    ptx.store_half(at + u64(2) * u64(ahead), u32(word >> u32(u32(16) * ahead)), end)


@device
def across(word, lane):
    """The second value of the lane before, and the lane's first."""
    before = ptx.word_of_lane(word, u32(u32(lane - u32(1)) & u32(31)))
    return u32(u32(before >> u32(16)) | u32(word << u32(16)))


@device
def store_part(i, word, notes, values_at, corner, lane):
    """Row i where it begins or ends."""
    first, into, count, odd = row_of_tile(i, notes, values_at, corner)
    low, high, alone = kept_of_word(into, count, odd, lane)
    two = across(word, lane)
    two = two if odd != u32(0) else word
    second = values_at + u64(2) * u64(u32(first + lane + lane + u32(1) - odd))  # where its second value goes
    ptx.store_word(second - u64(2), two, low & high)
    ptx.store_half(second, u32(two >> u32(16)), high & u32(low ^ u32(1)))
    ptx.store_half(second - u64(2), two, low & u32(high ^ u32(1)))
    last = u32(1) if lane == u32(31) else u32(0)
    ptx.store_half(second + u64(2), u32(word >> u32(16)), alone & last)


@device
def row_of_tile(i, notes, values_at, corner):
    """Of row i: its place 0's value, that place from the row's first, pairs of the row; whether it is odd."""
    _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32(16) * u32(i)))
    first, into = u32(slot + corner), u32(corner - begin)
    return first, into, count, odd_at(first, values_at)


@device
def odd_at(first, values_at):
    """Whether a value is the second of its word."""
    return u32(u32(u32(values_at >> u64(1)) + first) & u32(1))


@device
def whole_rows(notes, values_at, corner, lane):
    """Of the lane's row: twice its place 0's value and 1 where a tile's places are all kept, else 0."""
    first, into, count, odd = row_of_tile(u32(lane & u32(15)), notes, values_at, corner)
    whole = (into < count) and (u32(into + u32(63)) < count)
    return u32(u32(first << u32(1)) | u32(1)) if whole else u32(0)


@device
def kept_of_word(into, count, odd, lane):
    """Whether a lane's word has a first value that is kept, a second; whether the place beyond the last word is."""
    column = u32(u32(lane + lane) - odd)
    low = u32(1) if (column < u32(64)) and (u32(into + column) < count) else u32(0)
    high = u32(1) if u32(into + column + u32(1)) < count else u32(0)
    alone = odd if u32(into + u32(63)) < count else u32(0)
    return low, high, alone


@device
def keep_rows(rows_at, to, thread):
    """The block's rows, where all its warps find them."""
    place = u32(thread & u32(63))
    row, slot, begin, count = ptx.load_words4(rows_at + u64(16) * u64(place))
    mine = u32(1) if thread < u32(64) else u32(0)
    ptx.store_shared_words4(u32(to + u32(16) * place), row, slot, begin, count, mine)


@device
def copy_queries(first, step, to, rows_at, limit):
    """Begin to copy the queries of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(8))
    place = u32(thread // u32(8))
    while place < u32(64):
        token = ptx.load_word(rows_at + u64(16) * u64(place))  # 2**32 - 1: none
        at = u32(to + place * u32(144) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(16))


@device
def copy_keys(first, step, to, corner, residue, lattice, limit):
    """Begin to copy the keys of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(8))
    place = u32(thread // u32(8))
    while place < u32(64):
        token = u32(residue + lattice * u32(corner + place))
        at = u32(to + place * u32(144) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(16))


@device
def multiply_keys(score, queries, keys):
    """Scores of a warp's rows with a tile's keys."""
    for i in range(32):
        score[i] = f32(0.0)
    multiply_keys_step(score, u32(queries + u32(0)), u32(keys + u32(0)))
    multiply_keys_step(score, u32(queries + u32(32)), u32(keys + u32(32)))
    multiply_keys_step(score, u32(queries + u32(64)), u32(keys + u32(64)))
    multiply_keys_step(score, u32(queries + u32(96)), u32(keys + u32(96)))


@device
def multiply_keys_step(score, queries, keys):
    """Sixteen numbers of each row and key."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(u32(queries + u32(0)))
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(0)))
    add_product(score, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(2304)))
    add_product(score, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(4608)))
    add_product(score, 16, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score, 20, a_0, a_1, a_2, a_3, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(6912)))
    add_product(score, 24, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score, 28, a_0, a_1, a_2, a_3, b_2, b_3)


@device
def add_product(sums, at, a_0, a_1, a_2, a_3, b_0, b_1):
    """(16, 8) sums += (16, 16) x (16, 8)."""
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_bfloat16(
        a_0, a_1, a_2, a_3, b_0, b_1,
        sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3],
    )
