"""Sampled products of queries and keys by a warp's matrix products, generated for every mask whose rows share columns.

Rows of 64 numbers, bfloat16; 128 rows x 64 places a tile, by
128 threads: each warp has 32 rows. A tile is fetched while one is computed.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: two stages of keys, packed values, the block's rows, queries.
STAGE_BYTES = u32(9216)
PACKED, NOTES, QUERIES = u32(18432), u32(40960), u32(43008)


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
    rows_at = rows + u64(2048) * u64(rank)
    residue, lattice, corner, tiles = ptx.load_words4(blocks + u64(16) * u64(rank))
    limit = seq_kv
    keep_rows(rows_at, u32(base + NOTES), thread)
    notes = u32(base + NOTES + u32(512) * warp)
    packed = u32(base + PACKED + u32(5632) * warp)
    q_at = q + u64(entry) * q_batch + u64(head) * q_head
    k_at = k + u64(entry) * k_batch + u64(head // share) * k_head
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
    copy_keys(k_at, k_row, base, corner, residue, lattice, limit)
    ptx.async_commit()
    clear_packed(packed, lane)
    carry = cuda.local.array(4, dtype=np.uint32)
    for i in range(4):
        carry[i] = u32(0)
    queries, keys = places(base, lane, warp)
    ptx.block_barrier()  # the list of rows is there
    score_0 = cuda.local.array(32, dtype=np.float32)
    score_1 = cuda.local.array(32, dtype=np.float32)
    to_0, odd_0 = place_of_row(notes, packed, values_at, corner, lane, u32(u32(lane >> u32(2)) + u32(0)))
    to_1, odd_1 = place_of_row(notes, packed, values_at, corner, lane, u32(u32(lane >> u32(2)) + u32(8)))
    to_2, odd_2 = place_of_row(notes, packed, values_at, corner, lane, u32(u32(lane >> u32(2)) + u32(16)))
    to_3, odd_3 = place_of_row(notes, packed, values_at, corner, lane, u32(u32(lane >> u32(2)) + u32(24)))
    some_odd = ptx.any_lane(odd_0 | odd_1 | odd_2 | odd_3)
    while tiles > u32(0):
        wait_for_copies()
        ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
        here, now = corner, u32(keys + stage)
        tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32(64)), u32(STAGE_BYTES - stage)
        if tiles > u32(0):
            copy_keys(k_at, k_row, u32(base + stage), corner, residue, lattice, limit)
        ptx.async_commit()
        multiply_keys(score_0, score_1, queries, now)
        if some_odd != u32(0):
            put_odd_scores(score_0, scale, to_0, odd_0, 0, lane, carry, 0)
            put_odd_scores(score_0, scale, to_1, odd_1, 1, lane, carry, 1)
            put_odd_scores(score_1, scale, to_2, odd_2, 0, lane, carry, 2)
            put_odd_scores(score_1, scale, to_3, odd_3, 1, lane, carry, 3)
        else:
            put_scores(score_0, scale, to_0, 0)
            put_scores(score_0, scale, to_1, 1)
            put_scores(score_1, scale, to_2, 0)
            put_scores(score_1, scale, to_3, 1)
        ptx.warp_barrier()
        for i in range(8):
            which = u32(u32(4 * i) + u32(lane // u32(8)))
            store_chunk(which, u32(lane & u32(7)), notes, packed, values_at, here)
        ptx.warp_barrier()
        keep_waiting(packed, lane)
    ptx.warp_barrier()
    for i in range(2):
        store_chunk(u32(u32(16 * i) + u32(lane // u32(2))), u32(lane & u32(1)), notes, packed, values_at, corner)


@device
def places(base, lane, warp):
    """Where a lane's rows of the first matrices of queries and keys begin."""
    upper = u32(u32(lane >> u32(4)) * u32(16))
    row = u32(u32(warp * u32(32)) + u32(lane & u32(15)))
    queries = u32(base + QUERIES + row * u32(144) + upper)
    key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
    keys = u32(base + key_row * u32(144) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    return queries, keys


@device
def place_of_row(notes, packed, values_at, corner, lane, which):
    """Of one of a warp's rows, where a lane's first score goes, and whether that is the second half of a word."""
    slot = ptx.load_shared_word(u32(notes + u32(16) * which + u32(4)))
    shift = shift_of(values_at, slot, corner)
    to = u32(packed + u32(176) * which)
    return u32(to + u32(4) * u32(u32(shift >> u32(1)) + u32(lane & u32(3)))), u32(shift & u32(1))


@device
def shift_of(values_at, slot, corner):
    """Values of the sector of a tile's first value that stand before it: of a row always as many."""
    return u32(u32(u32(values_at >> u64(1)) + slot + corner) & u32(15))


@device
def clear_packed(packed, lane):
    """What no tile has written yet is read all the same."""
    for i in range(11):
        chunk = u32(lane + u32(32 * i))
        mine = u32(1) if chunk < u32(352) else u32(0)
        ptx.store_shared_words4(u32(packed + u32(16) * chunk), u32(0), u32(0), u32(0), u32(0), mine)


@device
def put_scores(score, scale, to, half):
    """Scores of one of a lane's rows, two a word."""
    for j in range(8):
        ptx.store_shared_word(u32(to + u32(16 * j)), ptx.pack_bfloat16(score[4 * j + 2 * half + 0] * scale, score[4 * j + 2 * half + 1] * scale), u32(1))


@device
def put_odd_scores(score, scale, to, odd, half, lane, carry, row):
    """The same where the row is odd: a word has the second score of the lane before, and the lane's first."""
    last = u32(1) if u32(lane & u32(3)) == u32(3) else u32(0)
    before = carry[row]
    for j in range(8):
        word = ptx.pack_bfloat16(score[4 * j + 2 * half + 0] * scale, score[4 * j + 2 * half + 1] * scale)
        given = before if last != u32(0) else word
        given = ptx.word_of_lane(given, u32(u32(lane & u32(28)) | u32(u32(lane - u32(1)) & u32(3))))
        two = u32(u32(given >> u32(16)) | u32(word << u32(16))) if odd != u32(0) else word
        ptx.store_shared_word(u32(to + u32(16 * j)), two, u32(1))
        before = word
    beyond = u32(to + u32(116))  # the word after all of the row's
    ptx.store_shared_word(beyond, u32(before >> u32(16)), last & odd)
    carry[row] = before


@device
def store_chunk(which, chunk, notes, packed, values_at, corner):
    """A chunk of one of a warp's rows to memory, as far as the row keeps it."""
    _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32(16) * which))
    place = u32(corner + u32(8) * chunk - shift_of(values_at, slot, corner))
    into, whole, some = kept_chunk(place, begin, count)
    word_0, word_1, word_2, word_3 = ptx.load_shared_words4(u32(packed + u32(176) * which + u32(16) * chunk))
    first = u32(slot + place)
    ptx.store_words4(values_at + u64(2) * u64(first), word_0, word_1, word_2, word_3, whole)
    part = some & u32(u32(1) - whole)
    if ptx.any_lane(part) != u32(0):
        store_values(word_0, values_at, u32(first + u32(0)), u32(into + u32(0)), count, part)
        store_values(word_1, values_at, u32(first + u32(2)), u32(into + u32(2)), count, part)
        store_values(word_2, values_at, u32(first + u32(4)), u32(into + u32(4)), count, part)
        store_values(word_3, values_at, u32(first + u32(6)), u32(into + u32(6)), count, part)


@device
def store_values(word, values_at, first, into, count, when):
    """Two values, each where the row keeps it."""
    low = when if into < count else u32(0)
    high = when if u32(into + u32(1)) < count else u32(0)
    ptx.store_half(values_at + u64(2) * u64(first), word, low)
    ptx.store_half(values_at + u64(2) * u64(u32(first + u32(1))), u32(word >> u32(16)), high)


@device
def keep_waiting(packed, lane):
    """What was not stored with this tile goes before the next one's."""
    for i in range(2):
        which, chunk = u32(u32(16 * i) + u32(lane // u32(2))), u32(lane & u32(1))
        at = u32(packed + u32(176) * which + u32(16) * chunk)
        a, b, c, d = ptx.load_shared_words4(u32(at + u32(128)))
        ptx.store_shared_words4(at, a, b, c, d, u32(1))


@device
def kept_chunk(place, begin, count):
    """The chunk's first place from the row's first; whether all its places are kept, and whether any is."""
    into = u32(place - begin)
    last = u32(into + u32(7))
    whole = u32(1) if (into < count) and (last < count) else u32(0)
    some = u32(1) if last < u32(count + u32(7)) else u32(0)
    return into, whole, some


@device
def keep_rows(rows_at, to, thread):
    """The block's rows, where all its warps find them."""
    place = u32(thread & u32(127))
    row, slot, begin, count = ptx.load_words4(rows_at + u64(16) * u64(place))
    mine = u32(1) if thread < u32(128) else u32(0)
    ptx.store_shared_words4(u32(to + u32(16) * place), row, slot, begin, count, mine)


@device
def copy_queries(first, step, to, rows_at, limit):
    """Begin to copy the queries of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(8))
    place = u32(thread // u32(8))
    while place < u32(128):
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
def multiply_keys(score_0, score_1, queries, keys):
    """Scores of a warp's rows with a tile's keys."""
    for i in range(32):
        score_0[i] = f32(0.0)
        score_1[i] = f32(0.0)
    multiply_keys_step(score_0, score_1, u32(queries + u32(0)), u32(keys + u32(0)))
    multiply_keys_step(score_0, score_1, u32(queries + u32(32)), u32(keys + u32(32)))
    multiply_keys_step(score_0, score_1, u32(queries + u32(64)), u32(keys + u32(64)))
    multiply_keys_step(score_0, score_1, u32(queries + u32(96)), u32(keys + u32(96)))


@device
def multiply_keys_step(score_0, score_1, queries, keys):
    """Sixteen numbers of each row and key."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(u32(queries + u32(0)))
    a_4, a_5, a_6, a_7 = ptx.load_matrices(u32(queries + u32(2304)))
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(0)))
    add_product(score_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(score_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(score_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(2304)))
    add_product(score_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(score_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(score_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(4608)))
    add_product(score_0, 16, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_1, 16, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(score_0, 20, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(score_1, 20, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(6912)))
    add_product(score_0, 24, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_1, 24, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(score_0, 28, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(score_1, 28, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def add_product(sums, at, a_0, a_1, a_2, a_3, b_0, b_1):
    """(16, 8) sums += (16, 16) x (16, 8)."""
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_bfloat16(
        a_0, a_1, a_2, a_3, b_0, b_1,
        sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3],
    )
