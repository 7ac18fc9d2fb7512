"""dq of sparse attention of slopes that are kept, by a warp's matrix products, for every mask of boxes.

head_dim 64, bfloat16; 128 queries x 64 keys a tile, by
128 threads: each warp has 32 rows. 4 stages.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
INFINITE = f32(np.inf)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(2)

# Of shared memory: stages, in each keys, an image a group, and which of these there are.
IMAGES, STATUS = u32(9216), u32(25600)
STAGE_BYTES, LAST_STAGE = u32(25616), u32(76848)


def attention_gradients(
    rows, block, piece, views, owners, heads, right_1, dq, slopes, levels,
    right_1_row, right_1_head, right_1_batch, dq_row, dq_head, dq_batch,
    scale,
    blocks, heads_count, batch, heads_per_wave, heads_levels, seq_left, seq_right, seq_q, images, listed,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    total_0 = cuda.local.array(32, dtype=np.float32)
    for i in range(32):
        total_0[i] = f32(0.0)
    total_1 = cuda.local.array(32, dtype=np.float32)
    for i in range(32):
        total_1[i] = f32(0.0)
    rank, owner, entry = item_of_block(blocks, heads_count, batch, heads_per_wave)
    head, first, _, _ = ptx.load_words4(owners + u64(16) * u64(owner))  # a query head has one key head
    other = ptx.load_word(heads + u64(4) * u64(first))
    keys_at = right_1 + u64(entry) * right_1_batch + u64(other) * right_1_head
    slopes_at = slopes + u64(8192) * u64(entry * listed + first) * u64(images)
    work(block + u64(32) * u64(rank), piece, views, keys_at, right_1_row, slopes_at, base, total_0, total_1, seq_right)
    row, column = place_of_thread(ptx.thread_index())
    row_at = rows + u64(512) * u64(rank) + u64(4) * u64(row)
    levels_at = levels + u64(16) * (u64(entry) * u64(heads_levels) + u64(head)) * u64(seq_q)
    dq_at = dq + u64(entry) * dq_batch + u64(head) * dq_head
    token = ptx.load_word(row_at + u64(0))
    safe = token if token < seq_left else u32(0)
    level, _, _, _ = ptx.load_reals4(levels_at + u64(16) * u64(safe))
    share = scale if level < INFINITE else f32(0.0)
    store_dq(0, token, total_0, column, share, dq_at, dq_row, seq_left)
    token = ptx.load_word(row_at + u64(8))
    safe = token if token < seq_left else u32(0)
    level, _, _, _ = ptx.load_reals4(levels_at + u64(16) * u64(safe))
    share = scale if level < INFINITE else f32(0.0)
    store_dq(1, token, total_0, column, share, dq_at, dq_row, seq_left)
    token = ptx.load_word(row_at + u64(16))
    safe = token if token < seq_left else u32(0)
    level, _, _, _ = ptx.load_reals4(levels_at + u64(16) * u64(safe))
    share = scale if level < INFINITE else f32(0.0)
    store_dq(0, token, total_1, column, share, dq_at, dq_row, seq_left)
    token = ptx.load_word(row_at + u64(24))
    safe = token if token < seq_left else u32(0)
    level, _, _, _ = ptx.load_reals4(levels_at + u64(16) * u64(safe))
    share = scale if level < INFINITE else f32(0.0)
    store_dq(1, token, total_1, column, share, dq_at, dq_row, seq_left)


@device
def work(block_at, piece, views, keys_at, right_1_row, slopes_at, base, total_0, total_1, seq_right):
    """All tiles of a row block: while one is computed the next are fetched."""
    place = ptx.load_word(block_at + u64(12))
    left = ptx.load_word(block_at + u64(20))
    tiles = left
    before = u32(3)
    fetched = computed = u32(0)
    status = image_0 = image_1 = corner = inner_step = outer_step = u32(0)
    if left > u32(0):
        status, image_0, image_1, corner, inner_step, outer_step = read_tile(piece, views, place)
    while tiles > u32(0):
        if before == u32(0):
            wait_for_copies()
            ptx.block_barrier()  # the tile is there, and nobody reads the one before it any more
        if left > u32(0):
            fetch_tile(
                status, image_0, image_1, corner, inner_step, outer_step, keys_at, right_1_row, slopes_at, seq_right,
                u32(base + fetched),
            )
            left = u32(left - u32(1))
            place = u32(place + u32(1)) if left > u32(0) else place
            status, image_0, image_1, corner, inner_step, outer_step = read_tile(piece, views, place)
        ptx.async_commit()
        fetched = u32(fetched + STAGE_BYTES) if fetched < LAST_STAGE else u32(0)
        if before == u32(0):
            work_on_tile(u32(base + computed), total_0, total_1)
            computed = u32(computed + STAGE_BYTES) if computed < LAST_STAGE else u32(0)
            tiles = u32(tiles - u32(1))
        else:
            before = u32(before - u32(1))


@device
def read_tile(piece, views, place):
    """Which images and keys a tile has."""
    view, c1, c2, _ = ptx.load_words4(piece + u64(32) * u64(place))
    status, image_0, image_1, _ = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
    offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
    corner = u32(offset + inner_step * c1 + outer_step * c2)
    return status, image_0, image_1, corner, inner_step, outer_step


@device
def fetch_tile(status, image_0, image_1, corner, inner_step, outer_step, keys_at, keys_row, slopes_at, limit, to):
    """Begin to copy a tile's keys and images."""
    copy_keys(keys_at, keys_row, to, corner, inner_step, outer_step, u32(6), limit)
    copy_image(slopes_at + u64(8192) * u64(image_0), u32(to + IMAGES + u32(0)), u32(status >> u32(0)) & u32(1))
    copy_image(slopes_at + u64(8192) * u64(image_1), u32(to + IMAGES + u32(8192)), u32(status >> u32(2)) & u32(1))
    first = u32(1) if ptx.thread_index() == u32(0) else u32(0)
    ptx.store_shared_word(u32(to + STATUS), status, first)


@device
def copy_image(source, to, there):
    """Begin to copy an image, if there is one."""
    at = u32(u32(16) * ptx.thread_index())
    ptx.async_copy(u32(to + at + u32(0)), source + u64(at) + u64(0), there)
    ptx.async_copy(u32(to + at + u32(2048)), source + u64(at) + u64(2048), there)
    ptx.async_copy(u32(to + at + u32(4096)), source + u64(at) + u64(4096), there)
    ptx.async_copy(u32(to + at + u32(6144)), source + u64(at) + u64(6144), there)


@device
def work_on_tile(tile, total_0, total_1):
    """Slopes of a tile times its keys."""
    keys, slopes_0, slopes_1, group = places(tile)
    status = u32(ptx.load_shared_word(u32(tile + STATUS)) >> u32(u32(2) * group))
    if ptx.any_lane(u32(status & u32(1))) != u32(0):
        add_dq(total_0, total_1, slopes_0, slopes_1, keys)


@device
def places(tile):
    """Where a lane's rows of the first matrices of keys and slopes begin; its group."""
    keys, _, _ = place_of_keys(u32(0), tile)
    thread = ptx.thread_index()
    lane, first_row = u32(thread & u32(31)), u32(u32(thread >> u32(5)) * u32(32))
    matrix, key = u32(lane >> u32(3)), u32(lane & u32(7))
    place = u32(u32(matrix & u32(1)) + u32(0))
    part = u32(first_row >> u32(5))
    group = u32(part >> u32(1))
    images = u32(tile + IMAGES + u32(8192) * group)
    images = u32(images + u32(1024) * u32(part & u32(1)))
    images = u32(images + u32(512) * u32(matrix >> u32(1)) + u32(64) * key)
    slopes_0 = u32(images + u32(16) * u32(place ^ u32(key >> u32(1))))
    slopes_1 = u32(images + u32(16) * u32(u32(place + u32(2)) ^ u32(key >> u32(1))))
    return keys, slopes_0, slopes_1, group


@device
def place_of_keys(base, tile):
    """Where a lane's row of the first matrices of keys begins."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    lane = u32(thread & u32(31))
    row, column = place_in_warp(thread)
    upper = u32(u32(lane >> u32(4)) * u32(16))
    keys = u32(tile + u32(lane & u32(15)) * u32(144) + upper)
    return keys, row, column


@device
def place_in_warp(thread):
    """A thread's first row of the block's, and its first column of each eight."""
    row = u32(u32(thread >> u32(5)) * u32(32) + u32(u32(thread & u32(31)) >> u32(2)))
    return row, u32(u32(thread & u32(3)) * u32(2))


@device
def place_of_thread(thread):
    """A thread's first row of the block's, whose others are two apart, and its first column of each eight."""
    first_row = u32(u32(thread >> u32(5)) * u32(32))
    row = u32(u32(thread & u32(31)) >> u32(2))
    row = u32(u32(8) * u32(row >> u32(1)) + u32(row & u32(1)))
    row = u32(row + u32(2) * u32(0))
    first = u32(first_row & u32(4294967264))
    return u32(first + row), u32(u32(thread & u32(3)) * u32(2))


@device
def token_of(place, corner, inner_step, outer_step, box_shift):
    """The token at a place of the box that begins at ``corner``."""
    line = u32(place >> box_shift)
    return u32(corner + inner_step * u32(place - u32(line << box_shift)) + outer_step * line)


@device
def copy_keys(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """Begin to copy the keys of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(8))
    place = u32(thread // u32(8))
    while place < u32(64):
        token = token_of(place, corner, inner_step, outer_step, box_shift)
        at = u32(to + place * u32(144) + chunk * u32(16))
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), u32(1))
        place = u32(place + u32(16))


@device
def add_product(sums, at, a_0, a_1, a_2, a_3, b_0, b_1):
    """(16, 8) sums += (16, 16) x (16, 8)."""
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_bfloat16(
        a_0, a_1, a_2, a_3, b_0, b_1,
        sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3],
    )


@device
def add_dq(total_0, total_1, slopes_0, slopes_1, keys):
    """Slopes of a warp's queries times a tile's keys."""
    add_dq_step(total_0, total_1, u32(slopes_0 + u32(0)), u32(slopes_1 + u32(0)), u32(keys + u32(0)))
    add_dq_step(total_0, total_1, u32(slopes_0 + u32(2048)), u32(slopes_1 + u32(2048)), u32(keys + u32(2304)))
    add_dq_step(total_0, total_1, u32(slopes_0 + u32(4096)), u32(slopes_1 + u32(4096)), u32(keys + u32(4608)))
    add_dq_step(total_0, total_1, u32(slopes_0 + u32(6144)), u32(slopes_1 + u32(6144)), u32(keys + u32(6912)))


@device
def add_dq_step(total_0, total_1, slopes_0, slopes_1, keys):
    """Sixteen keys."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices_transposed(slopes_0)
    a_4, a_5, a_6, a_7 = ptx.load_matrices_transposed(slopes_1)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(keys + u32(0)))
    add_product(total_0, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 0, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 4, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(keys + u32(32)))
    add_product(total_0, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 8, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 12, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(keys + u32(64)))
    add_product(total_0, 16, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 16, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 20, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 20, a_4, a_5, a_6, a_7, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(keys + u32(96)))
    add_product(total_0, 24, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total_1, 24, a_4, a_5, a_6, a_7, b_0, b_1)
    add_product(total_0, 28, a_0, a_1, a_2, a_3, b_2, b_3)
    add_product(total_1, 28, a_4, a_5, a_6, a_7, b_2, b_3)


@device
def store_dq(row, token, total, column, share, to_first, step, seq_left):
    """A row of dq: its sums times share, 0 where share is."""
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
