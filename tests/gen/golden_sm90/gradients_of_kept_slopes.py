"""dq of sparse attention on Hopper, for every mask that boxes describe.

head_dim 128, value_dim 128, bfloat16; 192 queries x 64 keys a tile; left are slopes that are kept, right k.
A block is 3 x 128 threads, each for 64 queries, and a producer that fetches boxes of both sides,
5 tiles ahead; blocks take items (row block, head, batch entry) in turn, longest row blocks first.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
NONE_KEPT = f32(-np.inf)
NO_ITEM = u32(4294967295)  # in place of a row block's number: nothing follows
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
fewer_registers = ptx.release_registers(32)
more_registers = ptx.claim_registers(160)
dq_product = ptx.matrix_product(128, "bfloat16", from_registers=True, transposed=True)
# Shared memory, in bytes from its aligned start: stages of tiles, what goes with them, and their barriers.
LEFT_STAGES, STAGES = u32(2), u32(5)
RIGHT_1_TILE, RIGHT_1_BYTES = u32(0), u32(16384)
SLOPES_TILE, SLOPES_BYTES = u32(81920), u32(24576)
TILE_INFO, ITEM_INFO = u32(204800), u32(204880)
LEFT_FULL, LEFT_EMPTY = u32(204912), u32(204928)
RIGHT_FULL, RIGHT_EMPTY = u32(204944), u32(204984)


def attention_gradients(
    right_maps, rows, block, piece, owners, heads, slopes, levels, dq, counter,
    scale_log2, scale,
    blocks, heads_count, batch, heads_per_wave, seq, heads_left, left_views, right_views, images, listed,
    dq_row, dq_head, dq_batch,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(1023)) & u32(4294966272))
    thread = ptx.thread_index()
    warpgroup = u32(thread >> u32(7))
    if thread == u32(0):
        make_barriers(base)
    ptx.block_barrier()
    if warpgroup == u32(3):
        fewer_registers()
        if thread < u32(416):
            produce(
                base, right_maps, block, piece, slopes, owners, heads, counter, blocks, heads_count, batch, heads_per_wave,
                left_views, right_views, images, listed,
            )
    else:
        more_registers()
        consume(base, thread, warpgroup, rows, levels, dq, scale_log2, scale, seq, heads_left, dq_row, dq_head, dq_batch)


@device
def make_barriers(base):
    """With the arrivals that complete a phase of each."""
    for stage in range(LEFT_STAGES):
        ptx.mbarrier_init(base + LEFT_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + LEFT_EMPTY + u32(8) * u32(stage), u32(384))
    for stage in range(STAGES):
        ptx.mbarrier_init(base + RIGHT_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + RIGHT_EMPTY + u32(8) * u32(stage), u32(384))
    ptx.fence_mbarrier_init()


@device
def leader():
    """1 in the lane that acts for its warp, 0 in the others."""
    return u32(1) if (ptx.thread_index() & u32(31)) == u32(0) else u32(0)


@device
def advance(stage, phase, stages):
    """On to the next stage; its barriers' phase turns with the round."""
    stage = u32(stage + u32(1))
    if stage == stages:
        return u32(0), u32(phase ^ u32(1))
    return stage, phase


@device
def produce(
    base, right_maps, block, piece, slopes, owners, heads, counter, blocks, heads_count, batch, heads_per_wave,
    left_views, right_views, images, listed,
):
    """The producer: boxes of each item's left tile, then of its right ones."""
    fence_maps(right_maps, u32(1) * right_views)
    items = u32(blocks * heads_count * batch)
    stage = left_stage = u32(0)
    # Parity of the phase in which a stage was given back: a fresh barrier counts as given back.
    free = left_free = u32(1)
    item = ptx.block_index()
    next_rank, next_entry, next_words = read_item(item, items, block, owners, blocks, heads_count, batch, heads_per_wave)
    while item < items:
        rank, entry, words = next_rank, next_entry, next_words
        owner = ptx.word_of_lane(words, u32(8))
        place = ptx.word_of_lane(words, u32(9))
        end = ptx.word_of_lane(words, u32(10))
        ptx.mbarrier_wait(base + LEFT_EMPTY + left_stage * u32(8), left_free)
        tiles = u32(ptx.word_of_lane(words, u32(5)) * (end - place))
        ptx.store_shared_words4(base + ITEM_INFO + left_stage * u32(16), tiles, rank, owner, entry, leader())
        ptx.mbarrier_arrive(base + LEFT_FULL + left_stage * u32(8), leader())
        left_stage, left_free = advance(left_stage, left_free, LEFT_STAGES)
        taken = ptx.fetch_add(counter, u32(1), leader())  # blocks take what is left in turn
        while place < end:
            head = ptx.load_word(heads + u64(4) * u64(place))
            image = u32((entry * listed + place) * images)
            stage, free = load_tiles(base, right_maps, piece, image, slopes, words, head, entry, stage, free)
            place = u32(place + u32(1))
        item = u32(ptx.grid_size() + ptx.word_of_lane(taken, u32(0)))
        next_rank, next_entry, next_words = read_item(item, items, block, owners, blocks, heads_count, batch, heads_per_wave)
    end_items(base, left_stage, left_free, counter)


@device
def end_items(base, left_stage, left_free, counter):
    """Nothing follows; the last block to come here leaves the counter as it found it."""
    ptx.mbarrier_wait(base + LEFT_EMPTY + left_stage * u32(8), left_free)
    to = base + ITEM_INFO + left_stage * u32(16)
    ptx.store_shared_words4(to, u32(0), NO_ITEM, u32(0), u32(0), leader())
    ptx.mbarrier_arrive(base + LEFT_FULL + left_stage * u32(8), leader())
    ended = ptx.word_of_lane(ptx.fetch_add(counter + u64(4), u32(1), leader()), u32(0)) + u32(1)
    last_block = leader() if ended == ptx.grid_size() else u32(0)
    ptx.store_word(counter, u32(0), last_block)
    ptx.store_word(counter + u64(4), u32(0), last_block)


@device
def fence_maps(maps, count):
    """Tensor maps, before the first copies by them."""
    for place in range(count):
        ptx.fence_tensor_map(maps + u64(128) * u64(place))


@device
def read_item(item, items, block, owners, blocks, heads_count, batch, heads_per_wave):
    """Row block and batch entry of an item; by lane, the words of its row block, then of its owner."""
    number = u32(min(item, items - u32(1)))
    wave_items = u32(heads_per_wave * blocks)
    wave = u32(number // wave_items)
    left = u32(number - wave * wave_items)
    first_pair = u32(wave * heads_per_wave)
    width = u32(min(heads_per_wave, u32(heads_count * batch - first_pair)))
    rank = u32(left // width)
    pair = u32(first_pair + left - rank * width)
    entry = u32(pair // heads_count)
    owner_at = owners + u64(16) * u64(pair - entry * heads_count)
    lane = u32(ptx.thread_index() & u32(31))
    word_at = block + u64(32) * u64(rank) + u64(4) * u64(lane)
    owner_word = owner_at + u64(4) * u64((lane - u32(8)) & u32(3))
    words = ptx.load_word(word_at if lane < u32(8) else owner_word)
    return rank, entry, words


@device
def load_tiles(base, right_maps, piece, image, slopes, words, head, entry, stage, free):
    """The right tiles of one head, as stages become free."""
    c1 = c2 = count = status = bits_0 = bits_1 = bits_2 = u32(0)
    right_map = u64(0)
    place = ptx.word_of_lane(words, u32(3))
    end_of_pieces = ptx.word_of_lane(words, u32(4))
    while place < end_of_pieces:
        if count == u32(0):
            view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
            status, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
            right_map = right_maps + u64(128) * u64(view)
        ptx.mbarrier_wait(base + RIGHT_EMPTY + stage * u32(8), free)
        info = base + TILE_INFO + stage * u32(16)
        ptx.store_shared_words4(info, status, bits_0, bits_1, bits_2, leader())
        load_right(
            base, stage, right_map, c1, c2, head, entry, base + RIGHT_FULL + stage * u32(8), status, slopes, image, bits_0,
            bits_1, bits_2,
        )
        c1 = u32(c1 + u32(64))
        stage, free = advance(stage, free, STAGES)
        count = u32(count - u32(1))
        if count == u32(0):
            place = u32(place + u32(1))
    return stage, free


@device
def load_right(base, stage, right_map, c1, c2, head, entry, full, status, slopes, image, bits_0, bits_1, bits_2):
    """A right tile, and what goes with it."""
    has_0 = u32((status >> u32(0)) & u32(1))
    has_1 = u32((status >> u32(2)) & u32(1))
    has_2 = u32((status >> u32(4)) & u32(1))
    ptx.mbarrier_expect(full, RIGHT_1_BYTES + (has_0 + has_1 + has_2) * u32(8192), leader())
    to = base + SLOPES_TILE + stage * SLOPES_BYTES
    ptx.bulk_copy(to + u32(0), slopes + u64(8192) * (u64(image) + u64(bits_0)), u32(8192), full, leader() & has_0)
    ptx.bulk_copy(to + u32(8192), slopes + u64(8192) * (u64(image) + u64(bits_1)), u32(8192), full, leader() & has_1)
    ptx.bulk_copy(to + u32(16384), slopes + u64(8192) * (u64(image) + u64(bits_2)), u32(8192), full, leader() & has_2)
    tensor_map = right_map + u64(0)
    to = base + RIGHT_1_TILE + stage * RIGHT_1_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, head, entry, leader())
    ptx.tensor_copy(to + u32(8192), tensor_map, full, u32(64), c1, c2, head, entry, leader())


@device
def consume(
    base, thread, warpgroup, rows, levels, dq, scale_log2, scale, seq, heads_left, dq_row, dq_head, dq_batch,
):
    """A consumer warpgroup: 64 tokens of each item."""
    row_in_group = ((thread >> u32(5)) & u32(3)) * u32(16) + ((thread & u32(31)) >> u32(2))  # and that 8 further on
    column = (thread & u32(3)) * u32(2)
    dq_total = cuda.local.array(64, dtype=np.float32)
    change = cuda.local.array(16, dtype=np.uint32)
    lse = cuda.local.array(2, dtype=np.float32)
    delta = cuda.local.array(2, dtype=np.float32)
    stage = phase = left_stage = left_phase = u32(0)
    image_place = warpgroup * u32(8192) + ((thread >> u32(5)) & u32(3)) * u32(512) + (thread & u32(31)) * u32(16)
    while True:
        ptx.mbarrier_wait(base + LEFT_FULL + left_stage * u32(8), left_phase)
        tiles, rank, head, entry = ptx.load_shared_words4(base + ITEM_INFO + left_stage * u32(16))
        if rank == NO_ITEM:
            break
        row_at = rows + u64(4) * (u64(rank) * u64(192) + u64(warpgroup * u32(64) + row_in_group))
        row_0 = ptx.load_word(row_at)
        row_1 = ptx.load_word(row_at + u64(32))
        levels_at = levels + u64(16) * (u64(entry) * u64(heads_left) + u64(head)) * u64(seq)
        read_levels(0, row_0, levels_at, seq, lse, delta)
        read_levels(1, row_1, levels_at, seq, lse, delta)
        for i in range(64):
            dq_total[i] = f32(0.0)
        stage, phase = work(base, warpgroup, image_place, tiles, stage, phase, left_stage, dq_total, change)
        give_left_back(base, tiles, left_stage)  # of an item without tiles
        dq_at = dq + u64(entry) * dq_batch + u64(head) * dq_head
        share_0 = scale if lse[0] < f32(np.inf) else f32(0.0)
        store_dq(0, row_0, column, dq_total, share_0, dq_at, dq_row, seq)
        share_1 = scale if lse[1] < f32(np.inf) else f32(0.0)
        store_dq(1, row_1, column, dq_total, share_1, dq_at, dq_row, seq)
        left_stage, left_phase = advance(left_stage, left_phase, LEFT_STAGES)


@device
def work(base, warpgroup, image_place, tiles, stage, phase, left_stage, dq_total, change):
    """An item's tiles; where the ring of tiles is then."""
    while tiles > u32(0):
        status, kept = wait_right(base, warpgroup, stage, phase)
        if kept != u32(0):
            load_slopes(change, base, stage, image_place)
            multiply_slopes(dq_total, change, base, stage)
            ptx.wgmma_wait_all()
        give_right_back(base, stage)
        tiles = u32(tiles - u32(1))
        give_left_back(base, tiles, left_stage)
        stage, phase = advance(stage, phase, STAGES)
    return stage, phase


@device
def wait_right(base, warpgroup, stage, phase):
    """A right tile is there; and which of its pairs are kept."""
    ptx.mbarrier_wait(base + RIGHT_FULL + stage * u32(8), phase)
    info = base + TILE_INFO + stage * u32(16)
    word = ptx.load_shared_word(info)
    status = u32((word >> (u32(2) * warpgroup)) & u32(3))
    kept = ptx.any_lane(u32(1) if status != u32(0) else u32(0))
    return status, kept


@device
def give_right_back(base, stage):
    """A right tile may be overwritten."""
    ptx.mbarrier_arrive(base + RIGHT_EMPTY + stage * u32(8), u32(1))


@device
def give_left_back(base, tiles, left_stage):
    """The left tile may be overwritten, if no right tile is left."""
    if tiles == u32(0):
        ptx.mbarrier_arrive(base + LEFT_EMPTY + left_stage * u32(8), u32(1))


@device
def multiply_slopes(dq_total, change, base, stage):
    """Issue what the tile adds to dq."""
    right_at = u64(4611686293338849280) | u64((base + RIGHT_1_TILE + stage * RIGHT_1_BYTES) >> u32(4))
    ptx.wgmma_fence()
    dq_product(dq_total, change[0], change[1], change[2], change[3], right_at + u64(0))
    dq_product(dq_total, change[4], change[5], change[6], change[7], right_at + u64(128))
    dq_product(dq_total, change[8], change[9], change[10], change[11], right_at + u64(256))
    dq_product(dq_total, change[12], change[13], change[14], change[15], right_at + u64(384))
    ptx.wgmma_commit()


@device
def read_levels(row, place, levels_at, seq, lse, delta):
    """lse and delta of a query; of padding those of the first."""
    safe = place if place < seq else u32(0)
    lse[row], delta[row], _, _ = ptx.load_reals4(levels_at + u64(16) * u64(safe))


@device
def load_slopes(change, base, stage, image_place):
    """This thread's of an image."""
    at = base + SLOPES_TILE + stage * SLOPES_BYTES + image_place
    for step in range(4):
        words = ptx.load_shared_words4(at + u32(2048) * u32(step))
        change[4 * step + 0] = ptx.transpose_matrix(words[0])
        change[4 * step + 1] = ptx.transpose_matrix(words[2])
        change[4 * step + 2] = ptx.transpose_matrix(words[1])
        change[4 * step + 3] = ptx.transpose_matrix(words[3])


@device
def store_dq(row, place, column, dq_total, share, to_first, step, seq):
    """A row of dq: its sums times share, 0 where share is."""
    real = u32(1) if place < seq else u32(0)  # padding is 2**32 - 1 here
    to = to_first + u64(place) * step
    for j in range(16):
        for x in range(2):
            dq_total[4 * j + 2 * row + x] = dq_total[4 * j + 2 * row + x] * share if share != f32(0.0) else f32(0.0)
    share = f32(1.0)
    for quarter in range(4):
        store_dq_total_quarter(dq_total, 16 * quarter + 2 * row, share, to + u64(64) * u64(quarter), real)


@device
def store_dq_total_quarter(dq_total, first, share, to, real):
    """32 columns of a row: its four lanes hand words round until each has 8 columns side by side."""
    word_0 = ptx.pack_bfloat16(dq_total[first + 0] * share, dq_total[first + 1] * share)
    word_1 = ptx.pack_bfloat16(dq_total[first + 4] * share, dq_total[first + 5] * share)
    word_2 = ptx.pack_bfloat16(dq_total[first + 8] * share, dq_total[first + 9] * share)
    word_3 = ptx.pack_bfloat16(dq_total[first + 12] * share, dq_total[first + 13] * share)
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
