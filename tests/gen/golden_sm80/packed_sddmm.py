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
    notes = u32(base + NOTES + u32(512) * warp)
    packed = u32(base + PACKED + u32(5632) * warp)
    q_at = q + u64(entry) * q_batch + u64(head) * q_head
    k_at = k + u64(entry) * k_batch + u64(head // share) * k_head
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    keep_notes(rows_at, u32(base + NOTES), thread, values_at, corner)
    copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
    bring_keys(k_at, k_row, base, corner, residue, lattice, limit)
    ptx.async_commit()
    clear_packed(packed, lane)
    queries, keys = places(base, lane, warp)
    rows_of_warp = rows_at + u64(512) * u64(warp)
    score_0 = cuda.local.array(32, dtype=np.float32)
    score_1 = cuda.local.array(32, dtype=np.float32)
    to_0, odd_0 = place_of_row(rows_of_warp, packed, values_at, corner, lane, u32(u32(lane >> u32(2)) + u32(0)))
    to_1, odd_1 = place_of_row(rows_of_warp, packed, values_at, corner, lane, u32(u32(lane >> u32(2)) + u32(8)))
    to_2, odd_2 = place_of_row(rows_of_warp, packed, values_at, corner, lane, u32(u32(lane >> u32(2)) + u32(16)))
    to_3, odd_3 = place_of_row(rows_of_warp, packed, values_at, corner, lane, u32(u32(lane >> u32(2)) + u32(24)))
    _, _, first, reach = ptx.load_words4(rows_of_warp + u64(16) * u64(lane & u32(31)))
    reach = u32(reach + u32(79)) if reach > u32(0) else u32(0)
    some_odd = ptx.any_lane(odd_0 | odd_1 | odd_2 | odd_3)
    while tiles > u32(0):
        wait_for_copies()
        ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
        here, now = corner, u32(keys + stage)
        tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32(64)), u32(STAGE_BYTES - stage)
        if tiles > u32(0):
            bring_keys(k_at, k_row, u32(base + stage), corner, residue, lattice, limit)
        ptx.async_commit()
        mine = u32(1) if u32(corner - u32(first + u32(1))) < reach else u32(0)
        if ptx.any_lane(mine) != u32(0):
            multiply_keys(score_0, score_1, queries, now)
            put_scores(score_0, scale, to_0, 0)
            put_scores(score_0, scale, to_1, 1)
            put_scores(score_1, scale, to_2, 0)
            put_scores(score_1, scale, to_3, 1)
            ptx.warp_barrier()
            store_tile(lane, some_odd, notes, packed, values_at, here)
            ptx.warp_barrier()
            keep_waiting(packed, lane)
    ptx.warp_barrier()
    part = u32(0)
    for i in range(2):
        part = part | store_odd(u32(u32(16 * i) + u32(lane // u32(2))), u32(lane & u32(1)), notes, packed, values_at, corner)
    if ptx.any_lane(part) != u32(0):
        store_parts(lane, u32(2), notes, packed, values_at, corner)


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
def place_of_row(rows_of_warp, packed, values_at, corner, lane, which):
    """Of one of a warp's rows, where a lane's first word of scores goes, and whether it is a half too early there."""
    slot = ptx.load_word(rows_of_warp + u64(16) * u64(which) + u64(4))
    shift = shift_of(values_at, slot, corner)
    to = u32(packed + u32(176) * which + u32(16))
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
def keep_notes(rows_at, to, thread, values_at, corner):
    """Of the block's rows what storing them takes."""
    place = u32(thread & u32(127))
    _, slot, begin, count = ptx.load_words4(rows_at + u64(16) * u64(place))
    shift = shift_of(values_at, slot, corner)
    mine = u32(1) if thread < u32(128) else u32(0)
    to = u32(to + u32(16) * place)
    ptx.store_shared_words4(to, u32(begin + shift), u32(slot - shift), count, u32(shift & u32(1)), mine)


@device
def store_tile(lane, some_odd, notes, packed, values_at, corner):
    """A tile's chunks to memory: those that rows keep whole, one after the other without a branch, then the others."""
    row, chunk = u32(lane // u32(8)), u32(lane & u32(7))
    if some_odd != u32(0):
        part_0 = store_odd(u32(row + u32(0)), chunk, notes, packed, values_at, corner)
        part_1 = store_odd(u32(row + u32(4)), chunk, notes, packed, values_at, corner)
        part_2 = store_odd(u32(row + u32(8)), chunk, notes, packed, values_at, corner)
        part_3 = store_odd(u32(row + u32(12)), chunk, notes, packed, values_at, corner)
        part_4 = store_odd(u32(row + u32(16)), chunk, notes, packed, values_at, corner)
        part_5 = store_odd(u32(row + u32(20)), chunk, notes, packed, values_at, corner)
        part_6 = store_odd(u32(row + u32(24)), chunk, notes, packed, values_at, corner)
        part_7 = store_odd(u32(row + u32(28)), chunk, notes, packed, values_at, corner)
    else:
        part_0 = store_whole(u32(row + u32(0)), chunk, notes, packed, values_at, corner)
        part_1 = store_whole(u32(row + u32(4)), chunk, notes, packed, values_at, corner)
        part_2 = store_whole(u32(row + u32(8)), chunk, notes, packed, values_at, corner)
        part_3 = store_whole(u32(row + u32(12)), chunk, notes, packed, values_at, corner)
        part_4 = store_whole(u32(row + u32(16)), chunk, notes, packed, values_at, corner)
        part_5 = store_whole(u32(row + u32(20)), chunk, notes, packed, values_at, corner)
        part_6 = store_whole(u32(row + u32(24)), chunk, notes, packed, values_at, corner)
        part_7 = store_whole(u32(row + u32(28)), chunk, notes, packed, values_at, corner)
    if ptx.any_lane(part_0 | part_1 | part_2 | part_3 | part_4 | part_5 | part_6 | part_7) != u32(0):
        store_parts(lane, u32(8), notes, packed, values_at, corner)


@device
def store_whole(which, chunk, notes, packed, values_at, corner):
    """A chunk of one of a warp's rows, if the row keeps all of it; whether it keeps some."""
    before, slot, count, odd = ptx.load_shared_words4(u32(notes + u32(16) * which))
    place = u32(corner + u32(8) * chunk)
    into, first = u32(place - before), u32(place + slot)
    last = u32(into + u32(7))
    whole = u32(1) if (into < count) and (last < count) else u32(0)
    word_0, word_1, word_2, word_3 = words_of(which, chunk, packed)
    ptx.store_words4(values_at + u64(2) * u64(first), word_0, word_1, word_2, word_3, whole)
    some = u32(1) if last < u32(count + u32(7)) else u32(0)
    return some & u32(u32(1) - whole)


@device
def store_odd(which, chunk, notes, packed, values_at, corner):
    """The same of rows of which some are odd."""
    before, slot, count, odd = ptx.load_shared_words4(u32(notes + u32(16) * which))
    place = u32(corner + u32(8) * chunk)
    into, first = u32(place - before), u32(place + slot)
    last = u32(into + u32(7))
    whole = u32(1) if (into < count) and (last < count) else u32(0)
    word_0, word_1, word_2, word_3 = odd_words_of(which, chunk, packed, odd)
    ptx.store_words4(values_at + u64(2) * u64(first), word_0, word_1, word_2, word_3, whole)
    some = u32(1) if last < u32(count + u32(7)) else u32(0)
    return some & u32(u32(1) - whole)


@device
def store_parts(lane, chunks, notes, packed, values_at, corner):
    """Of those chunks of which rows keep some, and that are among the first ``chunks``, what is kept."""
    for i in range(2):
        end = u32(u32(lane // u32(32)) + u32(i))
        store_part(u32(lane & u32(31)), end, chunks, notes, packed, values_at, corner)


@device
def store_part(which, end, chunks, notes, packed, values_at, corner):
    """The chunk of a row's first value or, where ``end`` is 1, of its last one, unless that is the same."""
    before, slot, count, odd = ptx.load_shared_words4(u32(notes + u32(16) * which))
    begins = u32(u32(before - corner) // u32(8))  # too many if it is in a tile before
    ends = u32(u32(u32(before + count) - u32(corner + u32(1))) // u32(8))
    chunk = ptx.select(ends, begins, end)
    again = end if begins == ends else u32(0)
    mine = u32(1) if (chunk < chunks) and (again == u32(0)) else u32(0)
    chunk = chunk if chunk < chunks else u32(0)
    into = u32(u32(corner + u32(8) * chunk) - before)
    mine = u32(0) if (into < count) and (u32(into + u32(7)) < count) else mine
    word_0, word_1, word_2, word_3 = odd_words_of(which, chunk, packed, odd)
    row_at = values_at + u64(2) * u64(u32(before + slot))
    store_ends(row_at, word_0, word_1, word_2, word_3, into, count, mine)


@device
def words_of(which, chunk, packed):
    """A chunk of a row that waits in shared memory."""
    at = u32(packed + u32(176) * which + u32(16) * u32(chunk + u32(1)))
    return ptx.load_shared_words4(at)


@device
def odd_words_of(which, chunk, packed, odd):
    """The same where the row may be odd: of its words each is then half in the one before."""
    at = u32(packed + u32(176) * which + u32(16) * u32(chunk + u32(1)))
    before = ptx.load_shared_word(u32(at - u32(4)))
    a, b, c, d = ptx.load_shared_words4(at)
    a_both = u32(u32(before >> u32(16)) | u32(a << u32(16)))
    b_both = u32(u32(a >> u32(16)) | u32(b << u32(16)))
    c_both = u32(u32(b >> u32(16)) | u32(c << u32(16)))
    d_both = u32(u32(c >> u32(16)) | u32(d << u32(16)))
    return ptx.select(a_both, a, odd), ptx.select(b_both, b, odd), ptx.select(c_both, c, odd), ptx.select(d_both, d, odd)


@device
def store_ends(row_at, a, b, c, d, place, count, when):
    """A chunk's words of which the row has both numbers; of those at its first and last place, one."""
    kept = when if (u32(place + u32(0)) < count) and (u32(u32(place + u32(0)) + u32(1)) < count) else u32(0)
    ptx.store_word(row_at + u64(2) * u64(u32(place + u32(0))), a, kept)
    kept = when if (u32(place + u32(2)) < count) and (u32(u32(place + u32(2)) + u32(1)) < count) else u32(0)
    ptx.store_word(row_at + u64(2) * u64(u32(place + u32(2))), b, kept)
    kept = when if (u32(place + u32(4)) < count) and (u32(u32(place + u32(4)) + u32(1)) < count) else u32(0)
    ptx.store_word(row_at + u64(2) * u64(u32(place + u32(4))), c, kept)
    kept = when if (u32(place + u32(6)) < count) and (u32(u32(place + u32(6)) + u32(1)) < count) else u32(0)
    ptx.store_word(row_at + u64(2) * u64(u32(place + u32(6))), d, kept)
    before, left = u32(u32(0) - place), u32(count - place)
    odd = when if (before < u32(8)) and (u32(before & u32(1)) != u32(0)) else u32(0)
    odd = odd if count > u32(0) else u32(0)
    ptx.store_half(row_at, u32(word_of(a, b, c, d, before) >> u32(16)), odd)
    odd = when if (left < u32(8)) and (u32(left & u32(1)) != u32(0)) else u32(0)
    odd = odd if count > u32(0) else u32(0)
    ptx.store_half(row_at + u64(2) * u64(u32(count - u32(1))), word_of(a, b, c, d, left), odd)


@device
def word_of(a, b, c, d, number):
    """The word that a number of a chunk is in."""
    low, high = ptx.select(b, a, number & u32(2)), ptx.select(d, c, number & u32(2))
    return ptx.select(high, low, number & u32(4))


@device
def keep_waiting(packed, lane):
    """What was not stored with this tile goes before the next one's, with the word before it."""
    for i in range(2):
        which, chunk = u32(u32(16 * i) + u32(lane // u32(2))), u32(lane & u32(1))
        at = u32(packed + u32(176) * which + u32(16) * chunk + u32(16))
        a, b, c, d = ptx.load_shared_words4(u32(at + u32(128)))
        before = ptx.load_shared_word(u32(at + u32(124)))
        ptx.store_shared_words4(at, a, b, c, d, u32(1))
        ptx.store_shared_word(u32(at - u32(4)), before, u32(1) if chunk == u32(0) else u32(0))


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
def bring_keys(first, step, to, corner, residue, lattice, limit):
    """Begin to copy the keys of a tile."""
    if u64(residue) + u64(lattice) * u64(u32(corner + u32(63))) < u64(limit):
        copy_whole_keys(first, step, to, corner, residue, lattice)
    else:
        copy_keys(first, step, to, corner, residue, lattice, limit)


@device
def copy_whole_keys(first, step, to, corner, residue, lattice):
    """Begin to copy the keys of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    row, chunk = u32(thread // u32(8)), u32(thread % u32(8))
    to = u32(to + row * u32(144) + chunk * u32(16))
    first = first + u64(16) * u64(chunk)
    for i in range(4):
        place = u32(row + u32(16 * i))
        token = u32(residue + lattice * u32(corner + place))
        ptx.async_copy(u32(to + u32(2304 * i)), first + u64(token) * step, u32(1))


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
