"""dq of sparse attention by a warp's matrix products, for every mask of boxes.

head_dim 20, value_dim 12, float32 by three products of TF32; 64 queries x 16 keys a tile, by
128 threads: each warp has 16 rows. Left are q and dout, right k and v.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
INFINITE = f32(np.inf)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: left tiles, stages, a note a warp; in a stage: right tiles.
LEFT_1, LEFT_2 = u32(0), u32(9216)
TILES, NOTES = u32(15360), u32(18944)
RIGHT_2, LEVELS, STAGE_BYTES = u32(2304), u32(14336), u32(3584)


def attention_gradients(
    rows, block, piece, bits, views, owners, heads, left_1, left_2, right_1, right_2, dq,
    levels, kv_lengths,
    left_1_row, left_1_head, left_1_batch, left_2_row, left_2_head, left_2_batch, right_1_row, right_1_head, right_1_batch, right_2_row, right_2_head, right_2_batch,
    dq_row, dq_head, dq_batch,
    scale_log2, scale,
    blocks, heads_count, batch, heads_per_wave, heads_levels, seq_left, seq_right, seq_q, box_shift,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    score_0 = cuda.local.array(8, dtype=np.float32)
    slope_0 = cuda.local.array(8, dtype=np.float32)
    dq_total_0 = cuda.local.array(16, dtype=np.float32)
    for i in range(16):
        dq_total_0[i] = f32(0.0)
    rank, owner, entry = item_of_block(blocks, heads_count, batch, heads_per_wave)
    head, first, end, _ = ptx.load_words4(owners + u64(16) * u64(owner))
    rows_at = rows + u64(256) * u64(rank)
    note = u32(base + NOTES + u32(64) * u32(ptx.thread_index() >> u32(5)))
    keep_head(u32(note + u32(48)), head)
    left_1_at = left_1 + u64(entry) * left_1_batch + u64(head) * left_1_head
    copy_left_1(left_1_at, left_1_row, u32(base + LEFT_1), rows_at, seq_left)
    left_2_at = left_2 + u64(entry) * left_2_batch + u64(head) * left_2_head
    copy_left_2(left_2_at, left_2_row, u32(base + LEFT_2), rows_at, seq_left)
    clear_padding(base)
    levels_at = levels + u64(16) * (u64(entry) * u64(heads_levels) + u64(head)) * u64(seq_q)
    copy_levels(levels_at, u32(base + LEVELS), rows_at, seq_left)
    limit = seq_right
    while first < end:
        other = ptx.load_word(heads + u64(4) * u64(first))
        right_1_at = right_1 + u64(entry) * right_1_batch + u64(other) * right_1_head
        right_2_at = right_2 + u64(entry) * right_2_batch + u64(other) * right_2_head
        ptx.block_barrier()  # nobody reads the tiles of the head before any more
        keep_notes(note, rank, entry, u32(first + u32(1)), end, right_1_at, right_2_at)
        work(
            block + u64(32) * u64(rank), piece, views, right_1_row, right_2_row, base, note, scale_log2, score_0, slope_0,
            dq_total_0, box_shift, limit,
        )
        rank, entry, first, end = ptx.load_shared_words4(note)
    ptx.async_commit()  # lse and delta, of a row block without tiles
    wait_for_copies()
    ptx.block_barrier()
    head, _, _, _ = ptx.load_shared_words4(u32(note + u32(48)))
    row, column = place_in_warp(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)))
    row_at = rows + u64(256) * u64(rank) + u64(4) * u64(row)
    dq_at = dq + u64(entry) * dq_batch + u64(head) * dq_head
    token = ptx.load_word(row_at + u64(0))
    level, _ = ptx.load_shared_reals2(base + LEVELS + u32(16) * u32(row + u32(0)))
    share = scale if level < INFINITE else f32(0.0)
    store_dq(0, token, dq_total_0, column, share, dq_at, dq_row, seq_left)
    token = ptx.load_word(row_at + u64(32))
    level, _ = ptx.load_shared_reals2(base + LEVELS + u32(16) * u32(row + u32(8)))
    share = scale if level < INFINITE else f32(0.0)
    store_dq(1, token, dq_total_0, column, share, dq_at, dq_row, seq_left)


@device
def work(
    block_at, piece, views, right_1_row, right_2_row, base, note, scale_log2, score_0, slope_0, dq_total_0,
    box_shift, limit,
):
    """All tiles of a row block with one head."""
    fetched = u32(base + TILES)
    place = ptx.load_word(block_at + u64(12))
    left = ptx.load_word(block_at + u64(20))
    stage = count = corner = inner_step = outer_step = u32(0)
    while left > u32(0):
        ptx.block_barrier()  # nobody reads the tile before any more
        place, count, corner, inner_step, outer_step = next_tile(piece, views, place, count, corner, inner_step, outer_step)
        right_1_at, right_2_at = right_arrays(note)
        copy_right_1(right_1_at, right_1_row, u32(fetched + stage), corner, inner_step, outer_step, box_shift, limit)
        copy_right_2(right_2_at, right_2_row, u32(fetched + RIGHT_2 + stage), corner, inner_step, outer_step, box_shift, limit)
        ptx.async_commit()
        wait_for_copies()
        ptx.block_barrier()  # the tile is there
        work_on_tile(base, fetched, scale_log2, score_0, slope_0, dq_total_0)
        left = u32(left - u32(1))


@device
def next_tile(piece, views, place, count, corner, inner_step, outer_step):
    """The next tile of the piece, or the first of the next piece."""
    if count == u32(0):
        view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
        offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
        corner = u32(offset + inner_step * c1 + outer_step * c2)
        place = u32(place + u32(1))
    else:
        corner = u32(corner + u32(16) * inner_step)
    count = u32(count - u32(1))
    return place, count, corner, inner_step, outer_step


@device
def work_on_tile(base, tile, scale_log2, score_0, slope_0, dq_total_0):
    """One tile: weights, slopes, gradients."""
    left_1, right_1, left_2, right_2, _, _ = places(base, tile)
    multiply_first(score_0, left_1, right_1)
    row, column = place_in_warp(ptx.shuffle_xor_word(ptx.thread_index(), u32(0)))
    levels = u32(base + LEVELS + u32(16) * row)
    weigh(score_0, scale_log2, u32(levels + u32(0)))
    multiply_second(slope_0, left_2, right_2)
    make_slopes(slope_0, score_0, u32(levels + u32(0)))
    columns_1, _, _ = places_of_columns(base, tile)
    add_dq(dq_total_0, slope_0, columns_1)


@device
def places(base, tile):
    """Where a lane's rows of the first matrices of operands begin; its row and column of scores."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    lane, first_row = u32(thread & u32(31)), u32(u32(thread >> u32(5)) * u32(16))
    row, column = place_in_warp(thread)
    upper = u32(u32(lane >> u32(4)) * u32(16))
    left_1 = u32(base + LEFT_1 + u32(first_row + u32(lane & u32(15))) * u32(144) + upper)
    key_row = u32(u32(u32(lane >> u32(4)) * u32(8)) + u32(lane & u32(7)))
    right_1 = u32(tile + key_row * u32(144) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    left_2 = u32(base + LEFT_2 + u32(first_row + u32(lane & u32(15))) * u32(80) + upper)
    right_2 = u32(tile + RIGHT_2 + key_row * u32(80) + u32(u32(lane >> u32(3)) & u32(1)) * u32(16))
    return left_1, right_1, left_2, right_2, row, column


@device
def places_of_columns(base, tile):
    """The same of what weights and slopes are multiplied with."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    lane = u32(thread & u32(31))
    row, column = place_in_warp(thread)
    upper = u32(u32(lane >> u32(4)) * u32(16))
    columns_1 = u32(tile + u32(column * u32(144)) + u32(lane >> u32(2)) * u32(8))
    return columns_1, row, column


@device
def place_in_warp(thread):
    """A thread's first row of the block's, and its first column of each eight."""
    row = u32(u32(thread >> u32(5)) * u32(16) + u32(u32(thread & u32(31)) >> u32(2)))
    return row, u32(u32(thread & u32(3)) * u32(2))


@device
def keep_head(note, head):
    """For each warp: whose gradients it makes."""
    first = u32(1) if u32(ptx.thread_index() & u32(31)) == u32(0) else u32(0)
    ptx.store_shared_words4(note, head, u32(0), u32(0), u32(0), first)
    ptx.warp_barrier()


@device
def keep_notes(note, rank, entry, following, end, right_1_at, right_2_at):
    """Its item, which heads are left, and where right arrays are."""
    first = u32(1) if u32(ptx.thread_index() & u32(31)) == u32(0) else u32(0)
    ptx.store_shared_words4(note, rank, entry, following, end, first)
    ptx.store_shared_words4(u32(note + u32(16)), u32(right_1_at & u64(4294967295)), u32(right_1_at >> u64(32)), u32(right_2_at & u64(4294967295)), u32(right_2_at >> u64(32)), first)
    ptx.warp_barrier()


@device
def right_arrays(note):
    """Where the right arrays of the head are."""
    low_1, high_1, low_2, high_2 = ptx.load_shared_words4(u32(note + u32(16)))
    return u64(u64(low_1) | (u64(high_1) << u64(32))), u64(u64(low_2) | (u64(high_2) << u64(32)))


@device
def token_of(place, corner, inner_step, outer_step, box_shift):
    """The token at a place of the box that begins at ``corner``."""
    line = u32(place >> box_shift)
    return u32(corner + inner_step * u32(place - u32(line << box_shift)) + outer_step * line)


@device
def copy_left_1(first, step, to, rows_at, limit):
    """Begin to copy the left_1 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    number = thread
    while number < u32(320):
        place = u32(number // u32(5))
        chunk = u32(number - place * u32(5))
        mine = u32(1) if place < u32(64) else u32(0)
        token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
        at = u32(to + place * u32(144) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside & mine)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside) & mine)
        number = u32(number + u32(128))


@device
def copy_left_2(first, step, to, rows_at, limit):
    """Begin to copy the left_2 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    number = thread
    while number < u32(192):
        place = u32(number // u32(3))
        chunk = u32(number - place * u32(3))
        mine = u32(1) if place < u32(64) else u32(0)
        token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
        at = u32(to + place * u32(80) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside & mine)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside) & mine)
        number = u32(number + u32(128))


@device
def copy_right_1(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the right_1 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    number = thread
    while number < u32(80):
        place = u32(number // u32(5))
        chunk = u32(number - place * u32(5))
        mine = u32(1) if place < u32(16) else u32(0)
        token = token_of(place, corner, inner_step, outer_step, box_shift)
        at = u32(to + place * u32(144) + chunk * u32(16))
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), mine)
        number = u32(number + u32(128))


@device
def copy_right_2(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the right_2 of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    number = thread
    while number < u32(48):
        place = u32(number // u32(3))
        chunk = u32(number - place * u32(3))
        mine = u32(1) if place < u32(16) else u32(0)
        token = token_of(place, corner, inner_step, outer_step, box_shift)
        at = u32(to + place * u32(80) + chunk * u32(16))
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), mine)
        number = u32(number + u32(128))


@device
def clear_padding(base):
    """The chunks that complete a row's last step, as 0."""
    clear_left_1(u32(base + LEFT_1))
    clear_left_2(u32(base + LEFT_2))
    clear_right_1(u32(base + TILES + u32(0)))
    clear_right_2(u32(base + TILES + RIGHT_2 + u32(0)))


@device
def clear_left_1(to):
    """The same of one tile."""
    for i in range(1):
        place = u32(ptx.thread_index() + u32(128) * u32(i))
        mine = u32(1) if place < u32(64) else u32(0)
        at = u32(to + place * u32(144) + u32(80))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)
        at = u32(to + place * u32(144) + u32(96))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)
        at = u32(to + place * u32(144) + u32(112))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)


@device
def clear_left_2(to):
    """The same of one tile."""
    for i in range(1):
        place = u32(ptx.thread_index() + u32(128) * u32(i))
        mine = u32(1) if place < u32(64) else u32(0)
        at = u32(to + place * u32(80) + u32(48))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)


@device
def clear_right_1(to):
    """The same of one tile."""
    for i in range(1):
        place = u32(ptx.thread_index() + u32(128) * u32(i))
        mine = u32(1) if place < u32(16) else u32(0)
        at = u32(to + place * u32(144) + u32(80))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)
        at = u32(to + place * u32(144) + u32(96))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)
        at = u32(to + place * u32(144) + u32(112))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)


@device
def clear_right_2(to):
    """The same of one tile."""
    for i in range(1):
        place = u32(ptx.thread_index() + u32(128) * u32(i))
        mine = u32(1) if place < u32(16) else u32(0)
        at = u32(to + place * u32(80) + u32(48))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)


@device
def copy_levels(first, to, rows_at, limit):
    """Begin to copy lse and delta of a tile's queries; 0 beyond the last."""
    place = ptx.thread_index()
    mine = u32(1) if place < u32(64) else u32(0)
    place = place if mine != u32(0) else u32(0)
    token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
    inside = mine if token < limit else u32(0)
    at = u32(to + place * u32(16))
    ptx.async_copy(at, first + u64(16) * u64(token), inside)
    ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(mine - inside))


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
def multiply_first(score_0, left, right):
    """Scores of a warp's rows with a right tile's."""
    for i in range(8):
        score_0[i] = f32(0.0)
    multiply_first_step(score_0, u32(left + u32(0)), u32(right + u32(0)))
    multiply_first_step(score_0, u32(left + u32(32)), u32(right + u32(32)))
    multiply_first_step(score_0, u32(left + u32(64)), u32(right + u32(64)))


@device
def multiply_first_step(score_0, left, right):
    """Eight numbers of each row and column."""
    w_0, w_1, w_2, w_3 = ptx.load_matrices(u32(left + u32(0)))
    a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3 = split_left(w_0, w_1, w_2, w_3)
    multiply_first_sixteen(0, score_0, a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3, u32(right + u32(0)))


@device
def multiply_first_sixteen(at, score_0, a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3, right):
    """Sixteen columns."""
    w_0, w_1, w_2, w_3 = ptx.load_matrices(right)
    b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3 = split_right(w_0, w_1, w_2, w_3)
    add_product(score_0, at + 0, r_0, r_1, r_2, r_3, b_0, b_1)
    add_product(score_0, at + 4, r_0, r_1, r_2, r_3, b_2, b_3)
    add_product(score_0, at + 0, a_0, a_1, a_2, a_3, s_0, s_1)
    add_product(score_0, at + 4, a_0, a_1, a_2, a_3, s_2, s_3)
    add_product(score_0, at + 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(score_0, at + 4, a_0, a_1, a_2, a_3, b_2, b_3)


@device
def multiply_second(slope_0, left, right):
    """dP of a warp's rows and a right tile's."""
    for i in range(8):
        slope_0[i] = f32(0.0)
    multiply_second_step(slope_0, u32(left + u32(0)), u32(right + u32(0)))
    multiply_second_step(slope_0, u32(left + u32(32)), u32(right + u32(32)))


@device
def multiply_second_step(slope_0, left, right):
    """Eight numbers of each row and column."""
    w_0, w_1, w_2, w_3 = ptx.load_matrices(u32(left + u32(0)))
    a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3 = split_left(w_0, w_1, w_2, w_3)
    multiply_second_sixteen(0, slope_0, a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3, u32(right + u32(0)))


@device
def multiply_second_sixteen(at, slope_0, a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3, right):
    """Sixteen columns."""
    w_0, w_1, w_2, w_3 = ptx.load_matrices(right)
    b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3 = split_right(w_0, w_1, w_2, w_3)
    add_product(slope_0, at + 0, r_0, r_1, r_2, r_3, b_0, b_1)
    add_product(slope_0, at + 4, r_0, r_1, r_2, r_3, b_2, b_3)
    add_product(slope_0, at + 0, a_0, a_1, a_2, a_3, s_0, s_1)
    add_product(slope_0, at + 4, a_0, a_1, a_2, a_3, s_2, s_3)
    add_product(slope_0, at + 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(slope_0, at + 4, a_0, a_1, a_2, a_3, b_2, b_3)


@device
def add_dq(total_0, slope_0, right):
    """Slopes of a warp's rows times a right tile."""
    mask = ptx.shuffle_xor_word(u32(0xFFFFE000), u32(0))
    add_dq_step(0, total_0, slope_0, u32(right + u32(0)), mask)


@device
def add_dq_step(first, total_0, slope_0, right, mask):
    """16 keys and their weights."""
    ptx.warp_barrier()  # so that values of later keys are not read yet, and kept in registers
    a_0, a_1, a_2, a_3, r_0, r_1, r_2, r_3 = split_left(
        ptx.real_bits(slope_0[first + 0]), ptx.real_bits(slope_0[first + 2]), ptx.real_bits(slope_0[first + 1]),
        ptx.real_bits(slope_0[first + 3]),
    )
    a_4, a_5, a_6, a_7, r_4, r_5, r_6, r_7 = split_left(
        ptx.real_bits(slope_0[first + 4]), ptx.real_bits(slope_0[first + 6]), ptx.real_bits(slope_0[first + 5]),
        ptx.real_bits(slope_0[first + 7]),
    )
    add_dq_sixteen(
        0, total_0, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, r_0, r_1, r_2, r_3, r_4, r_5, r_6, r_7, u32(right + u32(0)),
        mask,
    )
    add_dq_sixteen(
        8, total_0, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, r_0, r_1, r_2, r_3, r_4, r_5, r_6, r_7,
        u32(right + u32(64)), mask,
    )


@device
def add_dq_sixteen(
    at, total_0, a_0, a_1, a_2, a_3, a_4, a_5, a_6, a_7, r_0, r_1, r_2, r_3, r_4, r_5, r_6, r_7, right, mask,
):
    """Sixteen columns."""
    part_0 = cuda.local.array(8, dtype=np.float32)
    for i in range(8):
        part_0[i] = f32(0.0)
    x_0, y_0 = ptx.load_shared_reals2(u32(right + u32(0)))
    x_1, y_1 = ptx.load_shared_reals2(u32(right + u32(144)))
    b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3 = split_columns(
        ptx.real_bits(x_0), ptx.real_bits(x_1), ptx.real_bits(y_0), ptx.real_bits(y_1), mask,
    )
    add_product(part_0, 0, r_0, r_1, r_2, r_3, b_0, b_1)
    add_product(part_0, 4, r_0, r_1, r_2, r_3, b_2, b_3)
    add_product(part_0, 0, a_0, a_1, a_2, a_3, s_0, s_1)
    add_product(part_0, 4, a_0, a_1, a_2, a_3, s_2, s_3)
    add_product(part_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(part_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    x_0, y_0 = ptx.load_shared_reals2(u32(right + u32(1152)))
    x_1, y_1 = ptx.load_shared_reals2(u32(right + u32(1296)))
    b_0, b_1, b_2, b_3, s_0, s_1, s_2, s_3 = split_columns(
        ptx.real_bits(x_0), ptx.real_bits(x_1), ptx.real_bits(y_0), ptx.real_bits(y_1), mask,
    )
    add_product(part_0, 0, r_4, r_5, r_6, r_7, b_0, b_1)
    add_product(part_0, 4, r_4, r_5, r_6, r_7, b_2, b_3)
    add_product(part_0, 0, a_4, a_5, a_6, a_7, s_0, s_1)
    add_product(part_0, 4, a_4, a_5, a_6, a_7, s_2, s_3)
    add_product(part_0, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(part_0, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    for i in range(8):
        total_0[at + i] += part_0[i]


@device
def weigh(score, scale_log2, levels):
    """Scores become weights."""
    level, _ = ptx.load_shared_reals2(levels + u32(0))
    weigh_columns(0, score, scale_log2, 0, level)
    level, _ = ptx.load_shared_reals2(levels + u32(128))
    weigh_columns(0, score, scale_log2, 1, level)


@device
def make_slopes(slope, weight, levels):
    """dP becomes slopes."""
    _, change = ptx.load_shared_reals2(levels + u32(0))
    make_slopes_columns(0, slope, weight, 0, change)
    _, change = ptx.load_shared_reals2(levels + u32(128))
    make_slopes_columns(0, slope, weight, 1, change)


@device
def weigh_columns(first, score, scale_log2, row, level):
    """Of a row."""
    for j in range(first, first + 2):
        score[4 * j + 2 * row + 0] = ptx.exp2(score[4 * j + 2 * row + 0] * scale_log2 - level)
        score[4 * j + 2 * row + 1] = ptx.exp2(score[4 * j + 2 * row + 1] * scale_log2 - level)


@device
def make_slopes_columns(first, slope, weight, row, change):
    """Of a row."""
    for j in range(first, first + 2):
        slope[4 * j + 2 * row + 0] = weight[4 * j + 2 * row + 0] * (slope[4 * j + 2 * row + 0] - change)
        slope[4 * j + 2 * row + 1] = weight[4 * j + 2 * row + 1] * (slope[4 * j + 2 * row + 1] - change)


@device
def store_dq(row, token, total, column, share, to_first, step, seq_left):
    """A row of dq: its sums times share, 0 where share is."""
    real = u32(1) if token < seq_left else u32(0)  # padding is 2**32 - 1 here
    to = to_first + u64(token if real != u32(0) else u32(0)) * step
    share_eight(0 + 2 * row, total, share)
    share_eight(4 + 2 * row, total, share)
    share_eight(8 + 2 * row, total, share)
    share_eight(12 + 2 * row, total, share)
    x_0, x_1, x_2, x_3 = ptx.load_reals4(to + u64(0) + u64(8) * u64(column))
    total[0 + 2 * row] += x_0
    total[4 + 2 * row] += x_1
    total[1 + 2 * row] += x_2
    total[5 + 2 * row] += x_3
    x_0, x_1, x_2, x_3 = ptx.load_reals4(to + u64(64) + u64(8) * u64(column) if u32(2 * column) < u32(4) else to)
    total[8 + 2 * row] += x_0
    total[12 + 2 * row] += x_1
    total[9 + 2 * row] += x_2
    total[13 + 2 * row] += x_3
    ptx.store_reals4(to + u64(0) + u64(8) * u64(column), total[0 + 2 * row] * f32(1.0), total[4 + 2 * row] * f32(1.0), total[1 + 2 * row] * f32(1.0), total[5 + 2 * row] * f32(1.0), real)
    ptx.store_reals4(to + u64(64) + u64(8) * u64(column), total[8 + 2 * row] * f32(1.0), total[12 + 2 * row] * f32(1.0), total[9 + 2 * row] * f32(1.0), total[13 + 2 * row] * f32(1.0), real if u32(2 * column) < u32(4) else u32(0))


@device
def share_eight(at, total, share):
    """8 columns times share, 0 where share is."""
    total[at + 0] = total[at + 0] * share if share != f32(0.0) else f32(0.0)
    total[at + 1] = total[at + 1] * share if share != f32(0.0) else f32(0.0)


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
