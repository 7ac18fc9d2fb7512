"""Sparse attention by a warp's matrix products, generated for every mask that tables of boxes describe.

head_dim 64, value_dim 64, bfloat16; 128 queries x 64 keys a tile, by
128 threads: each warp has 32 rows. A tile is fetched while one is computed.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
NONE_KEPT = f32(-np.inf)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: queries, stages, a note a warp; in a stage: keys, values.
QUERIES, TILES, NOTES = u32(0), u32(18432), u32(55296)
VALUES, STAGE_BYTES = u32(9216), u32(18432)


def attention(
    rows, block, piece, bits, views, heads, q, k, v, out, lse, kv_lengths,
    q_row, q_head, q_batch, k_row, k_head, k_batch, v_row, v_head, v_batch, out_row, out_head, out_batch,
    scale_log2,
    blocks, heads_count, batch, heads_per_wave, heads_q, group, seq_q, seq_kv, box_shift,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    score_0 = cuda.local.array(32, dtype=np.float32)
    score_1 = cuda.local.array(32, dtype=np.float32)
    total_0 = cuda.local.array(32, dtype=np.float32)
    total_1 = cuda.local.array(32, dtype=np.float32)
    peak_0 = cuda.local.array(2, dtype=np.float32)
    peak_1 = cuda.local.array(2, dtype=np.float32)
    added_0 = cuda.local.array(2, dtype=np.float32)
    added_1 = cuda.local.array(2, dtype=np.float32)
    rescale = cuda.local.array(2, dtype=np.float32)
    for i in range(2):
        peak_0[i], added_0[i] = NONE_KEPT, f32(0.0)
    for i in range(32):
        total_0[i] = f32(0.0)
    for i in range(2):
        peak_1[i], added_1[i] = NONE_KEPT, f32(0.0)
    for i in range(32):
        total_1[i] = f32(0.0)
    rank, head, entry = item_of_block(heads, blocks, heads_count, batch, heads_per_wave)
    rows_at = rows + u64(512) * u64(rank)
    q_at = q + u64(entry) * q_batch + u64(head) * q_head
    k_at = k + u64(entry) * k_batch + u64(head // group) * k_head
    v_at = v + u64(entry) * v_batch + u64(head // group) * v_head
    note = u32(base + NOTES + u32(32) * u32(ptx.thread_index() >> u32(5)))
    keep_notes(note, rank, head, entry, k_at, v_at)
    copy_queries(q_at, q_row, u32(base + QUERIES), rows_at, seq_q)
    limit = seq_kv
    attend(
        block + u64(32) * u64(rank), piece, views, bits, k_row, v_row, base, note, scale_log2, score_0, score_1,
        total_0, total_1, peak_0, peak_1, added_0, added_1, rescale, box_shift, limit,
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
    block_at, piece, views, bits, k_row, v_row, base, note, scale_log2, score_0, score_1, total_0, total_1, peak_0,
    peak_1, added_0, added_1, rescale, box_shift, limit,
):
    """All tiles of a row block: while one is computed the next is fetched."""
    fetched = u32(base + TILES)
    place = ptx.load_word(block_at + u64(12))
    left = ptx.load_word(block_at + u64(20))
    computing = u32(0)
    stage = count = corner = inner_step = outer_step = mask = u32(0)
    while left + computing > u32(0):
        mask_now = mask
        if computing > u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
        if left > u32(0):
            place, count, corner, inner_step, outer_step, mask = next_tile(
                piece, views, place, count, corner, inner_step, outer_step, mask,
            )
            k_at, v_at = keys_and_values(note)
            copy_keys(k_at, k_row, u32(fetched + stage), corner, inner_step, outer_step, box_shift, limit)
            copy_values(v_at, v_row, u32(fetched + VALUES + stage), corner, inner_step, outer_step, box_shift, limit)
        ptx.async_commit()
        if computing > u32(0):
            attend_tile(
                mask_now, bits, base, u32(fetched + u32(STAGE_BYTES - stage)), scale_log2, score_0, score_1, total_0, total_1,
                peak_0, peak_1, added_0, added_1, rescale,
            )
        stage = u32(STAGE_BYTES - stage)
        computing = u32(1) if left > u32(0) else u32(0)
        left = u32(left - computing)


@device
def next_tile(piece, views, place, count, corner, inner_step, outer_step, mask):
    """The next tile of the piece, or the first of the next piece."""
    if count == u32(0):
        view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
        offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
        corner = u32(offset + inner_step * c1 + outer_step * c2)
        status, mask, other, _ = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
        second = u32(ptx.thread_index() // u32(64))  # which group the warp's rows are of
        status = u32(u32(status >> u32(u32(2) * second)) & u32(3))
        mask = u32(u32(ptx.select(other, mask, second) << u32(2)) | status)
        place = u32(place + u32(1))
    else:
        corner = u32(corner + u32(64) * inner_step)
    count = u32(count - u32(1))
    return place, count, corner, inner_step, outer_step, mask


@device
def attend_tile(
    mask, bits, base, tile, scale_log2, score_0, score_1, total_0, total_1, peak_0, peak_1, added_0, added_1,
    rescale,
):
    """One tile: scores, weights, and its values."""
    queries, keys, values, row, column = places(base, tile)
    if ptx.any_lane(u32(1) if u32(mask & u32(3)) != u32(0) else u32(0)) != u32(0):
        word_0 = cuda.local.array(16, dtype=np.uint32)
        word_1 = cuda.local.array(16, dtype=np.uint32)
        whole = u32(1)
        whole = u32(0) if ptx.any_lane(u32(1) if u32(mask & u32(3)) == u32(2) else u32(0)) != u32(0) else u32(1)
        settled = u32(0)
        if whole != u32(0):
            settled = weigh_at_once(word_0, word_1, peak_0, peak_1, added_0, added_1, queries, keys, scale_log2)
        if settled == u32(0):
            queries, keys, values, row, column = places(base, tile)
            multiply_keys(score_0, score_1, queries, keys)
            if ptx.any_lane(u32(1) if u32(mask & u32(3)) == u32(2) else u32(0)) != u32(0):
                mask_at = bits + u64(512) * u64(mask >> u32(2)) + u64(8) * u64(row & u32(63))
                mask_scores(score_0, mask_at + u64(0), column)
                mask_scores(score_1, mask_at + u64(128), column)
            softmax(score_0, scale_log2, peak_0, added_0, rescale)
            bring_to_peak(total_0, rescale)
            softmax(score_1, scale_log2, peak_1, added_1, rescale)
            bring_to_peak(total_1, rescale)
            pack_weights(0, score_0, word_0)
            pack_weights(8, score_0, word_0)
            pack_weights(0, score_1, word_1)
            pack_weights(8, score_1, word_1)
        multiply_values(total_0, total_1, word_0, word_1, values)


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
    values = u32(tile + VALUES + u32(lane & u32(15)) * u32(144) + upper)
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
    chunk = u32(thread % u32(8))
    place = u32(thread // u32(8))
    while place < u32(128):
        token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
        at = u32(to + place * u32(144) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(16))


@device
def copy_keys(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the keys of a tile."""
    if box_shift == u32(6) and u32(corner + u32(63) * inner_step) < limit:
        thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
        chunk = u32(thread % u32(8))
        place = u32(thread // u32(8))
        at = u32(to + place * u32(144) + chunk * u32(16))
        source = first + u64(u32(corner + inner_step * place)) * step + u64(16) * u64(chunk)
        further = u64(u32(16) * inner_step) * step
        ptx.async_copy(u32(at + u32(0)), source, u32(1))
        source += further
        ptx.async_copy(u32(at + u32(2304)), source, u32(1))
        source += further
        ptx.async_copy(u32(at + u32(4608)), source, u32(1))
        source += further
        ptx.async_copy(u32(at + u32(6912)), source, u32(1))
    else:
        thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
        chunk = u32(thread % u32(8))
        place = u32(thread // u32(8))
        while place < u32(64):
            token = token_of(place, corner, inner_step, outer_step, box_shift)
            at = u32(to + place * u32(144) + chunk * u32(16))
            inside = u32(1) if token < limit else u32(0)
            ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
            ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
            place = u32(place + u32(16))


@device
def copy_values(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the values of a tile."""
    if box_shift == u32(6) and u32(corner + u32(63) * inner_step) < limit:
        thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
        chunk = u32(thread % u32(8))
        place = u32(thread // u32(8))
        at = u32(to + place * u32(144) + chunk * u32(16))
        source = first + u64(u32(corner + inner_step * place)) * step + u64(16) * u64(chunk)
        further = u64(u32(16) * inner_step) * step
        ptx.async_copy(u32(at + u32(0)), source, u32(1))
        source += further
        ptx.async_copy(u32(at + u32(2304)), source, u32(1))
        source += further
        ptx.async_copy(u32(at + u32(4608)), source, u32(1))
        source += further
        ptx.async_copy(u32(at + u32(6912)), source, u32(1))
    else:
        thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
        chunk = u32(thread % u32(8))
        place = u32(thread // u32(8))
        while place < u32(64):
            token = token_of(place, corner, inner_step, outer_step, box_shift)
            at = u32(to + place * u32(144) + chunk * u32(16))
            inside = u32(1) if token < limit else u32(0)
            ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
            ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
            place = u32(place + u32(16))


@device
def add_product(sums, at, a_0, a_1, a_2, a_3, b_0, b_1):
    """(16, 8) sums += (16, 16) x (16, 8)."""
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_bfloat16(
        a_0, a_1, a_2, a_3, b_0, b_1,
        sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3],
    )


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
def multiply_values(total_0, total_1, word_0, word_1, values):
    """Weights of a warp's rows times a tile's values."""
    multiply_values_step(0, total_0, total_1, word_0, word_1, u32(values + u32(0)))
    multiply_values_step(4, total_0, total_1, word_0, word_1, u32(values + u32(2304)))
    multiply_values_step(8, total_0, total_1, word_0, word_1, u32(values + u32(4608)))
    multiply_values_step(12, total_0, total_1, word_0, word_1, u32(values + u32(6912)))


@device
def multiply_values_step(first, total_0, total_1, word_0, word_1, values):
    """Sixteen keys; their weights in the arrays' dtype, two a word."""
    a_0, a_1, a_2, a_3 = word_0[first + 0], word_0[first + 1], word_0[first + 2], word_0[first + 3]
    a_4, a_5, a_6, a_7 = word_1[first + 0], word_1[first + 1], word_1[first + 2], word_1[first + 3]
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(values + u32(0)))
    add_product(total_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(values + u32(32)))
    add_product(total_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(values + u32(64)))
    add_product(total_0, 16, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 16, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 20, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 20, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(values + u32(96)))
    add_product(total_0, 24, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 24, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 28, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 28, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def weigh_at_once(word_0, word_1, peak_0, peak_1, added_0, added_1, queries, keys, factor):
    """A tile's weights relative to the peaks that stand; 1 if these serve, and sums then have them."""
    part_0 = cuda.local.array(16, dtype=np.float32)
    part_1 = cuda.local.array(16, dtype=np.float32)
    sums_0 = cuda.local.array(2, dtype=np.float32)
    sums_0[0], sums_0[1] = f32(0.0), f32(0.0)
    sums_1 = cuda.local.array(2, dtype=np.float32)
    sums_1[0], sums_1[1] = f32(0.0), f32(0.0)
    multiply_part(part_0, part_1, queries, u32(keys + u32(0)))
    weigh_part(0, part_0, word_0, peak_0, sums_0, factor)
    weigh_part(0, part_1, word_1, peak_1, sums_1, factor)
    multiply_part(part_0, part_1, queries, u32(keys + u32(4608)))
    weigh_part(8, part_0, word_0, peak_0, sums_0, factor)
    weigh_part(8, part_1, word_1, peak_1, sums_1, factor)
    total = sums_0[0] + sums_0[1] + sums_1[0] + sums_1[1]
    if ptx.any_lane(u32(0) if total <= f32(256.0) else u32(1)) != u32(0):
        return u32(0)
    added_0[0] += sums_0[0]
    added_0[1] += sums_0[1]
    added_1[0] += sums_1[0]
    added_1[1] += sums_1[1]
    return u32(1)


@device
def multiply_part(part_0, part_1, queries, keys):
    """Scores of a warp's rows with some of a tile's keys."""
    for i in range(16):
        part_0[i] = f32(0.0)
        part_1[i] = f32(0.0)
    multiply_part_step(part_0, part_1, u32(queries + u32(0)), u32(keys + u32(0)))
    multiply_part_step(part_0, part_1, u32(queries + u32(32)), u32(keys + u32(32)))
    multiply_part_step(part_0, part_1, u32(queries + u32(64)), u32(keys + u32(64)))
    multiply_part_step(part_0, part_1, u32(queries + u32(96)), u32(keys + u32(96)))


@device
def multiply_part_step(part_0, part_1, queries, keys):
    """Sixteen numbers of each row and key."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(u32(queries + u32(0)))
    a_4, a_5, a_6, a_7 = ptx.load_matrices(u32(queries + u32(2304)))
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(0)))
    add_product(part_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(part_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(part_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(part_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32(2304)))
    add_product(part_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(part_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(part_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(part_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def weigh_part(at, part, word, peak, sums, factor):
    """Scores of some columns as weights, two a word, and their sums with ``sums``."""
    weigh_part_row(0, part, peak, sums, factor)
    weigh_part_row(1, part, peak, sums, factor)
    for i in range(8):
        word[at + i] = ptx.pack_bfloat16(part[2 * i + 0], part[2 * i + 1])


@device
def weigh_part_row(row, part, peak, sums, factor):
    """The same of one row."""
    safe = ptx.maximum(peak[row], f32(-3.4028234663852886e38))
    weights = sums[row]
    for j in range(4):
        part[4 * j + 2 * row] = ptx.exp2(part[4 * j + 2 * row] * factor - safe)
        part[4 * j + 2 * row + 1] = ptx.exp2(part[4 * j + 2 * row + 1] * factor - safe)
        weights += part[4 * j + 2 * row] + part[4 * j + 2 * row + 1]
    sums[row] = weights


@device
def pack_weights(first, score, word):
    """Weights in the arrays' dtype, two a word."""
    for i in range(first, first + 8):
        word[i] = ptx.pack_bfloat16(score[2 * i], score[2 * i + 1])


@device
def mask_scores(score, mask_at, column):
    """Scores of pairs that are not kept become -inf, of a thread's two rows."""
    mask_columns(0, score, 0, ptx.load_word(mask_at + u64(0)) >> column)
    mask_columns(4, score, 0, ptx.load_word(mask_at + u64(4)) >> column)
    mask_columns(0, score, 1, ptx.load_word(mask_at + u64(64)) >> column)
    mask_columns(4, score, 1, ptx.load_word(mask_at + u64(68)) >> column)


@device
def mask_columns(first, score, row, bits):
    """The same of a word's columns."""
    for j in range(first, first + 4):
        score[4 * j + 2 * row + 0] = score[4 * j + 2 * row + 0] if bits & u32(1 << (8 * (j - first) + 0)) else NONE_KEPT
        score[4 * j + 2 * row + 1] = score[4 * j + 2 * row + 1] if bits & u32(1 << (8 * (j - first) + 1)) else NONE_KEPT


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
    top = top_of_columns(4, score, row, top)
    top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
    top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
    before = peak[row]
    now = top if top - before > f32(8.0) else before
    safe = now if now > NONE_KEPT else f32(0.0)
    peak[row] = now
    rescale[row] = ptx.exp2(before - safe)
    weights = f32(0.0)
    weights = weigh_columns(0, score, row, scale_log2, safe, weights)
    weights = weigh_columns(4, score, row, scale_log2, safe, weights)
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
        rescale_columns(2, total, rescale)
        rescale_columns(4, total, rescale)
        rescale_columns(6, total, rescale)


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
    for quarter in range(2):
        store_quarter(total, 16 * quarter + 2 * row, share, to + u64(64) * u64(quarter), real)
    if lse != u64(0):
        safe = f32(0.0) if peak[row] == NONE_KEPT else peak[row]
        one_lane = real if column == u32(0) else u32(0)
        value = (safe + ptx.log2(row_sum)) * f32(0.6931471805599453)
        ptx.store_real(lse_at + u64(4) * u64(q_idx), value, one_lane)


@device
def store_quarter(total, first, share, to, real):
    """32 columns of a row: its four lanes hand words round until each has 8 columns side by side."""
    word_0 = ptx.pack_bfloat16(total[first + 0] * share, total[first + 1] * share)
    word_1 = ptx.pack_bfloat16(total[first + 4] * share, total[first + 5] * share)
    word_2 = ptx.pack_bfloat16(total[first + 8] * share, total[first + 9] * share)
    word_3 = ptx.pack_bfloat16(total[first + 12] * share, total[first + 13] * share)
    odd = ptx.thread_index() & u32(1)
    upper = ptx.thread_index() & u32(2)
    got_0 = ptx.shuffle_xor_word(ptx.select(word_0, word_1, odd), u32(1))
    got_1 = ptx.shuffle_xor_word(ptx.select(word_2, word_3, odd), u32(1))
    low_0 = ptx.select(got_0, word_0, odd)
    low_1 = ptx.select(word_1, got_0, odd)
    high_0 = ptx.select(got_1, word_2, odd)
    high_1 = ptx.select(word_3, got_1, odd)
    got_0 = ptx.shuffle_xor_word(ptx.select(low_0, high_0, upper), u32(2))
    got_1 = ptx.shuffle_xor_word(ptx.select(low_1, high_1, upper), u32(2))
    ptx.store_words4(
        to + u64(16) * u64(ptx.thread_index() & u32(3)),
        ptx.select(got_0, low_0, upper),
        ptx.select(got_1, low_1, upper),
        ptx.select(high_0, got_0, upper),
        ptx.select(high_1, got_1, upper),
        real,
    )


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
