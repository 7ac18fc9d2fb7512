"""Sparse attention by a warp's matrix products, generated for every mask that tables of boxes describe.

head_dim 20, value_dim 12, float32 by three products of TF32; 128 queries x 32 keys a tile, by
128 threads: each warp has 32 rows. A tile is fetched while one is computed.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
NONE_KEPT = f32(-np.inf)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: queries, stages, a note a warp; in a stage: keys, values.
QUERIES, TILES, NOTES = u32(0), u32(36864), u32(51200)
VALUES, STAGE_BYTES = u32(4608), u32(7168)


def attention(
    rows, block, piece, bits, views, heads, q, k, v, out, lse, kv_lengths,
    q_row, q_head, q_batch, k_row, k_head, k_batch, v_row, v_head, v_batch, out_row, out_head, out_batch,
    scale_log2,
    blocks, heads_count, batch, heads_per_wave, heads_q, group, seq_q, seq_kv, box_shift,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    score_0 = cuda.local.array(16, dtype=np.float32)
    score_1 = cuda.local.array(16, dtype=np.float32)
    total_0 = cuda.local.array(8, dtype=np.float32)
    total_1 = cuda.local.array(8, dtype=np.float32)
    peak_0 = cuda.local.array(2, dtype=np.float32)
    peak_1 = cuda.local.array(2, dtype=np.float32)
    added_0 = cuda.local.array(2, dtype=np.float32)
    added_1 = cuda.local.array(2, dtype=np.float32)
    rescale = cuda.local.array(2, dtype=np.float32)
    for i in range(2):
        peak_0[i], added_0[i] = NONE_KEPT, f32(0.0)
    for i in range(8):
        total_0[i] = f32(0.0)
    for i in range(2):
        peak_1[i], added_1[i] = NONE_KEPT, f32(0.0)
    for i in range(8):
        total_1[i] = f32(0.0)
    rank, head, entry = item_of_block(heads, blocks, heads_count, batch, heads_per_wave)
    rows_at = rows + u64(512) * u64(rank)
    q_at = q + u64(entry) * q_batch + u64(head) * q_head
    k_at = k + u64(entry) * k_batch + u64(head // group) * k_head
    v_at = v + u64(entry) * v_batch + u64(head // group) * v_head
    note = u32(base + NOTES + u32(32) * u32(ptx.thread_index() >> u32(5)))
    keep_notes(note, rank, head, entry, k_at, v_at)
    copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
    clear_padding(base)
    ptx.async_commit()
    wait_for_copies()
    ptx.block_barrier()
    keep_rests(u32(base + QUERIES))
    limit = seq_kv
    attend(
        block + u64(32) * u64(rank), piece, views, k_row, v_row, base, note, scale_log2, score_0, score_1, total_0,
        total_1, peak_0, peak_1, added_0, added_1, rescale, box_shift, limit,
    )
    rank, head, entry, _ = ptx.load_shared_words4(note)
    row, column = place_in_warp(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)))
    row_at = rows + u64(512) * u64(rank) + u64(4) * u64(row)
    out_at = out + u64(entry) * out_batch + u64(head) * out_head
    lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
    q_idx = ptx.load_word(row_at + u64(0))
    store_row(0, q_idx, column, total_0, peak_0, added_0, out_at, out_row, lse, lse_at, seq_q)
    q_idx = ptx.load_word(row_at + u64(32))
    store_row(1, q_idx, column, total_0, peak_0, added_0, out_at, out_row, lse, lse_at, seq_q)
    q_idx = ptx.load_word(row_at + u64(64))
    store_row(0, q_idx, column, total_1, peak_1, added_1, out_at, out_row, lse, lse_at, seq_q)
    q_idx = ptx.load_word(row_at + u64(96))
    store_row(1, q_idx, column, total_1, peak_1, added_1, out_at, out_row, lse, lse_at, seq_q)


@device
def attend(
    block_at, piece, views, k_row, v_row, base, note, scale_log2, score_0, score_1, total_0, total_1, peak_0,
    peak_1, added_0, added_1, rescale, box_shift, limit,
):
    """All tiles of a row block: while one is computed the next is fetched."""
    fetched = u32(base + TILES)
    place = ptx.load_word(block_at + u64(12))
    left = ptx.load_word(block_at + u64(20))
    computing = u32(0)
    stage = count = corner = inner_step = outer_step = u32(0)
    while left + computing > u32(0):
        if computing > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
        if left > u32(0):
            place, count, corner, inner_step, outer_step = next_tile(piece, views, place, count, corner, inner_step, outer_step)
            k_at, v_at = keys_and_values(note)
            copy_keys(k_at, k_row, u32(fetched + stage), corner, inner_step, outer_step, box_shift, limit)
            copy_values(v_at, v_row, u32(fetched + VALUES + stage), corner, inner_step, outer_step, box_shift, limit)
        ptx.async_commit()
        if computing > u32(0):
            attend_tile(
                base, u32(fetched + u32(STAGE_BYTES - stage)), scale_log2, score_0, score_1, total_0, total_1, peak_0, peak_1,
                added_0, added_1, rescale,
            )
        stage = u32(STAGE_BYTES - stage)
        computing = u32(1) if left > u32(0) else u32(0)
        left = u32(left - computing)


@device
def next_tile(piece, views, place, count, corner, inner_step, outer_step):
    """The next tile of the piece, or the first of the next piece."""
    if count == u32(0):
        view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
        offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
        corner = u32(offset + inner_step * c1 + outer_step * c2)
        place = u32(place + u32(1))
    else:
        corner = u32(corner + u32(32) * inner_step)
    count = u32(count - u32(1))
    return place, count, corner, inner_step, outer_step


@device
def attend_tile(
    base, tile, scale_log2, score_0, score_1, total_0, total_1, peak_0, peak_1, added_0, added_1, rescale,
):
    """One tile: scores, weights, and its values."""
    queries, keys, values, row, column = places(base, tile)
    multiply_keys(score_0, score_1, queries, keys)
    repair_scores(score_0, score_1, queries, keys)
    softmax(score_0, scale_log2, peak_0, added_0, rescale)
    bring_to_peak(total_0, rescale)
    softmax(score_1, scale_log2, peak_1, added_1, rescale)
    bring_to_peak(total_1, rescale)
    multiply_values(total_0, total_1, score_0, score_1, values)


@device
def places(base, tile):
    """Where a lane's rows of the first matrices of queries, keys and values begin; its row and column of scores."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    lane, first_row = u32(thread & u32(31)), u32(u32(thread >> u32(5)) * u32(32))
    row, column = place_in_warp(thread)
    upper = u32(u32(lane >> u32(4)) * u32(16))
    queries = u32(base + QUERIES + u32(first_row + u32(lane & u32(15))) * u32(144) + upper)
    key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
    keys = u32(tile + key_row * u32(144) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    values = u32(tile + VALUES + u32(column * u32(80)) + u32(lane >> u32(2)) * u32(8))
    return queries, keys, values, row, column


@device
def place_in_warp(thread):
    """A thread's first row of the block's, and its first column of each eight."""
    row = u32(u32(thread >> u32(5)) * u32(32) + u32(u32(thread & u32(31)) >> u32(2)))
    return row, u32(u32(thread & u32(3)) * u32(2))


@device
def keep_notes(note, rank, head, entry, k_at, v_at):
    """For each warp."""
    first = u32(1) if u32(ptx.thread_index() & u32(31)) == u32(0) else u32(0)
    ptx.store_shared_words4(note, rank, head, entry, u32(0), first)
    ptx.store_shared_words4(u32(note + u32(16)), u32(k_at & u64(4294967295)), u32(k_at >> u64(32)), u32(v_at & u64(4294967295)), u32(v_at >> u64(32)), first)
    ptx.warp_barrier()


@device
def keys_and_values(note):
    """Where keys and values of the item's head are."""
    k_low, k_high, v_low, v_high = ptx.load_shared_words4(u32(note + u32(16)))
    return u64(u64(k_low) | (u64(k_high) << u64(32))), u64(u64(v_low) | (u64(v_high) << u64(32)))


@device
def token_of(place, corner, inner_step, outer_step, box_shift):
    """The token at a place of the box that begins at ``corner``."""
    line = u32(place >> box_shift)
    return u32(corner + inner_step * u32(place - u32(line << box_shift)) + outer_step * line)


@device
def copy_queries(first, step, to, rows_at, limit):
    """Begin to copy the queries of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    number = thread
    while number < u32(640):
        place = u32(number // u32(5))
        chunk = u32(number - place * u32(5))
        token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
        at = u32(to + place * u32(144) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        number = u32(number + u32(128))


@device
def copy_keys(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the keys of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    number = thread
    while number < u32(160):
        place = u32(number // u32(5))
        chunk = u32(number - place * u32(5))
        mine = u32(1) if place < u32(32) else u32(0)
        token = token_of(place, corner, inner_step, outer_step, box_shift)
        at = u32(to + place * u32(144) + chunk * u32(16))
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), mine)
        number = u32(number + u32(128))


@device
def copy_values(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the values of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    number = thread
    while number < u32(96):
        place = u32(number // u32(3))
        chunk = u32(number - place * u32(3))
        mine = u32(1) if place < u32(32) else u32(0)
        token = token_of(place, corner, inner_step, outer_step, box_shift)
        at = u32(to + place * u32(80) + chunk * u32(16))
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), mine)
        number = u32(number + u32(128))


@device
def clear_padding(base):
    """The chunks that complete a row's last step, as 0."""
    clear_queries(u32(base + QUERIES))
    clear_keys(u32(base + TILES + u32(0)))
    clear_keys(u32(base + TILES + u32(7168)))
    clear_values(u32(base + TILES + VALUES + u32(0)))
    clear_values(u32(base + TILES + VALUES + u32(7168)))


@device
def clear_queries(to):
    """The same of one tile."""
    for i in range(1):
        place = u32(ptx.thread_index() + u32(128) * u32(i))
        mine = u32(1) if place < u32(128) else u32(0)
        at = u32(to + place * u32(144) + u32(80))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)
        at = u32(to + place * u32(144) + u32(96))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)
        at = u32(to + place * u32(144) + u32(112))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)


@device
def clear_keys(to):
    """The same of one tile."""
    for i in range(1):
        place = u32(ptx.thread_index() + u32(128) * u32(i))
        mine = u32(1) if place < u32(32) else u32(0)
        at = u32(to + place * u32(144) + u32(80))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)
        at = u32(to + place * u32(144) + u32(96))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)
        at = u32(to + place * u32(144) + u32(112))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)


@device
def clear_values(to):
    """The same of one tile."""
    for i in range(1):
        place = u32(ptx.thread_index() + u32(128) * u32(i))
        mine = u32(1) if place < u32(32) else u32(0)
        at = u32(to + place * u32(80) + u32(48))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)


@device
def add_product(sums, at, a_0, a_1, a_2, a_3, b_0, b_1):
    """(16, 8) sums += (16, 8) x (8, 8)."""
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_tf32(
        a_0, a_1, a_2, a_3, b_0, b_1,
        sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3],
    )


@device
def split_left(a_0, a_1, a_2, a_3):
    """Four numbers as ones of TF32, and the rests."""
    a_0, r_0 = ptx.split_rounded(a_0)
    a_1, r_1 = ptx.split_rounded(a_1)
    a_2, r_2 = ptx.split_rounded(a_2)
    a_3, r_3 = ptx.split_rounded(a_3)
    return a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3


@device
def split_right(b_0, b_1, b_2, b_3):
    """Four numbers as ones of TF32, and the rests."""
    b_0, s_0 = ptx.split_truncated(b_0)
    b_1, s_1 = ptx.split_truncated(b_1)
    b_2, s_2 = ptx.split_truncated(b_2)
    b_3, s_3 = ptx.split_truncated(b_3)
    return b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3


@device
def split_columns(b_0, b_1, b_2, b_3, mask):
    """Four numbers as ones of TF32, and the rests."""
    b_0, s_0 = ptx.split_by_mask(b_0, mask)
    b_1, s_1 = ptx.split_by_mask(b_1, mask)
    b_2, s_2 = ptx.split_by_mask(b_2, mask)
    b_3, s_3 = ptx.split_by_mask(b_3, mask)
    return b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3


@device
def multiply_keys(score_0, score_1, queries, keys):
    """Scores of a warp's rows with a tile's keys."""
    for i in range(16):
        score_0[i] = f32(0.0)
        score_1[i] = f32(0.0)
    multiply_keys_step(score_0, score_1, u32(queries + u32(0)), u32(keys + u32(0)))
    multiply_keys_step(score_0, score_1, u32(queries + u32(32)), u32(keys + u32(32)))
    multiply_keys_step(score_0, score_1, u32(queries + u32(64)), u32(keys + u32(64)))


@device
def multiply_keys_step(score_0, score_1, queries, keys):
    """Eight numbers of each row and column."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(u32(queries + u32(0)))
    r_0, r_1, r_2, r_3 = ptx.load_matrices(u32(queries + u32(18432)))
    a_4, a_5, a_6, a_7 = ptx.load_matrices(u32(queries + u32(2304)))
    r_4, r_5, r_6, r_7 = ptx.load_matrices(u32(queries + u32(20736)))
    multiply_keys_sixteen(
        0, score_0, score_1, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, r_0, r_1, r_2, r_3, r_4, r_5, r_6, r_7,
        u32(keys + u32(0)),
    )
    multiply_keys_sixteen(
        8, score_0, score_1, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, r_0, r_1, r_2, r_3, r_4, r_5, r_6, r_7,
        u32(keys + u32(2304)),
    )


@device
def multiply_keys_sixteen(
    at, score_0, score_1, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, r_0, r_1, r_2, r_3, r_4, r_5, r_6, r_7, keys,
):
    """Sixteen columns."""
    w_0, w_1, w_2, w_3 = ptx.load_matrices(keys)
    b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3 = split_right(w_0, w_1, w_2, w_3)
    add_product(score_0, at + 0, r_0, r_1, r_2, r_3, b_0, b_1)
    add_product(score_1, at + 0, r_4, r_5, r_6, r_7, b_0, b_1)
    add_product(score_0, at + 4, r_0, r_1, r_2, r_3, b_2, b_3)
    add_product(score_1, at + 4, r_4, r_5, r_6, r_7, b_2, b_3)
    add_product(score_0, at + 0, a_0, a_1, a_2, a_3, s_0, s_1)
    add_product(score_1, at + 0, a_4, a_5, a_6, a_7, s_0, s_1)
    add_product(score_0, at + 4, a_0, a_1, a_2, a_3, s_2, s_3)
    add_product(score_1, at + 4, a_4, a_5, a_6, a_7, s_2, s_3)
    add_product(score_0, at + 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_1, at + 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(score_0, at + 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(score_1, at + 4, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def repair_scores(score_0, score_1, queries, keys):
    """Scores that are NaN, where keys may be infinite, anew."""
    sum_0 = sum_1 = sum_2 = sum_3 = f32(0.0)
    sum_0, sum_1, sum_2, sum_3 = add_up_columns(0, score_0, sum_0, sum_1, sum_2, sum_3)
    sum_0, sum_1, sum_2, sum_3 = add_up_columns(0, score_1, sum_0, sum_1, sum_2, sum_3)
    total = sum_0 + sum_1 + sum_2 + sum_3
    if ptx.any_lane(u32(0) if total == total else u32(1)) != u32(0):
        repair_sixteen(0, score_0, score_1, queries, u32(keys + u32(0)))
        repair_sixteen(8, score_0, score_1, queries, u32(keys + u32(2304)))


@device
def add_up_columns(first, score, sum_0, sum_1, sum_2, sum_3):
    """32 columns of both rows, each number of a lane's four to a sum; NaN if one is."""
    for j in range(first, first + 4):
        sum_0 += score[4 * j + 0]
        sum_1 += score[4 * j + 1]
        sum_2 += score[4 * j + 2]
        sum_3 += score[4 * j + 3]
    return sum_0, sum_1, sum_2, sum_3


@device
def repair_sixteen(at, score_0, score_1, queries, keys):
    """Sixteen columns."""
    again_0 = cuda.local.array(8, dtype=np.float32)
    again_1 = cuda.local.array(8, dtype=np.float32)
    multiply_again(again_0, again_1, queries, keys)
    for i in range(8):
        score_0[at + i] = score_0[at + i] if score_0[at + i] == score_0[at + i] else again_0[i]
        score_1[at + i] = score_1[at + i] if score_1[at + i] == score_1[at + i] else again_1[i]


@device
def round_four(a_0, a_1, a_2, a_3):
    """Four numbers, rounded to TF32."""
    a_0 = ptx.round_tf32(a_0)
    a_1 = ptx.round_tf32(a_1)
    a_2 = ptx.round_tf32(a_2)
    a_3 = ptx.round_tf32(a_3)
    return a_0, a_1, a_2, a_3


@device
def multiply_again(again_0, again_1, queries, keys):
    """Scores of sixteen keys, by one product of TF32."""
    for i in range(8):
        again_0[i] = f32(0.0)
        again_1[i] = f32(0.0)
    multiply_again_step(again_0, again_1, u32(queries + u32(0)), u32(keys + u32(0)))
    multiply_again_step(again_0, again_1, u32(queries + u32(32)), u32(keys + u32(32)))
    multiply_again_step(again_0, again_1, u32(queries + u32(64)), u32(keys + u32(64)))


@device
def multiply_again_step(again_0, again_1, queries, keys):
    """Eight numbers of each row and column."""
    w_0, w_1, w_2, w_3 = ptx.load_matrices(u32(queries + u32(0)))
    a_0, a_1, a_2, a_3 = round_four(w_0, w_1, w_2, w_3)
    w_0, w_1, w_2, w_3 = ptx.load_matrices(u32(queries + u32(2304)))
    a_4, a_5, a_6, a_7 = round_four(w_0, w_1, w_2, w_3)
    multiply_again_sixteen(0, again_0, again_1, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, u32(keys + u32(0)))


@device
def multiply_again_sixteen(at, again_0, again_1, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, keys):
    """Sixteen columns."""
    w_0, w_1, w_2, w_3 = ptx.load_matrices(keys)
    b_0, b_1, b_2, b_3 = round_four(w_0, w_1, w_2, w_3)
    add_product(again_0, at + 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(again_1, at + 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(again_0, at + 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(again_1, at + 4, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def multiply_values(total_0, total_1, score_0, score_1, values):
    """Weights of a warp's rows times a tile's values."""
    mask = ptx.shuffle_xor_word(u32(0xFFFFE000), u32(0))
    multiply_values_step(0, total_0, total_1, score_0, score_1, u32(values + u32(0)), mask)
    multiply_values_step(8, total_0, total_1, score_0, score_1, u32(values + u32(1280)), mask)


@device
def multiply_values_step(first, total_0, total_1, score_0, score_1, values, mask):
    """16 keys and their weights."""
    ptx.warp_barrier()  # so that values of later keys are not read yet, and kept in registers
    a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3 = split_left(
        ptx.real_bits(score_0[first + 0]), ptx.real_bits(score_0[first + 2]), ptx.real_bits(score_0[first + 1]),
        ptx.real_bits(score_0[first + 3]),
    )
    a_4, a_5, a_6, a_7, r_4, r_5, r_6, r_7 = split_left(
        ptx.real_bits(score_1[first + 0]), ptx.real_bits(score_1[first + 2]), ptx.real_bits(score_1[first + 1]),
        ptx.real_bits(score_1[first + 3]),
    )
    a_8, a_9, a_10, a_11, r_8, r_9, r_10, r_11 = split_left(
        ptx.real_bits(score_0[first + 4]), ptx.real_bits(score_0[first + 6]), ptx.real_bits(score_0[first + 5]),
        ptx.real_bits(score_0[first + 7]),
    )
    a_12, a_13, a_14, a_15, r_12, r_13, r_14, r_15 = split_left(
        ptx.real_bits(score_1[first + 4]), ptx.real_bits(score_1[first + 6]), ptx.real_bits(score_1[first + 5]),
        ptx.real_bits(score_1[first + 7]),
    )
    multiply_values_sixteen(
        0, total_0, total_1, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, a_8, a_9, a_10, a_11, a_12, a_13, a_14, a_15, r_0,
        r_1, r_2, r_3, r_4, r_5, r_6, r_7, r_8, r_9, r_10, r_11, r_12, r_13, r_14, r_15, u32(values + u32(0)), mask,
    )


@device
def multiply_values_sixteen(
    at, total_0, total_1, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, a_8, a_9, a_10, a_11, a_12, a_13, a_14, a_15, r_0,
    r_1, r_2, r_3, r_4, r_5, r_6, r_7, r_8, r_9, r_10, r_11, r_12, r_13, r_14, r_15, values, mask,
):
    """Sixteen columns."""
    part_0 = cuda.local.array(8, dtype=np.float32)
    part_1 = cuda.local.array(8, dtype=np.float32)
    for i in range(8):
        part_0[i] = f32(0.0)
        part_1[i] = f32(0.0)
    x_0, y_0 = ptx.load_shared_reals2(u32(values + u32(0)))
    x_1, y_1 = ptx.load_shared_reals2(u32(values + u32(80)))
    b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3 = split_columns(
        ptx.real_bits(x_0), ptx.real_bits(x_1), ptx.real_bits(y_0), ptx.real_bits(y_1), mask,
    )
    add_product(part_0, 0, r_0, r_1, r_2, r_3, b_0, b_1)
    add_product(part_1, 0, r_4, r_5, r_6, r_7, b_0, b_1)
    add_product(part_0, 4, r_0, r_1, r_2, r_3, b_2, b_3)
    add_product(part_1, 4, r_4, r_5, r_6, r_7, b_2, b_3)
    add_product(part_0, 0, a_0, a_1, a_2, a_3, s_0, s_1)
    add_product(part_1, 0, a_4, a_5, a_6, a_7, s_0, s_1)
    add_product(part_0, 4, a_0, a_1, a_2, a_3, s_2, s_3)
    add_product(part_1, 4, a_4, a_5, a_6, a_7, s_2, s_3)
    add_product(part_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(part_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(part_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(part_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    x_0, y_0 = ptx.load_shared_reals2(u32(values + u32(640)))
    x_1, y_1 = ptx.load_shared_reals2(u32(values + u32(720)))
    b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3 = split_columns(
        ptx.real_bits(x_0), ptx.real_bits(x_1), ptx.real_bits(y_0), ptx.real_bits(y_1), mask,
    )
    add_product(part_0, 0, r_8, r_9, r_10, r_11, b_0, b_1)
    add_product(part_1, 0, r_12, r_13, r_14, r_15, b_0, b_1)
    add_product(part_0, 4, r_8, r_9, r_10, r_11, b_2, b_3)
    add_product(part_1, 4, r_12, r_13, r_14, r_15, b_2, b_3)
    add_product(part_0, 0, a_8, a_9, a_10, a_11, s_0, s_1)
    add_product(part_1, 0, a_12, a_13, a_14, a_15, s_0, s_1)
    add_product(part_0, 4, a_8, a_9, a_10, a_11, s_2, s_3)
    add_product(part_1, 4, a_12, a_13, a_14, a_15, s_2, s_3)
    add_product(part_0, 0, a_8, a_9, a_10, a_11, b_0, b_1)
    add_product(part_1, 0, a_12, a_13, a_14, a_15, b_0, b_1)
    add_product(part_0, 4, a_8, a_9, a_10, a_11, b_2, b_3)
    add_product(part_1, 4, a_12, a_13, a_14, a_15, b_2, b_3)
    for i in range(8):
        total_0[at + i] += part_0[i]
        total_1[at + i] += part_1[i]


@device
def keep_rests(queries):
    """A warp's queries become numbers of TF32, and their rests stand apart."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    first_row = u32(u32(thread >> u32(5)) * u32(32))
    number = u32(thread & u32(31))
    while number < u32(256):
        row = u32(number // u32(8))
        chunk = u32(number - row * u32(8))
        at = u32(queries + u32(first_row + row) * u32(144) + chunk * u32(16))
        w_0, w_1, w_2, w_3 = ptx.load_shared_words4(at)
        a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3 = split_left(w_0, w_1, w_2, w_3)
        infinite = u32(1) if u32(r_0 & u32(0x7FFFFFFF)) == u32(0x7F800000) else u32(0)
        a_0 = ptx.select(w_0, a_0, infinite)
        infinite = u32(1) if u32(r_1 & u32(0x7FFFFFFF)) == u32(0x7F800000) else u32(0)
        a_1 = ptx.select(w_1, a_1, infinite)
        infinite = u32(1) if u32(r_2 & u32(0x7FFFFFFF)) == u32(0x7F800000) else u32(0)
        a_2 = ptx.select(w_2, a_2, infinite)
        infinite = u32(1) if u32(r_3 & u32(0x7FFFFFFF)) == u32(0x7F800000) else u32(0)
        a_3 = ptx.select(w_3, a_3, infinite)
        ptx.store_shared_words4(at, a_0, a_1, a_2, a_3, u32(1))
        ptx.store_shared_words4(u32(at + u32(18432)), r_0, r_1, r_2, r_3, u32(1))
        number = u32(number + u32(32))
    ptx.warp_barrier()  # all lanes read them


@device
def softmax(score, scale_log2, peak, added, rescale):
    """Scores become weights relative to their row's peak; rescale is the factor for what was added up before."""
    weigh_row(0, score, scale_log2, peak, added, rescale)
    weigh_row(1, score, scale_log2, peak, added, rescale)


@device
def weigh_row(row, score, scale_log2, peak, added, rescale):
    """The same of one row."""
    top = NONE_KEPT
    top = top_of_columns(0, score, row, top)
    top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
    top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
    before = peak[row]
    now = top if top - before > f32(8.0) else before
    safe = now if now > NONE_KEPT else f32(0.0)
    peak[row] = now
    rescale[row] = ptx.exp2(before - safe)
    weights = f32(0.0)
    weights = weigh_columns(0, score, row, scale_log2, safe, weights)
    added[row] = added[row] * rescale[row] + weights


@device
def top_of_columns(first, score, row, top):
    """The largest of a row's 32 scores and ``top``."""
    for j in range(first, first + 4):
        top = ptx.maximum(top, ptx.maximum(score[4 * j + 2 * row], score[4 * j + 2 * row + 1]))
    return top


@device
def weigh_columns(first, score, row, scale_log2, safe, weights):
    """A row's 32 scores as weights, and their sum with ``weights``."""
    for j in range(first, first + 4):
        score[4 * j + 2 * row] = ptx.exp2(score[4 * j + 2 * row] * scale_log2 - safe)
        score[4 * j + 2 * row + 1] = ptx.exp2(score[4 * j + 2 * row + 1] * scale_log2 - safe)
        weights += score[4 * j + 2 * row] + score[4 * j + 2 * row + 1]
    return weights


@device
def bring_to_peak(total, rescale):
    """Bring the results to the new peaks, where any row of the warp has one."""
    if ptx.any_lane(u32(1) if (rescale[0] != f32(1.0)) or (rescale[1] != f32(1.0)) else u32(0)) != u32(0):
        rescale_columns(0, total, rescale)


@device
def rescale_columns(first, total, rescale):
    """The same of sixteen columns."""
    for j in range(first, first + 2):
        total[4 * j + 0] *= rescale[0]
        total[4 * j + 1] *= rescale[0]
        total[4 * j + 2] *= rescale[1]
        total[4 * j + 3] *= rescale[1]


@device
def store_row(row, q_idx, column, total, peak, added, out_at, out_row, lse, lse_at, seq_q):
    """out = total / sum, 0 where nothing is kept; lse = (peak + log2 sum) ln 2, then -inf."""
    real = u32(1) if q_idx < seq_q else u32(0)  # padding is 2**32 - 1 here
    row_sum = added[row] + ptx.shuffle_xor(added[row], u32(1))
    row_sum += ptx.shuffle_xor(row_sum, u32(2))
    share = ptx.reciprocal(row_sum) if row_sum != f32(0.0) else f32(0.0)
    to = out_at + u64(q_idx) * out_row
    ptx.store_reals4(to + u64(0) + u64(8) * u64(column), total[0 + 2 * row] * share, total[4 + 2 * row] * share, total[1 + 2 * row] * share, total[5 + 2 * row] * share, real if u32(2 * column) < u32(12) else u32(0))
    if lse != u64(0):
        safe = f32(0.0) if peak[row] == NONE_KEPT else peak[row]
        one_lane = real if column == u32(0) else u32(0)
        value = (safe + ptx.log2(row_sum)) * f32(0.6931471805599453)
        ptx.store_real(lse_at + u64(4) * u64(q_idx), value, one_lane)


@device
def item_of_block(heads, blocks, heads_count, batch, heads_per_wave):
    """Row block, head and batch entry of this block; longest row blocks first, wave by wave of heads."""
    item, items = ptx.block_index(), u32(blocks * heads_count * batch)
    number = u32(min(item, items - u32(1)))
    wave_items = u32(heads_per_wave * blocks)
    wave = u32(number // wave_items)
    left = u32(number - wave * wave_items)
    first_pair = u32(wave * heads_per_wave)
    width = u32(min(heads_per_wave, u32(heads_count * batch - first_pair)))
    rank = u32(left // width)
    pair = u32(first_pair + left - rank * width)
    entry = u32(pair // heads_count)
    head = ptx.load_word(heads + u64(4) * u64(pair - entry * heads_count))
    return rank, head, entry
