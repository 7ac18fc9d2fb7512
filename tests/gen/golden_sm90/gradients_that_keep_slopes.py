"""dv and dk and slopes of sparse attention on Hopper, for every mask that boxes describe.

head_dim 128, value_dim 128, float16; 128 keys x 64 queries a tile; left are k and v, right q and dout.
A block is 2 x 128 threads, each for 64 keys, and a producer that fetches boxes of both sides,
2 tiles ahead; blocks take items (row block, head, batch entry) in turn, longest row blocks first.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
NONE_KEPT = f32(-np.inf)
NO_ITEM = u32(4294967295)  # in place of a row block's number: nothing follows
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
fewer_registers = ptx.release_registers(40)
more_registers = ptx.claim_registers(232)
pair_product = ptx.matrix_product(64, "float16", from_registers=False, transposed=False)
dv_product = ptx.matrix_product(128, "float16", from_registers=True, transposed=True)
dk_product = ptx.matrix_product(128, "float16", from_registers=True, transposed=True)
# Shared memory, in bytes from its aligned start: stages of tiles, what goes with them, and their barriers.
LEFT_STAGES, STAGES = u32(2), u32(2)
LEFT_1_TILE, LEFT_1_BYTES = u32(0), u32(32768)
LEFT_2_TILE, LEFT_2_BYTES = u32(65536), u32(32768)
RIGHT_1_TILE, RIGHT_1_BYTES = u32(131072), u32(16384)
RIGHT_2_TILE, RIGHT_2_BYTES = u32(163840), u32(16384)
LEVELS_TILE, LEVELS_BYTES = u32(196608), u32(1024)
TILE_INFO, ITEM_INFO = u32(198656), u32(198688)
LEFT_FULL, LEFT_EMPTY = u32(198720), u32(198736)
RIGHT_FULL, RIGHT_EMPTY = u32(198752), u32(198768)


def attention_gradients(
    left_maps, right_maps, rows, block, piece, owners, heads, bits, slopes, dv, dk, counter,
    scale_log2, scale,
    blocks, heads_count, batch, heads_per_wave, seq, heads_left, left_views, right_views, images, listed,
    dv_row, dv_head, dv_batch, dk_row, dk_head, dk_batch,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(1023)) & u32(4294966272))
    thread = ptx.thread_index()
    warpgroup = u32(thread >> u32(7))
    if thread == u32(0):
        make_barriers(base)
    ptx.block_barrier()
    if warpgroup == u32(2):
        fewer_registers()
        if thread < u32(288):
            produce(
                base, left_maps, right_maps, block, piece, bits, owners, heads, counter, blocks, heads_count, batch,
                heads_per_wave, left_views, right_views, images, listed,
            )
    else:
        more_registers()
        consume(
            base, thread, warpgroup, rows, slopes, dv, dk, scale_log2, scale, seq, heads_left, dv_row, dv_head, dv_batch,
            dk_row, dk_head, dk_batch,
        )


@device
def make_barriers(base):
    """With the arrivals that complete a phase of each."""
    for stage in range(LEFT_STAGES):
        ptx.mbarrier_init(base + LEFT_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + LEFT_EMPTY + u32(8) * u32(stage), u32(256))
    for stage in range(STAGES):
        ptx.mbarrier_init(base + RIGHT_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + RIGHT_EMPTY + u32(8) * u32(stage), u32(256))
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
    base, left_maps, right_maps, block, piece, bits, owners, heads, counter, blocks, heads_count, batch,
    heads_per_wave, left_views, right_views, images, listed,
):
    """The producer: boxes of each item's left tile, then of its right ones."""
    fence_maps(left_maps, u32(2) * left_views)
    fence_maps(right_maps, u32(3) * right_views)
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
        load_left(base, left_stage, left_maps, words, owner, entry)
        left_stage, left_free = advance(left_stage, left_free, LEFT_STAGES)
        taken = ptx.fetch_add(counter, u32(1), leader())  # blocks take what is left in turn
        while place < end:
            head = ptx.load_word(heads + u64(4) * u64(place))
            image = u32((entry * listed + place) * images + u32(2) * ptx.word_of_lane(words, u32(6)))
            stage, free = load_tiles(base, right_maps, piece, bits, image, words, head, entry, stage, free)
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
    ptx.tensor_copy(to + u32(16384), tensor_map, full, u32(64), c1, c2, owner, entry, leader())
    tensor_map = left_map + u64(128)
    to = base + LEFT_2_TILE + stage * LEFT_2_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, owner, entry, leader())
    ptx.tensor_copy(to + u32(16384), tensor_map, full, u32(64), c1, c2, owner, entry, leader())


@device
def load_tiles(base, right_maps, piece, bits, image, words, head, entry, stage, free):
    """The right tiles of one head, as stages become free."""
    c1 = c2 = count = status = bits_0 = bits_1 = bits_2 = u32(0)
    right_map = u64(0)
    place = ptx.word_of_lane(words, u32(3))
    end_of_pieces = ptx.word_of_lane(words, u32(4))
    while place < end_of_pieces:
        if count == u32(0):
            view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
            status, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
            right_map = right_maps + u64(384) * u64(view)
        ptx.mbarrier_wait(base + RIGHT_EMPTY + stage * u32(8), free)
        info = base + TILE_INFO + stage * u32(16)
        ptx.store_shared_words4(info, status, image, bits_1, bits_2, leader())
        image = u32(image + u32(2))
        load_right(base, stage, right_map, c1, c2, head, entry, base + RIGHT_FULL + stage * u32(8))
        c1 = u32(c1 + u32(64))
        stage, free = advance(stage, free, STAGES)
        count = u32(count - u32(1))
        if count == u32(0):
            place = u32(place + u32(1))
    return stage, free


@device
def load_right(base, stage, right_map, c1, c2, head, entry, full):
    """A right tile, and what goes with it."""
    ptx.mbarrier_expect(full, RIGHT_1_BYTES + RIGHT_2_BYTES + LEVELS_BYTES, leader())
    tensor_map = right_map + u64(0)
    to = base + RIGHT_1_TILE + stage * RIGHT_1_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, head, entry, leader())
    ptx.tensor_copy(to + u32(8192), tensor_map, full, u32(64), c1, c2, head, entry, leader())
    tensor_map = right_map + u64(128)
    to = base + RIGHT_2_TILE + stage * RIGHT_2_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, head, entry, leader())
    ptx.tensor_copy(to + u32(8192), tensor_map, full, u32(64), c1, c2, head, entry, leader())
    tensor_map = right_map + u64(256)
    ptx.tensor_copy(base + LEVELS_TILE + stage * LEVELS_BYTES, tensor_map, full, u32(0), c1, c2, head, entry, leader())


@device
def consume(
    base, thread, warpgroup, rows, slopes, dv, dk, scale_log2, scale, seq, heads_left, dv_row, dv_head, dv_batch,
    dk_row, dk_head, dk_batch,
):
    """A consumer warpgroup: 64 tokens of each item."""
    row_in_group = ((thread >> u32(5)) & u32(3)) * u32(16) + ((thread & u32(31)) >> u32(2))  # and that 8 further on
    column = (thread & u32(3)) * u32(2)
    dv_total = cuda.local.array(64, dtype=np.float32)
    dk_total = cuda.local.array(64, dtype=np.float32)
    score = cuda.local.array(32, dtype=np.float32)
    weight = cuda.local.array(16, dtype=np.uint32)
    slope = cuda.local.array(32, dtype=np.float32)
    change = cuda.local.array(16, dtype=np.uint32)
    for i in range(32):
        score[i] = f32(0.0)
    for i in range(32):
        slope[i] = f32(0.0)
    stage = phase = left_stage = left_phase = u32(0)
    image_place = warpgroup * u32(8192) + ((thread >> u32(5)) & u32(3)) * u32(2048) + (thread & u32(31)) * u32(16)
    while True:
        ptx.mbarrier_wait(base + LEFT_FULL + left_stage * u32(8), left_phase)
        tiles, rank, head, entry = ptx.load_shared_words4(base + ITEM_INFO + left_stage * u32(16))
        if rank == NO_ITEM:
            break
        row_at = rows + u64(4) * (u64(rank) * u64(128) + u64(warpgroup * u32(64) + row_in_group))
        row_0 = ptx.load_word(row_at)
        row_1 = ptx.load_word(row_at + u64(32))
        left_1_at = left_1_of(base, warpgroup, left_stage)
        left_2_at = left_2_of(base, warpgroup, left_stage)
        keep_0 = u32(0xFFFFFFFF) if row_0 < seq else u32(0)
        keep_1 = u32(0xFFFFFFFF) if row_1 < seq else u32(0)
        for i in range(64):
            dv_total[i] = f32(0.0)
        for i in range(64):
            dk_total[i] = f32(0.0)
        stage, phase = work(
            base, warpgroup, column, left_1_at, left_2_at, scale_log2, image_place, slopes, keep_0, keep_1, tiles, stage,
            phase, left_stage, dv_total, dk_total, score, weight, slope, change,
        )
        give_left_back(base, tiles, left_stage)  # of an item without tiles
        dv_at = dv + u64(entry) * dv_batch + u64(head) * dv_head
        store_dv(0, row_0, column, dv_total, f32(1.0), dv_at, dv_row, seq)
        store_dv(1, row_1, column, dv_total, f32(1.0), dv_at, dv_row, seq)
        dk_at = dk + u64(entry) * dk_batch + u64(head) * dk_head
        store_dk(0, row_0, column, dk_total, scale, dk_at, dk_row, seq)
        store_dk(1, row_1, column, dk_total, scale, dk_at, dk_row, seq)
        left_stage, left_phase = advance(left_stage, left_phase, LEFT_STAGES)


@device
def work(
    base, warpgroup, column, left_1_at, left_2_at, scale_log2, image_place, slopes, keep_0, keep_1, tiles, stage,
    phase, left_stage, dv_total, dk_total, score, weight, slope, change,
):
    """An item's tiles; where the ring of tiles is then."""
    while tiles > u32(0):
        image = wait_right(base, warpgroup, stage, phase)
        multiply_left_1(score, base, left_1_at, stage)
        multiply_left_2(slope, base, left_2_at, stage)
        ptx.wgmma_wait_but_one()
        weigh(score, scale_log2, base, stage, column)
        round_weights(weight, score)
        multiply_weights(dv_total, weight, base, stage)
        ptx.wgmma_wait_but_one()
        make_slopes(slope, weight, base, stage, column)
        round_slopes(change, slope)
        keep_slopes(change, slopes, image, image_place, keep_0, keep_1)
        multiply_slopes(dk_total, change, base, stage)
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
    word, image, _, _ = ptx.load_shared_words4(info)
    status = u32((word >> (u32(2) * warpgroup)) & u32(3))
    return image


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
    return first + u64(left_stage * u32(2048))


@device
def multiply_left_1(score, base, left_1_at, stage):
    """Issue left.right of the first arrays."""
    right_at = u64(4611686293305360384) | u64((base + RIGHT_1_TILE + stage * RIGHT_1_BYTES) >> u32(4))
    ptx.wgmma_fence()
    pair_product(score, left_1_at + u64(0), right_at + u64(0), u32(0))
    pair_product(score, left_1_at + u64(2), right_at + u64(2), u32(1))
    pair_product(score, left_1_at + u64(4), right_at + u64(4), u32(1))
    pair_product(score, left_1_at + u64(6), right_at + u64(6), u32(1))
    pair_product(score, left_1_at + u64(1024), right_at + u64(512), u32(1))
    pair_product(score, left_1_at + u64(1026), right_at + u64(514), u32(1))
    pair_product(score, left_1_at + u64(1028), right_at + u64(516), u32(1))
    pair_product(score, left_1_at + u64(1030), right_at + u64(518), u32(1))
    ptx.wgmma_commit()


@device
def left_2_of(base, warpgroup, left_stage):
    """The descriptor of this group's part of a left array."""
    first = u64(4611686293305360384) | u64((base + LEFT_2_TILE + warpgroup * u32(8192)) >> u32(4))
    return first + u64(left_stage * u32(2048))


@device
def multiply_left_2(slope, base, left_2_at, stage):
    """Issue left.right of the second arrays."""
    right_at = u64(4611686293305360384) | u64((base + RIGHT_2_TILE + stage * RIGHT_2_BYTES) >> u32(4))
    pair_product(slope, left_2_at + u64(0), right_at + u64(0), u32(0))
    pair_product(slope, left_2_at + u64(2), right_at + u64(2), u32(1))
    pair_product(slope, left_2_at + u64(4), right_at + u64(4), u32(1))
    pair_product(slope, left_2_at + u64(6), right_at + u64(6), u32(1))
    pair_product(slope, left_2_at + u64(1024), right_at + u64(512), u32(1))
    pair_product(slope, left_2_at + u64(1026), right_at + u64(514), u32(1))
    pair_product(slope, left_2_at + u64(1028), right_at + u64(516), u32(1))
    pair_product(slope, left_2_at + u64(1030), right_at + u64(518), u32(1))
    ptx.wgmma_commit()


@device
def multiply_weights(dv_total, weight, base, stage):
    """Issue what the tile adds to dv."""
    right_at = u64(4611686293338849280) | u64((base + RIGHT_2_TILE + stage * RIGHT_2_BYTES) >> u32(4))
    ptx.wgmma_fence()
    dv_product(dv_total, weight[0], weight[1], weight[2], weight[3], right_at + u64(0))
    dv_product(dv_total, weight[4], weight[5], weight[6], weight[7], right_at + u64(128))
    dv_product(dv_total, weight[8], weight[9], weight[10], weight[11], right_at + u64(256))
    dv_product(dv_total, weight[12], weight[13], weight[14], weight[15], right_at + u64(384))
    ptx.wgmma_commit()


@device
def multiply_slopes(dk_total, change, base, stage):
    """Issue what the tile adds to dk."""
    right_at = u64(4611686293338849280) | u64((base + RIGHT_1_TILE + stage * RIGHT_1_BYTES) >> u32(4))
    ptx.wgmma_fence()
    dk_product(dk_total, change[0], change[1], change[2], change[3], right_at + u64(0))
    dk_product(dk_total, change[4], change[5], change[6], change[7], right_at + u64(128))
    dk_product(dk_total, change[8], change[9], change[10], change[11], right_at + u64(256))
    dk_product(dk_total, change[12], change[13], change[14], change[15], right_at + u64(384))
    ptx.wgmma_commit()


@device
def weigh(score, scale_log2, base, stage, column):
    """Scores become weights."""
    for j in range(8):
        for x in range(2):
            lse, _ = ptx.load_shared_reals2(base + LEVELS_TILE + stage * LEVELS_BYTES + (column + u32(8 * j + x)) * u32(16))
            score[4 * j + 0 + x] = ptx.exp2(score[4 * j + 0 + x] * scale_log2 - lse)
            score[4 * j + 2 + x] = ptx.exp2(score[4 * j + 2 + x] * scale_log2 - lse)


@device
def round_weights(weight, score):
    """Numbers in the arrays' dtype, two a word: the left operand of a product."""
    for i in range(16):
        weight[i] = ptx.pack_float16(score[2 * i], score[2 * i + 1])


@device
def make_slopes(slope, weight, base, stage, column):
    """dP becomes dS, less the scale."""
    for j in range(8):
        _, delta_0 = ptx.load_shared_reals2(base + LEVELS_TILE + stage * LEVELS_BYTES + (column + u32(8 * j + 0)) * u32(16))
        _, delta_1 = ptx.load_shared_reals2(base + LEVELS_TILE + stage * LEVELS_BYTES + (column + u32(8 * j + 1)) * u32(16))
        first, second = ptx.unpack_float16(weight[2 * j + 0])
        slope[4 * j + 0] = first * (slope[4 * j + 0] - delta_0)
        slope[4 * j + 1] = second * (slope[4 * j + 1] - delta_1)
        first, second = ptx.unpack_float16(weight[2 * j + 1])
        slope[4 * j + 2] = first * (slope[4 * j + 2] - delta_0)
        slope[4 * j + 3] = second * (slope[4 * j + 3] - delta_1)


@device
def round_slopes(change, slope):
    """Numbers in the arrays' dtype, two a word: the left operand of a product."""
    for i in range(16):
        change[i] = ptx.pack_float16(slope[2 * i], slope[2 * i + 1])


@device
def keep_slopes(change, slopes, image, image_place, keep_0, keep_1):
    """Slopes to memory, four words for each warp of the reader."""
    to = slopes + u64(8192) * u64(image) + u64(image_place)
    for j in range(8):
        change[2 * j + 0] = u32(change[2 * j + 0] & keep_0)
        change[2 * j + 1] = u32(change[2 * j + 1] & keep_1)
    ptx.store_words4(to + u64(0), change[0], change[1], change[2], change[3], u32(1))
    ptx.store_words4(to + u64(512), change[4], change[5], change[6], change[7], u32(1))
    ptx.store_words4(to + u64(1024), change[8], change[9], change[10], change[11], u32(1))
    ptx.store_words4(to + u64(1536), change[12], change[13], change[14], change[15], u32(1))


@device
def store_dv(row, place, column, dv_total, share, to_first, step, seq):
    """A row of dv: its sums times share, 0 where share is."""
    real = u32(1) if place < seq else u32(0)  # padding is 2**32 - 1 here
    to = to_first + u64(place) * step
    for j in range(16):
        for x in range(2):
            dv_total[4 * j + 2 * row + x] = dv_total[4 * j + 2 * row + x] * share if share != f32(0.0) else f32(0.0)
    share = f32(1.0)
    for quarter in range(4):
        store_dv_total_quarter(dv_total, 16 * quarter + 2 * row, share, to + u64(64) * u64(quarter), real)


@device
def store_dv_total_quarter(dv_total, first, share, to, real):
    """32 columns of a row: its four lanes hand words round until each has 8 columns side by side."""
    word_0 = ptx.pack_float16(dv_total[first + 0] * share, dv_total[first + 1] * share)
    word_1 = ptx.pack_float16(dv_total[first + 4] * share, dv_total[first + 5] * share)
    word_2 = ptx.pack_float16(dv_total[first + 8] * share, dv_total[first + 9] * share)
    word_3 = ptx.pack_float16(dv_total[first + 12] * share, dv_total[first + 13] * share)
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
def store_dk(row, place, column, dk_total, share, to_first, step, seq):
    """A row of dk: its sums times share, 0 where share is."""
    real = u32(1) if place < seq else u32(0)  # padding is 2**32 - 1 here
    to = to_first + u64(place) * step
    for j in range(16):
        for x in range(2):
            dk_total[4 * j + 2 * row + x] = dk_total[4 * j + 2 * row + x] * share if share != f32(0.0) else f32(0.0)
    share = f32(1.0)
    for quarter in range(4):
        store_dk_total_quarter(dk_total, 16 * quarter + 2 * row, share, to + u64(64) * u64(quarter), real)


@device
def store_dk_total_quarter(dk_total, first, share, to, real):
    """32 columns of a row: its four lanes hand words round until each has 8 columns side by side."""
    word_0 = ptx.pack_float16(dk_total[first + 0] * share, dk_total[first + 1] * share)
    word_1 = ptx.pack_float16(dk_total[first + 4] * share, dk_total[first + 5] * share)
    word_2 = ptx.pack_float16(dk_total[first + 8] * share, dk_total[first + 9] * share)
    word_3 = ptx.pack_float16(dk_total[first + 12] * share, dk_total[first + 13] * share)
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
