"""dv and dk and slopes of sparse attention by a warp's matrix products, for every mask of boxes.

head_dim 64, value_dim 64, bfloat16; 128 keys x 64 queries a tile, by
128 threads: each warp has 32 rows. Left are k and v, right q and dout.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
INFINITE = f32(np.inf)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: left tiles, stages, a note a warp; in a stage: right tiles.
LEFT_1, LEFT_2 = u32(0), u32(18432)
TILES, NOTES = u32(36864), u32(75776)
RIGHT_2, LEVELS, STAGE_BYTES = u32(9216), u32(18432), u32(19456)
PRESENT = u32(76032)


def attention_gradients(
    rows, block, piece, bits, views, owners, heads, left_1, left_2, right_1, right_2, dv,
    dk, levels, kv_lengths, slopes,
    left_1_row, left_1_head, left_1_batch, left_2_row, left_2_head, left_2_batch, right_1_row, right_1_head, right_1_batch, right_2_row, right_2_head, right_2_batch,
    dv_row, dv_head, dv_batch, dk_row, dk_head, dk_batch,
    scale_log2, scale,
    blocks, heads_count, batch, heads_per_wave, heads_levels, seq_left, seq_right, seq_q, box_shift, images, listed,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    score_0 = cuda.local.array(16, dtype=np.float32)
    score_1 = cuda.local.array(16, dtype=np.float32)
    slope_0 = cuda.local.array(16, dtype=np.float32)
    slope_1 = cuda.local.array(16, dtype=np.float32)
    dv_total_0 = cuda.local.array(32, dtype=np.float32)
    dv_total_1 = cuda.local.array(32, dtype=np.float32)
    for i in range(32):
        dv_total_0[i] = f32(0.0)
        dv_total_1[i] = f32(0.0)
    dk_total_0 = cuda.local.array(32, dtype=np.float32)
    dk_total_1 = cuda.local.array(32, dtype=np.float32)
    for i in range(32):
        dk_total_0[i] = f32(0.0)
        dk_total_1[i] = f32(0.0)
    rank, owner, entry = item_of_block(blocks, heads_count, batch, heads_per_wave)
    head, first, end, _ = ptx.load_words4(owners + u64(16) * u64(owner))
    rows_at = rows + u64(512) * u64(rank)
    note = u32(base + NOTES + u32(64) * u32(ptx.thread_index() >> u32(5)))
    keep_head(u32(note + u32(48)), head)
    left_1_at = left_1 + u64(entry) * left_1_batch + u64(head) * left_1_head
    copy_left_1(left_1_at, left_1_row, u32(base + LEFT_1), rows_at, seq_left)
    left_2_at = left_2 + u64(entry) * left_2_batch + u64(head) * left_2_head
    copy_left_2(left_2_at, left_2_row, u32(base + LEFT_2), rows_at, seq_left)
    place = ptx.thread_index()
    mine = u32(1) if place < u32(128) else u32(0)
    token = ptx.load_word(rows_at + u64(4) * u64(place if mine != u32(0) else u32(0)))
    present = u32(4294967295) if token < seq_left else u32(0)
    ptx.store_shared_word(u32(base + PRESENT + u32(4) * place), present, mine)
    limit = seq_right
    while first < end:
        other = ptx.load_word(heads + u64(4) * u64(first))
        right_1_at = right_1 + u64(entry) * right_1_batch + u64(other) * right_1_head
        right_2_at = right_2 + u64(entry) * right_2_batch + u64(other) * right_2_head
        levels_at = levels + u64(16) * (u64(entry) * u64(heads_levels) + u64(other)) * u64(seq_q)
        first_image = u64(2) * u64(ptx.load_word(block + u64(32) * u64(rank) + u64(24)))
        slopes_at = slopes + u64(8192) * (u64(entry * listed + first) * u64(images) + first_image)
        ptx.block_barrier()  # nobody reads the tiles of the head before any more
        keep_notes(note, rank, entry, u32(first + u32(1)), end, right_1_at, right_2_at, levels_at, slopes_at)
        work(
            block + u64(32) * u64(rank), piece, views, bits, right_1_row, right_2_row, base, note, scale_log2, score_0,
            score_1, slope_0, slope_1, dv_total_0, dv_total_1, dk_total_0, dk_total_1, box_shift, limit,
        )
        rank, entry, first, end = ptx.load_shared_words4(note)
    head, _, _, _ = ptx.load_shared_words4(u32(note + u32(48)))
    row, column = place_in_warp(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)))
    row_at = rows + u64(512) * u64(rank) + u64(4) * u64(row)
    end = seq_left
    dv_at = dv + u64(entry) * dv_batch + u64(head) * dv_head
    dk_at = dk + u64(entry) * dk_batch + u64(head) * dk_head
    token = ptx.load_word(row_at + u64(0))
    share = f32(1.0) if token < end else f32(0.0)
    store_dv(0, token, dv_total_0, column, share, dv_at, dv_row, seq_left)
    share = scale if token < end else f32(0.0)
    store_dk(0, token, dk_total_0, column, share, dk_at, dk_row, seq_left)
    token = ptx.load_word(row_at + u64(32))
    share = f32(1.0) if token < end else f32(0.0)
    store_dv(1, token, dv_total_0, column, share, dv_at, dv_row, seq_left)
    share = scale if token < end else f32(0.0)
    store_dk(1, token, dk_total_0, column, share, dk_at, dk_row, seq_left)
    token = ptx.load_word(row_at + u64(64))
    share = f32(1.0) if token < end else f32(0.0)
    store_dv(0, token, dv_total_1, column, share, dv_at, dv_row, seq_left)
    share = scale if token < end else f32(0.0)
    store_dk(0, token, dk_total_1, column, share, dk_at, dk_row, seq_left)
    token = ptx.load_word(row_at + u64(96))
    share = f32(1.0) if token < end else f32(0.0)
    store_dv(1, token, dv_total_1, column, share, dv_at, dv_row, seq_left)
    share = scale if token < end else f32(0.0)
    store_dk(1, token, dk_total_1, column, share, dk_at, dk_row, seq_left)


@device
def work(
    block_at, piece, views, bits, right_1_row, right_2_row, base, note, scale_log2, score_0, score_1, slope_0,
    slope_1, dv_total_0, dv_total_1, dk_total_0, dk_total_1, box_shift, limit,
):
    """All tiles of a row block with one head."""
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
            right_1_at, right_2_at = right_arrays(note)
            levels_at = levels_of_head(note)
            copy_right_1(right_1_at, right_1_row, u32(fetched + stage), corner, inner_step, outer_step, box_shift, limit)
            copy_right_2(right_2_at, right_2_row, u32(fetched + RIGHT_2 + stage), corner, inner_step, outer_step, box_shift, limit)
            copy_levels(levels_at, u32(fetched + LEVELS + stage), corner, inner_step, outer_step, box_shift, limit)
        ptx.async_commit()
        if computing > u32(0):
            work_on_tile(
                mask_now, bits, base, u32(fetched + u32(STAGE_BYTES - stage)), scale_log2, score_0, score_1, slope_0, slope_1,
                dv_total_0, dv_total_1, dk_total_0, dk_total_1,
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
def work_on_tile(
    mask, bits, base, tile, scale_log2, score_0, score_1, slope_0, slope_1, dv_total_0, dv_total_1, dk_total_0,
    dk_total_1,
):
    """One tile: weights, slopes, gradients."""
    if ptx.any_lane(u32(1) if u32(mask & u32(3)) != u32(0) else u32(0)) != u32(0):
        part = u32(0)
        while part < u32(2):
            work_on_part(
                part, mask, bits, base, tile, scale_log2, score_0, score_1, slope_0, slope_1, dv_total_0, dv_total_1,
                dk_total_0, dk_total_1,
            )
            part = u32(part + u32(1))
    to_next_images(u32(base + NOTES + u32(64) * u32(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)) >> u32(5))))


@device
def work_on_part(
    part, mask, bits, base, tile, scale_log2, score_0, score_1, slope_0, slope_1, dv_total_0, dv_total_1,
    dk_total_0, dk_total_1,
):
    """The same of some of its columns."""
    left_1, right_1, left_2, right_2, _, _ = places(base, tile)
    right_1 = u32(right_1 + u32(4608) * part)
    right_2 = u32(right_2 + u32(4608) * part)
    multiply_first(score_0, score_1, left_1, right_1)
    multiply_second(slope_0, slope_1, left_2, right_2)
    row, column = place_in_warp(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)))
    levels = u32(tile + LEVELS + u32(16) * u32(column + u32(32) * part))
    weigh(score_0, slope_0, scale_log2, levels)
    weigh(score_1, slope_1, scale_log2, levels)
    if ptx.any_lane(u32(1) if u32(mask & u32(3)) == u32(2) else u32(0)) != u32(0):
        mask_at = bits + u64(512) * u64(mask >> u32(2)) + u64(8) * u64(row & u32(63)) + u64(4) * u64(part)
        mask_scores(score_0, mask_at + u64(0), column)
        mask_scores(score_1, mask_at + u64(128), column)
        mask_scores(slope_0, mask_at + u64(0), column)
        mask_scores(slope_1, mask_at + u64(128), column)
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    image = images_of_tile(u32(base + NOTES + u32(64) * u32(thread >> u32(5))))
    image = image + u64(place_in_image(thread)) + u64(1024) * u64(part)
    keep_0 = ptx.load_shared_word(u32(base + PRESENT + u32(4) * u32(row + u32(0))))
    keep_1 = ptx.load_shared_word(u32(base + PRESENT + u32(4) * u32(row + u32(8))))
    keep_slopes(slope_0, image, keep_0, keep_1)
    keep_0 = ptx.load_shared_word(u32(base + PRESENT + u32(4) * u32(row + u32(16))))
    keep_1 = ptx.load_shared_word(u32(base + PRESENT + u32(4) * u32(row + u32(24))))
    keep_slopes(slope_1, image + u64(2048), keep_0, keep_1)
    columns_2, columns_1, _, _ = places_of_columns(base, tile)
    columns_2 = u32(columns_2 + u32(4608) * part)
    columns_1 = u32(columns_1 + u32(4608) * part)
    add_dv(dv_total_0, dv_total_1, score_0, score_1, columns_2)
    add_dk(dk_total_0, dk_total_1, slope_0, slope_1, columns_1)


@device
def places(base, tile):
    """Where a lane's rows of the first matrices of operands begin; its row and column of scores."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    lane, first_row = u32(thread & u32(31)), u32(u32(thread >> u32(5)) * u32(32))
    row, column = place_in_warp(thread)
    upper = u32(u32(lane >> u32(4)) * u32(16))
    left_1 = u32(base + LEFT_1 + u32(first_row + u32(lane & u32(15))) * u32(144) + upper)
    key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
    right_1 = u32(tile + key_row * u32(144) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    left_2 = u32(base + LEFT_2 + u32(first_row + u32(lane & u32(15))) * u32(144) + upper)
    right_2 = u32(tile + RIGHT_2 + key_row * u32(144) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    return left_1, right_1, left_2, right_2, row, column


@device
def places_of_columns(base, tile):
    """The same of what weights and slopes are multiplied with."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    lane = u32(thread & u32(31))
    row, column = place_in_warp(thread)
    upper = u32(u32(lane >> u32(4)) * u32(16))
    columns_2 = u32(tile + RIGHT_2 + u32(lane & u32(15)) * u32(144) + upper)
    columns_1 = u32(tile + u32(lane & u32(15)) * u32(144) + upper)
    return columns_2, columns_1, row, column


@device
def place_in_warp(thread):
    """A thread's first row of the block's, and its first column of each eight."""
    row = u32(u32(thread >> u32(5)) * u32(32) + u32(u32(thread & u32(31)) >> u32(2)))
    return row, u32(u32(thread & u32(3)) * u32(2))


@device
def keep_head(note, head):
    """For each warp: whose gradients it makes."""
    first = u32(1) if u32(ptx.thread_index() & u32(31)) == u32(0) else u32(0)
    ptx.store_shared_words4(note, head, u32(0), u32(0), u32(0), first)
    ptx.warp_barrier()


@device
def keep_notes(note, rank, entry, following, end, right_1_at, right_2_at, levels_at, slopes_at):
    """Its item, which heads are left, and where right arrays are."""
    first = u32(1) if u32(ptx.thread_index() & u32(31)) == u32(0) else u32(0)
    ptx.store_shared_words4(note, rank, entry, following, end, first)
    ptx.store_shared_words4(u32(note + u32(16)), u32(right_1_at & u64(4294967295)), u32(right_1_at >> u64(32)), u32(right_2_at & u64(4294967295)), u32(right_2_at >> u64(32)), first)
    ptx.store_shared_words4(u32(note + u32(32)), u32(levels_at & u64(4294967295)), u32(levels_at >> u64(32)), u32(slopes_at & u64(4294967295)), u32(slopes_at >> u64(32)), first)
    ptx.warp_barrier()


@device
def right_arrays(note):
    """Where the right arrays of the head are."""
    low_1, high_1, low_2, high_2 = ptx.load_shared_words4(u32(note + u32(16)))
    return u64(u64(low_1) | (u64(high_1) << u64(32))), u64(u64(low_2) | (u64(high_2) << u64(32)))


@device
def levels_of_head(note):
    """Where lse and delta of the head's queries are."""
    low, high, _, _ = ptx.load_shared_words4(u32(note + u32(32)))
    return u64(u64(low) | (u64(high) << u64(32)))


@device
def token_of(place, corner, inner_step, outer_step, box_shift):
    """The token at a place of the box that begins at ``corner``."""
    line = u32(place >> box_shift)
    return u32(corner + inner_step * u32(place - u32(line << box_shift)) + outer_step * line)


@device
def copy_left_1(first, step, to, rows_at, limit):
    """Begin to copy the left_1 of a tile."""
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
def copy_left_2(first, step, to, rows_at, limit):
    """Begin to copy the left_2 of a tile."""
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
def copy_right_1(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the right_1 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(8))
    place = u32(thread // u32(8))
    while place < u32(64):
        token = u32(corner + inner_step * place)
        at = u32(to + place * u32(144) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(16))


@device
def copy_right_2(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the right_2 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(8))
    place = u32(thread // u32(8))
    while place < u32(64):
        token = u32(corner + inner_step * place)
        at = u32(to + place * u32(144) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(16))


@device
def copy_levels(first, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy lse and delta of a tile's queries; 0 beyond the last."""
    place = ptx.thread_index()
    mine = u32(1) if place < u32(64) else u32(0)
    place = place if mine != u32(0) else u32(0)
    token = u32(corner + inner_step * place)
    inside = mine if token < limit else u32(0)
    at = u32(to + place * u32(16))
    ptx.async_copy(at, first + u64(16) * u64(token), inside)
    ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(mine - inside))


@device
def add_product(sums, at, a_0, a_1, a_2, a_3, b_0, b_1):
    """(16, 8) sums += (16, 16) x (16, 8)."""
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_bfloat16(
        a_0, a_1, a_2, a_3, b_0, b_1,
        sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3],
    )


@device
def multiply_first(score_0, score_1, left, right):
    """Scores of a warp's rows with a right tile's."""
    for i in range(16):
        score_0[i] = f32(0.0)
        score_1[i] = f32(0.0)
    multiply_first_step(score_0, score_1, u32(left + u32(0)), u32(right + u32(0)))
    multiply_first_step(score_0, score_1, u32(left + u32(32)), u32(right + u32(32)))
    multiply_first_step(score_0, score_1, u32(left + u32(64)), u32(right + u32(64)))
    multiply_first_step(score_0, score_1, u32(left + u32(96)), u32(right + u32(96)))


@device
def multiply_first_step(score_0, score_1, left, right):
    """Sixteen numbers of each row and column."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(u32(left + u32(0)))
    a_4, a_5, a_6, a_7 = ptx.load_matrices(u32(left + u32(2304)))
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(right + u32(0)))
    add_product(score_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(score_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(score_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(right + u32(2304)))
    add_product(score_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(score_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(score_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def multiply_second(slope_0, slope_1, left, right):
    """dP of a warp's rows and a right tile's."""
    for i in range(16):
        slope_0[i] = f32(0.0)
        slope_1[i] = f32(0.0)
    multiply_second_step(slope_0, slope_1, u32(left + u32(0)), u32(right + u32(0)))
    multiply_second_step(slope_0, slope_1, u32(left + u32(32)), u32(right + u32(32)))
    multiply_second_step(slope_0, slope_1, u32(left + u32(64)), u32(right + u32(64)))
    multiply_second_step(slope_0, slope_1, u32(left + u32(96)), u32(right + u32(96)))


@device
def multiply_second_step(slope_0, slope_1, left, right):
    """Sixteen numbers of each row and column."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(u32(left + u32(0)))
    a_4, a_5, a_6, a_7 = ptx.load_matrices(u32(left + u32(2304)))
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(right + u32(0)))
    add_product(slope_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(slope_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(slope_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(slope_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(right + u32(2304)))
    add_product(slope_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(slope_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(slope_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(slope_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def add_dv(total_0, total_1, score_0, score_1, right):
    """Weights of a warp's rows times a right tile."""
    add_dv_step(0, total_0, total_1, score_0, score_1, u32(right + u32(0)))
    add_dv_step(8, total_0, total_1, score_0, score_1, u32(right + u32(2304)))


@device
def add_dv_step(first, total_0, total_1, score_0, score_1, right):
    """Of sixteen columns; rounded, two a word."""
    a_0 = ptx.pack_bfloat16(score_0[first + 0], score_0[first + 1])
    a_1 = ptx.pack_bfloat16(score_0[first + 2], score_0[first + 3])
    a_2 = ptx.pack_bfloat16(score_0[first + 4], score_0[first + 5])
    a_3 = ptx.pack_bfloat16(score_0[first + 6], score_0[first + 7])
    a_4 = ptx.pack_bfloat16(score_1[first + 0], score_1[first + 1])
    a_5 = ptx.pack_bfloat16(score_1[first + 2], score_1[first + 3])
    a_6 = ptx.pack_bfloat16(score_1[first + 4], score_1[first + 5])
    a_7 = ptx.pack_bfloat16(score_1[first + 6], score_1[first + 7])
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(0)))
    add_product(total_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(32)))
    add_product(total_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(64)))
    add_product(total_0, 16, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 16, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 20, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 20, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(96)))
    add_product(total_0, 24, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 24, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 28, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 28, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def add_dk(total_0, total_1, slope_0, slope_1, right):
    """Slopes of a warp's rows times a right tile."""
    add_dk_step(0, total_0, total_1, slope_0, slope_1, u32(right + u32(0)))
    add_dk_step(8, total_0, total_1, slope_0, slope_1, u32(right + u32(2304)))


@device
def add_dk_step(first, total_0, total_1, slope_0, slope_1, right):
    """Of sixteen columns; rounded, two a word."""
    a_0 = ptx.pack_bfloat16(slope_0[first + 0], slope_0[first + 1])
    a_1 = ptx.pack_bfloat16(slope_0[first + 2], slope_0[first + 3])
    a_2 = ptx.pack_bfloat16(slope_0[first + 4], slope_0[first + 5])
    a_3 = ptx.pack_bfloat16(slope_0[first + 6], slope_0[first + 7])
    a_4 = ptx.pack_bfloat16(slope_1[first + 0], slope_1[first + 1])
    a_5 = ptx.pack_bfloat16(slope_1[first + 2], slope_1[first + 3])
    a_6 = ptx.pack_bfloat16(slope_1[first + 4], slope_1[first + 5])
    a_7 = ptx.pack_bfloat16(slope_1[first + 6], slope_1[first + 7])
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(0)))
    add_product(total_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(32)))
    add_product(total_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(64)))
    add_product(total_0, 16, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 16, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 20, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 20, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(96)))
    add_product(total_0, 24, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 24, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 28, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 28, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def mask_scores(score, mask_at, column):
    """Numbers of pairs that are not kept become 0, of a thread's two rows."""
    mask_columns(0, score, 0, ptx.load_word(mask_at + u64(0)) >> column)
    mask_columns(0, score, 1, ptx.load_word(mask_at + u64(64)) >> column)


@device
def mask_columns(first, score, row, bits):
    """The same of a word's columns."""
    for j in range(first, first + 4):
        score[4 * j + 2 * row + 0] = score[4 * j + 2 * row + 0] if bits & u32(1 << (8 * (j - first) + 0)) else f32(0.0)
        score[4 * j + 2 * row + 1] = score[4 * j + 2 * row + 1] if bits & u32(1 << (8 * (j - first) + 1)) else f32(0.0)


@device
def weigh(score, slope, scale_log2, levels):
    """Scores become weights, and dP slopes."""
    weigh_columns(0, score, slope, scale_log2, levels)


@device
def weigh_columns(first, score, slope, scale_log2, levels):
    """The same of 32 columns."""
    for j in range(first, first + 4):
        level, change = ptx.load_shared_reals2(levels + u32(16) * u32(8 * j + 0))
        score[4 * j + 0] = ptx.exp2(score[4 * j + 0] * scale_log2 - level)
        slope[4 * j + 0] = score[4 * j + 0] * (slope[4 * j + 0] - change)
        score[4 * j + 2] = ptx.exp2(score[4 * j + 2] * scale_log2 - level)
        slope[4 * j + 2] = score[4 * j + 2] * (slope[4 * j + 2] - change)
        level, change = ptx.load_shared_reals2(levels + u32(16) * u32(8 * j + 1))
        score[4 * j + 1] = ptx.exp2(score[4 * j + 1] * scale_log2 - level)
        slope[4 * j + 1] = score[4 * j + 1] * (slope[4 * j + 1] - change)
        score[4 * j + 3] = ptx.exp2(score[4 * j + 3] * scale_log2 - level)
        slope[4 * j + 3] = score[4 * j + 3] * (slope[4 * j + 3] - change)


@device
def images_of_tile(note):
    """Where the tile's images go."""
    _, _, low, high = ptx.load_shared_words4(u32(note + u32(32)))
    return u64(u64(low) | (u64(high) << u64(32)))


@device
def to_next_images(note):
    """Where the next tile's images go."""
    levels_low, levels_high, low, high = ptx.load_shared_words4(u32(note + u32(32)))
    ptx.warp_barrier()  # every lane has read it
    image = u64(u64(low) | (u64(high) << u64(32))) + u64(16384)
    low, high = u32(image & u64(4294967295)), u32(image >> u64(32))
    first = u32(1) if u32(ptx.thread_index() & u32(31)) == u32(0) else u32(0)
    ptx.store_shared_words4(u32(note + u32(32)), levels_low, levels_high, low, high, first)
    ptx.warp_barrier()


@device
def place_in_image(thread):
    """Where in a row block's images this thread's words of its first rows are."""
    lane = u32(thread & u32(31))
    return u32(u32(thread >> u32(5)) * u32(4096) + u32(16) * u32(lane ^ u32(lane >> u32(3))))


@device
def keep_slopes(slope, image, keep_0, keep_1):
    """Slopes of sixteen keys, in the arrays' dtype, to memory."""
    keep_words(0, slope, image + u64(0), keep_0)
    keep_words(2, slope, image + u64(512), keep_1)


@device
def keep_words(at, slope, to, keep):
    """Four of a row."""
    word_0 = u32(ptx.pack_bfloat16(slope[at + 0], slope[at + 1]) & keep)
    word_1 = u32(ptx.pack_bfloat16(slope[at + 4], slope[at + 5]) & keep)
    word_2 = u32(ptx.pack_bfloat16(slope[at + 8], slope[at + 9]) & keep)
    word_3 = u32(ptx.pack_bfloat16(slope[at + 12], slope[at + 13]) & keep)
    ptx.store_words4(to, word_0, word_1, word_2, word_3, u32(1))


@device
def store_dv(row, token, total, column, share, to_first, step, seq_left):
    """A row of dv: its sums times share, 0 where share is."""
    real = u32(1) if token < seq_left else u32(0)  # padding is 2**32 - 1 here
    to = to_first + u64(token) * step
    share_eight(0 + 2 * row, total, share)
    share_eight(4 + 2 * row, total, share)
    share_eight(8 + 2 * row, total, share)
    share_eight(12 + 2 * row, total, share)
    share_eight(16 + 2 * row, total, share)
    share_eight(20 + 2 * row, total, share)
    share_eight(24 + 2 * row, total, share)
    share_eight(28 + 2 * row, total, share)
    share = f32(1.0)
    for quarter in range(2):
        store_quarter(total, 16 * quarter + 2 * row, share, to + u64(64) * u64(quarter), real)


@device
def store_dk(row, token, total, column, share, to_first, step, seq_left):
    """A row of dk: its sums times share, 0 where share is."""
    real = u32(1) if token < seq_left else u32(0)  # padding is 2**32 - 1 here
    to = to_first + u64(token) * step
    share_eight(0 + 2 * row, total, share)
    share_eight(4 + 2 * row, total, share)
    share_eight(8 + 2 * row, total, share)
    share_eight(12 + 2 * row, total, share)
    share_eight(16 + 2 * row, total, share)
    share_eight(20 + 2 * row, total, share)
    share_eight(24 + 2 * row, total, share)
    share_eight(28 + 2 * row, total, share)
    share = f32(1.0)
    for quarter in range(2):
        store_quarter(total, 16 * quarter + 2 * row, share, to + u64(64) * u64(quarter), real)


@device
def share_eight(at, total, share):
    """8 columns times share, 0 where share is."""
    total[at + 0] = total[at + 0] * share if share != f32(0.0) else f32(0.0)
    total[at + 1] = total[at + 1] * share if share != f32(0.0) else f32(0.0)


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
def item_of_block(blocks, heads_count, batch, heads_per_wave):
    """Row block, owner and batch entry of this block; longest row blocks first, wave by wave of owners."""
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
    return rank, u32(pair - entry * heads_count), entry
