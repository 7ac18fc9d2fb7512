"""dv and dk and slopes of sparse attention by a warp's matrix products, for every mask of boxes.

head_dim 32, value_dim 32, float16; 64 keys x 64 queries a tile, by
128 threads: each warp has 32 rows. Left are k and v, right q and dout.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
INFINITE = f32(np.inf)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: left tiles, stages, a note a warp; in a stage: right tiles.
LEFT_1, LEFT_2 = u32(0), u32(5120)
TILES, NOTES = u32(10240), u32(32768)
RIGHT_2, LEVELS, STAGE_BYTES = u32(5120), u32(10240), u32(11264)
GIVEN = u32(33024)
PRESENT = u32(41216)


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
    total_0 = cuda.local.array(16, dtype=np.float32)
    total_1 = cuda.local.array(16, dtype=np.float32)
    for i in range(16):
        total_0[i] = f32(0.0)
        total_1[i] = f32(0.0)
    rank, owner, entry = item_of_block(blocks, heads_count, batch, heads_per_wave)
    head, first, end, _ = ptx.load_words4(owners + u64(16) * u64(owner))
    rows_at = rows + u64(256) * u64(rank)
    note = u32(base + NOTES + u32(64) * u32(ptx.thread_index() >> u32(5)))
    keep_head(u32(note + u32(48)), head)
    left_1_at = left_1 + u64(entry) * left_1_batch + u64(head) * left_1_head
    copy_left_1(left_1_at, left_1_row, u32(base + LEFT_1), rows_at, seq_left)
    left_2_at = left_2 + u64(entry) * left_2_batch + u64(head) * left_2_head
    copy_left_2(left_2_at, left_2_row, u32(base + LEFT_2), rows_at, seq_left)
    place = ptx.thread_index()
    mine = u32(1) if place < u32(64) else u32(0)
    token = ptx.load_word(rows_at + u64(4) * u64(place if mine != u32(0) else u32(0)))
    present = u32(4294967295) if token < seq_left else u32(0)
    ptx.store_shared_word(u32(base + PRESENT + u32(4) * place), present, mine)
    limit = seq_right
    while first < end:
        other = ptx.load_word(heads + u64(4) * u64(first))
        right_1_at = right_1 + u64(entry) * right_1_batch + u64(other) * right_1_head
        right_2_at = right_2 + u64(entry) * right_2_batch + u64(other) * right_2_head
        levels_at = levels + u64(16) * (u64(entry) * u64(heads_levels) + u64(other)) * u64(seq_q)
        first_image = u64(1) * u64(ptx.load_word(block + u64(32) * u64(rank) + u64(24)))
        slopes_at = slopes + u64(8192) * (u64(entry * listed + first) * u64(images) + first_image)
        ptx.block_barrier()  # nobody reads the tiles of the head before any more
        keep_notes(note, rank, entry, u32(first + u32(1)), end, right_1_at, right_2_at, levels_at, slopes_at)
        work(
            block + u64(32) * u64(rank), piece, views, bits, right_1_row, right_2_row, base, note, scale_log2, score_0,
            score_1, slope_0, slope_1, total_0, total_1, box_shift, limit,
        )
        rank, entry, first, end = ptx.load_shared_words4(note)
    head, _, _, _ = ptx.load_shared_words4(u32(note + u32(48)))
    row, column = place_in_warp(u32(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)) & u32(63)))
    row_at = rows + u64(256) * u64(rank) + u64(4) * u64(row)
    end = seq_left
    dv_at = dv + u64(entry) * dv_batch + u64(head) * dv_head
    dk_at = dk + u64(entry) * dk_batch + u64(head) * dk_head
    if ptx.any_lane(second_of_pair(ptx.thread_index())) == u32(0):
        token = ptx.load_word(row_at + u64(0))
        share = f32(1.0) if token < end else f32(0.0)
        store_dv(0, token, total_0, column, share, dv_at, dv_row, seq_left)
        token = ptx.load_word(row_at + u64(32))
        share = f32(1.0) if token < end else f32(0.0)
        store_dv(1, token, total_0, column, share, dv_at, dv_row, seq_left)
        token = ptx.load_word(row_at + u64(64))
        share = f32(1.0) if token < end else f32(0.0)
        store_dv(0, token, total_1, column, share, dv_at, dv_row, seq_left)
        token = ptx.load_word(row_at + u64(96))
        share = f32(1.0) if token < end else f32(0.0)
        store_dv(1, token, total_1, column, share, dv_at, dv_row, seq_left)
    if ptx.any_lane(second_of_pair(ptx.thread_index())) == u32(1):
        token = ptx.load_word(row_at + u64(0))
        share = scale if token < end else f32(0.0)
        store_dk(0, token, total_0, column, share, dk_at, dk_row, seq_left)
        token = ptx.load_word(row_at + u64(32))
        share = scale if token < end else f32(0.0)
        store_dk(1, token, total_0, column, share, dk_at, dk_row, seq_left)
        token = ptx.load_word(row_at + u64(64))
        share = scale if token < end else f32(0.0)
        store_dk(0, token, total_1, column, share, dk_at, dk_row, seq_left)
        token = ptx.load_word(row_at + u64(96))
        share = scale if token < end else f32(0.0)
        store_dk(1, token, total_1, column, share, dk_at, dk_row, seq_left)


@device
def work(
    block_at, piece, views, bits, right_1_row, right_2_row, base, note, scale_log2, score_0, score_1, slope_0,
    slope_1, total_0, total_1, box_shift, limit,
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
                total_0, total_1,
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
        mask = u32(u32(mask << u32(2)) | u32(status & u32(3)))
        place = u32(place + u32(1))
    else:
        corner = u32(corner + u32(64) * inner_step)
    count = u32(count - u32(1))
    return place, count, corner, inner_step, outer_step, mask


@device
def work_on_tile(mask, bits, base, tile, scale_log2, score_0, score_1, slope_0, slope_1, total_0, total_1):
    """One tile: weights, slopes, gradients."""
    part = second_of_pair(ptx.thread_index())
    left_1, right_1, left_2, right_2, _, _ = places(base, tile)
    right_1 = u32(right_1 + u32(2560) * part)
    right_2 = u32(right_2 + u32(2560) * part)
    multiply_first(score_0, score_1, left_1, right_1)
    multiply_second(slope_0, slope_1, left_2, right_2)
    row, column = place_in_warp(u32(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)) & u32(63)))
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
    thread = u32(thread & u32(63))
    image = image + u64(place_in_image(thread)) + u64(1024) * u64(part)
    keep_0 = ptx.load_shared_word(u32(base + PRESENT + u32(4) * u32(row + u32(0))))
    keep_1 = ptx.load_shared_word(u32(base + PRESENT + u32(4) * u32(row + u32(8))))
    keep_slopes(slope_0, image, keep_0, keep_1)
    keep_0 = ptx.load_shared_word(u32(base + PRESENT + u32(4) * u32(row + u32(16))))
    keep_1 = ptx.load_shared_word(u32(base + PRESENT + u32(4) * u32(row + u32(24))))
    keep_slopes(slope_1, image + u64(2048), keep_0, keep_1)
    ptx.warp_barrier()  # so that nothing of what follows is made yet, and kept in registers
    second = second_of_pair(ptx.thread_index())
    given = u32(base + GIVEN + u32(4096) * second + u32(16) * u32(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)) & u32(63)))
    if ptx.any_lane(second_of_pair(ptx.thread_index())) == u32(0):
        give_half(slope_0, u32(given + u32(0)))
        give_half(slope_1, u32(given + u32(2048)))
    if ptx.any_lane(second_of_pair(ptx.thread_index())) == u32(1):
        give_half(score_0, u32(given + u32(0)))
        keep_half(score_0, slope_0)
        give_half(score_1, u32(given + u32(2048)))
        keep_half(score_1, slope_1)
    second = second_of_pair(ptx.thread_index())
    other = u32(u32(1) - second)
    columns, _, _ = places_of_columns(base, u32(tile + RIGHT_2 * other))
    add_own(total_0, total_1, score_0, score_1, u32(columns + u32(2560) * second))
    given = u32(base + GIVEN + u32(4096) * other + u32(16) * u32(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)) & u32(63)))
    ptx.block_barrier()  # what the other warp gives is there
    add_given(total_0, total_1, u32(given + u32(0)), u32(given + u32(2048)), u32(columns + u32(2560) * other))
    to_next_images(u32(base + NOTES + u32(64) * u32(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)) >> u32(5))))


@device
def places(base, tile):
    """Where a lane's rows of the first matrices of operands begin; its row and column of scores."""
    thread = u32(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)) & u32(63))
    lane, first_row = u32(thread & u32(31)), u32(u32(thread >> u32(5)) * u32(32))
    row, column = place_in_warp(thread)
    upper = u32(u32(lane >> u32(4)) * u32(16))
    left_1 = u32(base + LEFT_1 + u32(first_row + u32(lane & u32(15))) * u32(80) + upper)
    key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
    right_1 = u32(tile + key_row * u32(80) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    left_2 = u32(base + LEFT_2 + u32(first_row + u32(lane & u32(15))) * u32(80) + upper)
    right_2 = u32(tile + RIGHT_2 + key_row * u32(80) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    return left_1, right_1, left_2, right_2, row, column


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
    chunk = u32(thread % u32(4))
    place = u32(thread // u32(4))
    while place < u32(64):
        token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
        at = u32(to + place * u32(80) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(32))


@device
def copy_left_2(first, step, to, rows_at, limit):
    """Begin to copy the left_2 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(4))
    place = u32(thread // u32(4))
    while place < u32(64):
        token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
        at = u32(to + place * u32(80) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(32))


@device
def copy_right_1(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the right_1 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(4))
    place = u32(thread // u32(4))
    while place < u32(64):
        token = u32(corner + inner_step * place)
        at = u32(to + place * u32(80) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(32))


@device
def copy_right_2(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the right_2 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(4))
    place = u32(thread // u32(4))
    while place < u32(64):
        token = u32(corner + inner_step * place)
        at = u32(to + place * u32(80) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(32))


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
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_float16(
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


@device
def multiply_first_step(score_0, score_1, left, right):
    """Sixteen numbers of each row and column."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(u32(left + u32(0)))
    a_4, a_5, a_6, a_7 = ptx.load_matrices(u32(left + u32(1280)))
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(right + u32(0)))
    add_product(score_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(score_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(score_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(right + u32(1280)))
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


@device
def multiply_second_step(slope_0, slope_1, left, right):
    """Sixteen numbers of each row and column."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(u32(left + u32(0)))
    a_4, a_5, a_6, a_7 = ptx.load_matrices(u32(left + u32(1280)))
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(right + u32(0)))
    add_product(slope_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(slope_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(slope_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(slope_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(right + u32(1280)))
    add_product(slope_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(slope_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(slope_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(slope_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def second_of_pair(thread):
    """0 for the first warp of its pair, 1 for the second."""
    return u32(thread >> u32(6))


@device
def places_of_columns(base, tile):
    """The same of what weights or slopes are multiplied with."""
    thread = u32(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)) & u32(63))
    lane = u32(thread & u32(31))
    row, column = place_in_warp(thread)
    upper = u32(u32(lane >> u32(4)) * u32(16))
    columns = u32(tile + u32(lane & u32(15)) * u32(80) + upper)
    return columns, row, column


@device
def give_half(numbers, to):
    """Rounded, to the other warp of the pair."""
    give_sixteen(0, numbers, u32(to + u32(0)))
    give_sixteen(8, numbers, u32(to + u32(1024)))


@device
def give_sixteen(first, numbers, to):
    """Those of sixteen columns."""
    word_0 = ptx.pack_float16(numbers[first + 0], numbers[first + 1])
    word_1 = ptx.pack_float16(numbers[first + 2], numbers[first + 3])
    word_2 = ptx.pack_float16(numbers[first + 4], numbers[first + 5])
    word_3 = ptx.pack_float16(numbers[first + 6], numbers[first + 7])
    ptx.store_shared_words4(to, word_0, word_1, word_2, word_3, u32(1))


@device
def keep_half(score, slope):
    """Slopes are what this warp multiplies."""
    for i in range(16):
        score[i] = slope[i]


@device
def add_own(total_0, total_1, score_0, score_1, right):
    """Weights or slopes of its own half times a right tile."""
    add_own_step(0, total_0, total_1, score_0, score_1, u32(right + u32(0)))
    add_own_step(8, total_0, total_1, score_0, score_1, u32(right + u32(1280)))


@device
def add_own_step(first, total_0, total_1, score_0, score_1, right):
    """Of sixteen columns; rounded, two a word."""
    a_0 = ptx.pack_float16(score_0[first + 0], score_0[first + 1])
    a_1 = ptx.pack_float16(score_0[first + 2], score_0[first + 3])
    a_2 = ptx.pack_float16(score_0[first + 4], score_0[first + 5])
    a_3 = ptx.pack_float16(score_0[first + 6], score_0[first + 7])
    a_4 = ptx.pack_float16(score_1[first + 0], score_1[first + 1])
    a_5 = ptx.pack_float16(score_1[first + 2], score_1[first + 3])
    a_6 = ptx.pack_float16(score_1[first + 4], score_1[first + 5])
    a_7 = ptx.pack_float16(score_1[first + 6], score_1[first + 7])
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


@device
def add_given(total_0, total_1, given_0, given_1, right):
    """The same of the half that the other warp made."""
    add_given_step(total_0, total_1, u32(given_0 + u32(0)), u32(given_1 + u32(0)), u32(right + u32(0)))
    add_given_step(total_0, total_1, u32(given_0 + u32(1024)), u32(given_1 + u32(1024)), u32(right + u32(1280)))


@device
def add_given_step(total_0, total_1, given_0, given_1, right):
    """Of sixteen columns."""
    a_0, a_1, a_2, a_3 = ptx.load_shared_words4(given_0)
    a_4, a_5, a_6, a_7 = ptx.load_shared_words4(given_1)
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
    image = u64(u64(low) | (u64(high) << u64(32))) + u64(8192)
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
    word_0 = u32(ptx.pack_float16(slope[at + 0], slope[at + 1]) & keep)
    word_1 = u32(ptx.pack_float16(slope[at + 4], slope[at + 5]) & keep)
    word_2 = u32(ptx.pack_float16(slope[at + 8], slope[at + 9]) & keep)
    word_3 = u32(ptx.pack_float16(slope[at + 12], slope[at + 13]) & keep)
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
    share = f32(1.0)
    for quarter in range(1):
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
    share = f32(1.0)
    for quarter in range(1):
        store_quarter(total, 16 * quarter + 2 * row, share, to + u64(64) * u64(quarter), real)


@device
def share_eight(at, total, share):
    """8 columns times share, 0 where share is."""
    total[at + 0] = total[at + 0] * share if share != f32(0.0) else f32(0.0)
    total[at + 1] = total[at + 1] * share if share != f32(0.0) else f32(0.0)


@device
def store_quarter(total, first, share, to, real):
    """32 columns of a row: its four lanes hand words round until each has 8 columns side by side."""
    word_0 = ptx.pack_float16(total[first + 0] * share, total[first + 1] * share)
    word_1 = ptx.pack_float16(total[first + 4] * share, total[first + 5] * share)
    word_2 = ptx.pack_float16(total[first + 8] * share, total[first + 9] * share)
    word_3 = ptx.pack_float16(total[first + 12] * share, total[first + 13] * share)
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
