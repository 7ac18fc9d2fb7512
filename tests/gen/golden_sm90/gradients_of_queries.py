"""dq of sparse attention on Hopper, for every mask that boxes describe.

head_dim 80, value_dim 72, bfloat16; 64 queries x 64 keys a tile; left are q and dout, right k and v.
A block is 1 x 128 threads, each for 64 queries, and a producer that fetches boxes of both sides,
2 tiles ahead; blocks take items (row block, head, batch entry) in turn, longest row blocks first.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
NONE_KEPT = f32(-np.inf)
NO_ITEM = u32(4294967295)  # in place of a row block's number: nothing follows
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
fewer_registers = ptx.release_registers(56)
more_registers = ptx.claim_registers(200)
pair_product = ptx.matrix_product(64, "bfloat16", from_registers=False, transposed=False)
dq_product = ptx.matrix_product(80, "bfloat16", from_registers=True, transposed=True)
# Shared memory, in bytes from its aligned start: stages of tiles, what goes with them, and their barriers.
LEFT_STAGES, STAGES = u32(1), u32(2)
LEFT_1_TILE, LEFT_1_BYTES = u32(0), u32(16384)
LEFT_2_TILE, LEFT_2_BYTES = u32(16384), u32(16384)
RIGHT_1_TILE, RIGHT_1_BYTES = u32(32768), u32(16384)
RIGHT_2_TILE, RIGHT_2_BYTES = u32(65536), u32(16384)
MASK_TILE, MASK_BYTES = u32(98304), u32(512)
TILE_INFO, ITEM_INFO = u32(99328), u32(99360)
LEFT_FULL, LEFT_EMPTY = u32(99376), u32(99384)
RIGHT_FULL, RIGHT_EMPTY = u32(99392), u32(99408)
CLEARED = u32(99424)


def attention_gradients(
    left_maps, right_maps, rows, block, piece, owners, heads, bits, kv_lengths, views, levels, dq, counter,
    scale_log2, scale,
    blocks, heads_count, batch, heads_per_wave, seq, heads_left, left_views, right_views,
    dq_row, dq_head, dq_batch,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(1023)) & u32(4294966272))
    thread = ptx.thread_index()
    warpgroup = u32(thread >> u32(7))
    if thread == u32(0):
        make_barriers(base)
    ptx.block_barrier()
    if warpgroup == u32(1):
        fewer_registers()
        if thread < u32(160):
            produce(
                base, left_maps, right_maps, block, piece, bits, owners, heads, counter, kv_lengths, views, blocks, heads_count,
                batch, heads_per_wave, left_views, right_views,
            )
    else:
        more_registers()
        consume(base, thread, warpgroup, rows, levels, dq, scale_log2, scale, seq, heads_left, dq_row, dq_head, dq_batch)


@device
def make_barriers(base):
    """With the arrivals that complete a phase of each."""
    for stage in range(LEFT_STAGES):
        ptx.mbarrier_init(base + LEFT_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + LEFT_EMPTY + u32(8) * u32(stage), u32(128))
    for stage in range(STAGES):
        ptx.mbarrier_init(base + RIGHT_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + RIGHT_EMPTY + u32(8) * u32(stage), u32(128))
    ptx.mbarrier_init(base + CLEARED, u32(1))
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
    base, left_maps, right_maps, block, piece, bits, owners, heads, counter, kv_lengths, views, blocks, heads_count,
    batch, heads_per_wave, left_views, right_views,
):
    """The producer: boxes of each item's left tile, then of its right ones."""
    fence_maps(left_maps, u32(2) * left_views)
    fence_maps(right_maps, u32(2) * right_views)
    items = u32(blocks * heads_count * batch)
    stage = left_stage = u32(0)
    # Parity of the phase in which a stage was given back: a fresh barrier counts as given back.
    free = left_free = u32(1)
    item = ptx.block_index()
    next_rank, next_entry, next_words = read_item(item, items, block, owners, blocks, heads_count, batch, heads_per_wave)
    cleared_phase = u32(0)
    while item < items:
        rank, entry, words = next_rank, next_entry, next_words
        owner = ptx.word_of_lane(words, u32(8))
        place = ptx.word_of_lane(words, u32(9))
        end = ptx.word_of_lane(words, u32(10))
        ptx.mbarrier_wait(base + LEFT_EMPTY + left_stage * u32(8), left_free)
        tiles = u32(ptx.word_of_lane(words, u32(5)) * (end - place))
        ptx.store_shared_words4(base + ITEM_INFO + left_stage * u32(16), tiles, rank, owner, entry, leader())
        load_left(base, left_stage, left_maps, words, owner, entry)
        left_stage, left_free = advance(left_stage, left_free, LEFT_STAGES)
        length = ptx.load_word(kv_lengths + u64(4) * u64(entry))
        length = length if length < u32(2147483648) else u32(0)
        taken = ptx.fetch_add(counter, u32(1), leader())  # blocks take what is left in turn
        while place < end:
            head = ptx.load_word(heads + u64(4) * u64(place))
            stage, free, cleared_phase = load_tiles(
                base, right_maps, piece, bits, words, head, entry, stage, free, views, length, cleared_phase,
            )
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
def load_left(base, left_stage, left_maps, words, owner, entry):
    """An item's left tile: the box that its row block names."""
    left_map = left_maps + u64(256) * u64(ptx.word_of_lane(words, u32(0)))
    c1 = ptx.word_of_lane(words, u32(1))
    c2 = ptx.word_of_lane(words, u32(2))
    full = base + LEFT_FULL + left_stage * u32(8)
    stage = left_stage
    ptx.mbarrier_expect(full, u32(LEFT_1_BYTES + LEFT_2_BYTES), leader())
    tensor_map = left_map + u64(0)
    to = base + LEFT_1_TILE + stage * LEFT_1_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, owner, entry, leader())
    ptx.tensor_copy(to + u32(8192), tensor_map, full, u32(64), c1, c2, owner, entry, leader())
    tensor_map = left_map + u64(128)
    to = base + LEFT_2_TILE + stage * LEFT_2_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, owner, entry, leader())
    ptx.tensor_copy(to + u32(8192), tensor_map, full, u32(64), c1, c2, owner, entry, leader())


@device
def load_tiles(base, right_maps, piece, bits, words, head, entry, stage, free, views, length, cleared_phase):
    """The right tiles of one head, as stages become free."""
    c1 = c2 = count = status = bits_0 = bits_1 = bits_2 = u32(0)
    right_map = u64(0)
    place = ptx.word_of_lane(words, u32(3))
    end_of_pieces = ptx.word_of_lane(words, u32(4))
    token = inner_step = kept_status = u32(0)
    while place < end_of_pieces:
        if count == u32(0):
            view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
            kept_status, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
            right_map = right_maps + u64(256) * u64(view)
            offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
            token = u32(offset + inner_step * c1 + outer_step * c2)
        valid = valid_keys(token, inner_step, length)
        status = u32(kept_status | (valid << u32(8))) if valid != u32(0) else u32(0)
        token = u32(token + inner_step * u32(64))
        ptx.mbarrier_wait(base + RIGHT_EMPTY + stage * u32(8), free)
        info = base + TILE_INFO + stage * u32(16)
        ptx.store_shared_words4(info, status, bits_0, bits_1, bits_2, leader())
        if valid == u32(64):
            load_right(base, stage, right_map, c1, c2, head, entry, base + RIGHT_FULL + stage * u32(8), status, bits, bits_0)
        else:
            load_right(base, stage, right_map, c1, c2, head, entry, base + CLEARED, status, bits, bits_0)
            clear_tile(base, stage, valid, cleared_phase)
            cleared_phase = u32(cleared_phase ^ u32(1))
        c1 = u32(c1 + u32(64))
        stage, free = advance(stage, free, STAGES)
        count = u32(count - u32(1))
        if count == u32(0):
            place = u32(place + u32(1))
    return stage, free, cleared_phase


@device
def load_right(base, stage, right_map, c1, c2, head, entry, full, status, bits, bits_0):
    """A right tile, and what goes with it."""
    masked = u32(1) if (status & u32(2)) != u32(0) else u32(0)
    ptx.mbarrier_expect(full, RIGHT_1_BYTES + RIGHT_2_BYTES + masked * MASK_BYTES, leader())
    to = base + MASK_TILE + stage * MASK_BYTES
    ptx.bulk_copy(to + u32(0), bits + u64(512) * u64(bits_0), u32(512), full, leader() & masked)
    tensor_map = right_map + u64(0)
    to = base + RIGHT_1_TILE + stage * RIGHT_1_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, head, entry, leader())
    ptx.tensor_copy(to + u32(8192), tensor_map, full, u32(64), c1, c2, head, entry, leader())
    tensor_map = right_map + u64(128)
    to = base + RIGHT_2_TILE + stage * RIGHT_2_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, head, entry, leader())
    ptx.tensor_copy(to + u32(8192), tensor_map, full, u32(64), c1, c2, head, entry, leader())


@device
def valid_keys(token, inner_step, length):
    """How many of a tile's keys lie below the length."""
    if token >= length:
        return u32(0)
    return u32(min(u32(length - token + inner_step - u32(1)) // inner_step, u32(64)))


@device
def clear_tile(base, stage, valid, cleared_phase):
    """Keys and values beyond the length become 0 when they are there: they may be NaN, and 0 x NaN is NaN."""
    ptx.mbarrier_wait(base + CLEARED, cleared_phase)
    to = base + RIGHT_1_TILE + stage * RIGHT_1_BYTES + u32(ptx.thread_index() & u32(31)) * u32(4)
    for token in range(valid, u32(64)):
        ptx.store_shared_word(to + u32(0) + u32(token) * u32(128), u32(0), u32(1))
        ptx.store_shared_word(to + u32(8192) + u32(token) * u32(128), u32(0), u32(1))
    to = base + RIGHT_2_TILE + stage * RIGHT_2_BYTES + u32(ptx.thread_index() & u32(31)) * u32(4)
    for token in range(valid, u32(64)):
        ptx.store_shared_word(to + u32(0) + u32(token) * u32(128), u32(0), u32(1))
        ptx.store_shared_word(to + u32(8192) + u32(token) * u32(128), u32(0), u32(1))
    ptx.fence_shared()
    ptx.warp_barrier()
    ptx.mbarrier_arrive(base + RIGHT_FULL + stage * u32(8), leader())


@device
def consume(
    base, thread, warpgroup, rows, levels, dq, scale_log2, scale, seq, heads_left, dq_row, dq_head, dq_batch,
):
    """A consumer warpgroup: 64 tokens of each item."""
    row_in_group = ((thread >> u32(5)) & u32(3)) * u32(16) + ((thread & u32(31)) >> u32(2))  # and that 8 further on
    column = (thread & u32(3)) * u32(2)
    dq_total = cuda.local.array(40, dtype=np.float32)
    score = cuda.local.array(32, dtype=np.float32)
    slope = cuda.local.array(32, dtype=np.float32)
    change = cuda.local.array(16, dtype=np.uint32)
    lse = cuda.local.array(2, dtype=np.float32)
    delta = cuda.local.array(2, dtype=np.float32)
    for i in range(32):
        score[i] = f32(0.0)
    for i in range(32):
        slope[i] = f32(0.0)
    stage = phase = left_stage = left_phase = u32(0)
    mask_base = base + MASK_TILE + warpgroup * u32(512) + row_in_group * u32(8)
    while True:
        ptx.mbarrier_wait(base + LEFT_FULL + left_stage * u32(8), left_phase)
        tiles, rank, head, entry = ptx.load_shared_words4(base + ITEM_INFO + left_stage * u32(16))
        if rank == NO_ITEM:
            break
        row_at = rows + u64(4) * (u64(rank) * u64(64) + u64(warpgroup * u32(64) + row_in_group))
        row_0 = ptx.load_word(row_at)
        row_1 = ptx.load_word(row_at + u64(32))
        left_1_at = left_1_of(base, warpgroup, left_stage)
        left_2_at = left_2_of(base, warpgroup, left_stage)
        levels_at = levels + u64(16) * (u64(entry) * u64(heads_left) + u64(head)) * u64(seq)
        read_levels(0, row_0, levels_at, seq, lse, delta)
        read_levels(1, row_1, levels_at, seq, lse, delta)
        for i in range(40):
            dq_total[i] = f32(0.0)
        stage, phase = work(
            base, warpgroup, column, mask_base, left_1_at, left_2_at, scale_log2, lse, delta, tiles, stage, phase,
            left_stage, dq_total, score, slope, change,
        )
        give_left_back(base, tiles, left_stage)  # of an item without tiles
        dq_at = dq + u64(entry) * dq_batch + u64(head) * dq_head
        share_0 = scale if lse[0] < f32(np.inf) else f32(0.0)
        store_dq(0, row_0, column, dq_total, share_0, dq_at, dq_row, seq)
        share_1 = scale if lse[1] < f32(np.inf) else f32(0.0)
        store_dq(1, row_1, column, dq_total, share_1, dq_at, dq_row, seq)
        left_stage, left_phase = advance(left_stage, left_phase, LEFT_STAGES)


@device
def work(
    base, warpgroup, column, mask_base, left_1_at, left_2_at, scale_log2, lse, delta, tiles, stage, phase,
    left_stage, dq_total, score, slope, change,
):
    """An item's tiles; where the ring of tiles is then."""
    while tiles > u32(0):
        word, status, kept = wait_right(base, warpgroup, stage, phase)
        if kept != u32(0):
            multiply_left_1(score, base, left_1_at, stage)
            multiply_left_2(slope, base, left_2_at, stage)
            ptx.wgmma_wait_but_one()
            negate(score)
            mask_scores(score, status, mask_base + stage * MASK_BYTES, column)
            limit_scores(score, word >> u32(8), column)
            weigh(score, scale_log2, lse)
            ptx.wgmma_wait_all()
            make_slopes(slope, score, delta)
            round_slopes(change, slope)
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
    return word, status, kept


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
def left_1_of(base, warpgroup, left_stage):
    """The descriptor of this group's part of a left array."""
    first = u64(4611686293305360384) | u64((base + LEFT_1_TILE + warpgroup * u32(8192)) >> u32(4))
    return first + u64(left_stage * u32(1024))


@device
def multiply_left_1(score, base, left_1_at, stage):
    """Issue left.right of the first arrays."""
    right_at = u64(4611686293305360384) | u64((base + RIGHT_1_TILE + stage * RIGHT_1_BYTES) >> u32(4))
    ptx.wgmma_fence()
    pair_product(score, left_1_at + u64(0), right_at + u64(0), u32(0))
    pair_product(score, left_1_at + u64(2), right_at + u64(2), u32(1))
    pair_product(score, left_1_at + u64(4), right_at + u64(4), u32(1))
    pair_product(score, left_1_at + u64(6), right_at + u64(6), u32(1))
    pair_product(score, left_1_at + u64(512), right_at + u64(512), u32(1))
    ptx.wgmma_commit()


@device
def left_2_of(base, warpgroup, left_stage):
    """The descriptor of this group's part of a left array."""
    first = u64(4611686293305360384) | u64((base + LEFT_2_TILE + warpgroup * u32(8192)) >> u32(4))
    return first + u64(left_stage * u32(1024))


@device
def multiply_left_2(slope, base, left_2_at, stage):
    """Issue left.right of the second arrays."""
    right_at = u64(4611686293305360384) | u64((base + RIGHT_2_TILE + stage * RIGHT_2_BYTES) >> u32(4))
    pair_product(slope, left_2_at + u64(0), right_at + u64(0), u32(0))
    pair_product(slope, left_2_at + u64(2), right_at + u64(2), u32(1))
    pair_product(slope, left_2_at + u64(4), right_at + u64(4), u32(1))
    pair_product(slope, left_2_at + u64(6), right_at + u64(6), u32(1))
    pair_product(slope, left_2_at + u64(512), right_at + u64(512), u32(1))
    ptx.wgmma_commit()


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
def negate(score):
    """The scale was negative."""
    for i in range(32):
        score[i] = -score[i]


@device
def mask_scores(score, status, mask_at, column):
    """Scores of pairs that are not kept become -inf, if this group keeps only some."""
    if ptx.any_lane(u32(1) if status == u32(2) else u32(0)) != u32(0):
        mask_row(score, 0, mask_at, column)
        mask_row(score, 1, mask_at + u32(64), column)


@device
def mask_row(score, row, mask_at, column):
    """The same of one row."""
    mask = cuda.local.array(2, dtype=np.uint32)
    for i in range(2):
        mask[i] = ptx.load_shared_word(mask_at + u32(4) * u32(i)) >> column
    for j in range(8):
        for x in range(2):
            score[4 * j + 2 * row + x] = score[4 * j + 2 * row + x] if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT


@device
def limit_scores(score, valid, column):
    """Scores of keys beyond the batch entry's length become -inf."""
    if valid < u32(64):
        for j in range(8):
            for x in range(2):
                below = column + u32(8 * j + x) < valid
                score[4 * j + 0 + x] = score[4 * j + 0 + x] if below else NONE_KEPT
                score[4 * j + 2 + x] = score[4 * j + 2 + x] if below else NONE_KEPT


@device
def weigh(score, scale_log2, lse):
    """Scores become weights."""
    for j in range(8):
        for x in range(2):
            score[4 * j + 0 + x] = ptx.exp2(score[4 * j + 0 + x] * scale_log2 - lse[0])
            score[4 * j + 2 + x] = ptx.exp2(score[4 * j + 2 + x] * scale_log2 - lse[1])


@device
def make_slopes(slope, score, delta):
    """dP becomes dS, less the scale."""
    for j in range(8):
        slope[4 * j + 0] = score[4 * j + 0] * (slope[4 * j + 0] - delta[0])
        slope[4 * j + 1] = score[4 * j + 1] * (slope[4 * j + 1] - delta[0])
        slope[4 * j + 2] = score[4 * j + 2] * (slope[4 * j + 2] - delta[1])
        slope[4 * j + 3] = score[4 * j + 3] * (slope[4 * j + 3] - delta[1])


@device
def round_slopes(change, slope):
    """Numbers in the arrays' dtype, two a word: the left operand of a product."""
    for i in range(16):
        change[i] = ptx.pack_bfloat16(slope[2 * i], slope[2 * i + 1])


@device
def store_dq(row, place, column, dq_total, share, to_first, step, seq):
    """A row of dq: its sums times share, 0 where share is."""
    real = u32(1) if place < seq else u32(0)  # padding is 2**32 - 1 here
    to = to_first + u64(place) * step
    for j in range(10):
        for x in range(2):
            dq_total[4 * j + 2 * row + x] = dq_total[4 * j + 2 * row + x] * share if share != f32(0.0) else f32(0.0)
    before = cuda.local.array(20, dtype=np.float32)
    sums_at = to + u64(4) * u64(column)
    for j in range(10):
        for x in range(2):
            before[2 * j + x] = ptx.load_real_when(sums_at + u64(0) + u64(32) * u64(j) + u64(4) * u64(x), real)
    for j in range(10):
        for x in range(2):
            dq_total[4 * (j + 0) + 2 * row + x] += before[2 * j + x]
    for j in range(10):
        ptx.store_reals2(to + u64(4) * u64(column) + u64(32) * u64(j), dq_total[4 * j + 2 * row + 0], dq_total[4 * j + 2 * row + 1], real)
