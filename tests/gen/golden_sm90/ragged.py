"""Sparse attention on Hopper, generated for every mask that tables of boxes describe.

head_dim 80, value_dim 72, bfloat16; 64 queries x 80 keys a tile.
A block is 1 x 128 threads, each for 64 queries, and a producer that fetches boxes of q, k and v,
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
score_product = ptx.matrix_product(80, "bfloat16", from_registers=False, transposed=False)
value_product = ptx.matrix_product(72, "bfloat16", from_registers=True, transposed=True)
# Shared memory, in bytes from its aligned start: stages of tiles, what goes with them, and their barriers.
Q_STAGES, STAGES = u32(1), u32(2)
Q_TILE, Q_BYTES = u32(0), u32(16384)
K_TILE, K_BYTES = u32(16384), u32(20480)
V_TILE, V_BYTES = u32(57344), u32(20480)
MASK_TILE, MASK_BYTES = u32(98304), u32(768)
TILE_INFO, ITEM_INFO = u32(99840), u32(99872)
Q_FULL, Q_EMPTY = u32(99888), u32(99896)
K_FULL, K_EMPTY = u32(99904), u32(99920)
V_FULL, V_EMPTY = u32(99936), u32(99952)
CLEARED = u32(99968)


def attention(
    q_maps, kv_maps, rows, block, piece, bits, heads, kv_lengths, views, out, lse, counter,
    scale_log2,
    blocks, heads_count, heads_q, group, batch, heads_per_wave, seq_q, q_views, kv_views,
    out_row, out_head, out_batch,
    rest,
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
                base, q_maps, kv_maps, block, piece, bits, heads, counter, kv_lengths, views, blocks, heads_count, group, batch,
                heads_per_wave, q_views, kv_views,
            )
    else:
        more_registers()
        consume(base, thread, warpgroup, rows, out, lse, scale_log2, heads_q, seq_q, out_row, out_head, out_batch, rest)


@device
def make_barriers(base):
    """With the arrivals (warps) that complete a phase of each."""
    for stage in range(Q_STAGES):
        ptx.mbarrier_init(base + Q_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + Q_EMPTY + u32(8) * u32(stage), u32(4))
    for stage in range(STAGES):
        ptx.mbarrier_init(base + K_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + K_EMPTY + u32(8) * u32(stage), u32(4))
        ptx.mbarrier_init(base + V_FULL + u32(8) * u32(stage), u32(1))
        ptx.mbarrier_init(base + V_EMPTY + u32(8) * u32(stage), u32(4))
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
    base, q_maps, kv_maps, block, piece, bits, heads, counter, kv_lengths, views, blocks, heads_count, group, batch,
    heads_per_wave, q_views, kv_views,
):
    """The producer: boxes of each item's queries, then tiles."""
    fence_maps(q_maps, q_views)
    fence_maps(kv_maps, u32(2) * kv_views)
    items = u32(blocks * heads_count * batch)
    stage = q_stage = u32(0)
    # Parity of the phase in which a stage was given back: a fresh barrier counts as given back.
    free = q_free = u32(1)
    item = ptx.block_index()
    next_rank, next_entry, next_words = read_item(item, items, block, heads, blocks, heads_count, batch, heads_per_wave)
    cleared_phase = u32(0)
    while item < items:
        rank, entry, words = next_rank, next_entry, next_words
        head = ptx.word_of_lane(words, u32(8))
        ptx.mbarrier_wait(base + Q_EMPTY + q_stage * u32(8), q_free)
        tiles = ptx.word_of_lane(words, u32(5))
        ptx.store_shared_words4(base + ITEM_INFO + q_stage * u32(16), tiles, rank, head, entry, leader())
        load_queries(base, q_stage, q_maps, words, head, entry)
        q_stage, q_free = advance(q_stage, q_free, Q_STAGES)
        length = ptx.load_word(kv_lengths + u64(4) * u64(entry))
        length = length if length < u32(2147483648) else u32(0)
        taken = ptx.fetch_add(counter, u32(1), leader())  # blocks take what is left in turn
        kv_head = u32(head // group)
        stage, free, cleared_phase = load_tiles(base, kv_maps, piece, bits, words, kv_head, entry, stage, free, views, length, cleared_phase)
        item = u32(ptx.grid_size() + ptx.word_of_lane(taken, u32(0)))
        next_rank, next_entry, next_words = read_item(item, items, block, heads, blocks, heads_count, batch, heads_per_wave)
    end_items(base, q_stage, q_free, counter)


@device
def end_items(base, q_stage, q_free, counter):
    """Nothing follows; the last block to come here leaves the counter as it found it."""
    ptx.mbarrier_wait(base + Q_EMPTY + q_stage * u32(8), q_free)
    to = base + ITEM_INFO + q_stage * u32(16)
    ptx.store_shared_words4(to, u32(0), NO_ITEM, u32(0), u32(0), leader())
    ptx.mbarrier_arrive(base + Q_FULL + q_stage * u32(8), leader())
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
def read_item(item, items, block, heads, blocks, heads_count, batch, heads_per_wave):
    """Row block and batch entry of an item; by lane, the words of its row block, and in the others its head."""
    number = u32(min(item, items - u32(1)))
    wave_items = u32(heads_per_wave * blocks)
    wave = u32(number // wave_items)
    left = u32(number - wave * wave_items)
    first_pair = u32(wave * heads_per_wave)
    width = u32(min(heads_per_wave, u32(heads_count * batch - first_pair)))
    rank = u32(left // width)
    pair = u32(first_pair + left - rank * width)
    entry = u32(pair // heads_count)
    head_at = heads + u64(4) * u64(pair - entry * heads_count)
    lane = u32(ptx.thread_index() & u32(31))
    word_at = block + u64(32) * u64(rank) + u64(4) * u64(lane)
    words = ptx.load_word(word_at if lane < u32(8) else head_at)  # one register, where nine would be spilled
    return rank, entry, words


@device
def load_queries(base, q_stage, q_maps, words, head, entry):
    """A tile of queries: the box that the row block names."""
    q_map = q_maps + u64(128) * u64(ptx.word_of_lane(words, u32(0)))
    c1 = ptx.word_of_lane(words, u32(1))
    c2 = ptx.word_of_lane(words, u32(2))
    full = base + Q_FULL + q_stage * u32(8)
    to = base + Q_TILE + q_stage * Q_BYTES
    ptx.mbarrier_expect(full, Q_BYTES, leader())
    ptx.tensor_copy(to + u32(0), q_map, full, u32(0), c1, c2, head, entry, leader())
    ptx.tensor_copy(to + u32(8192), q_map, full, u32(64), c1, c2, head, entry, leader())


@device
def load_tiles(base, kv_maps, piece, bits, words, kv_head, entry, stage, free, views, length, cleared_phase):
    """The tiles of an item's pieces, as stages become free."""
    c1 = c2 = count = status = bits_0 = bits_1 = bits_2 = u32(0)
    kv_map = u64(0)
    place = ptx.word_of_lane(words, u32(3))
    end_of_pieces = ptx.word_of_lane(words, u32(4))
    token = inner_step = kept_status = u32(0)
    while place < end_of_pieces:
        if count == u32(0):
            view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
            kept_status, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
            kv_map = kv_maps + u64(256) * u64(view)
            offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
            token = u32(offset + inner_step * c1 + outer_step * c2)
        valid = valid_keys(token, inner_step, length)
        status = u32(kept_status | (valid << u32(8))) if valid != u32(0) else u32(0)
        token = u32(token + inner_step * u32(80))
        ptx.mbarrier_wait(base + K_EMPTY + stage * u32(8), free)
        info = base + TILE_INFO + stage * u32(16)
        ptx.store_shared_words4(info, status, bits_0, bits_1, bits_2, leader())
        load_keys(base, stage, kv_map, c1, c2, kv_head, entry, status, bits, bits_0)
        ptx.mbarrier_wait(base + V_EMPTY + stage * u32(8), free)
        if valid == u32(80):
            load_values(base, stage, kv_map + u64(128), c1, c2, kv_head, entry, base + V_FULL + stage * u32(8))
        else:
            load_values(base, stage, kv_map + u64(128), c1, c2, kv_head, entry, base + CLEARED)
            clear_values(base, stage, valid, cleared_phase)
            cleared_phase = u32(cleared_phase ^ u32(1))
        c1 = u32(c1 + u32(80))
        stage, free = advance(stage, free, STAGES)
        count = u32(count - u32(1))
        if count == u32(0):
            place = u32(place + u32(1))
    return stage, free, cleared_phase


@device
def load_keys(base, stage, tensor_map, c1, c2, kv_head, entry, status, bits, bits_0):
    """A tile of keys, and its masks if any group keeps some pairs only."""
    full = base + K_FULL + stage * u32(8)
    masked = u32(1) if (status & u32(2)) != u32(0) else u32(0)
    ptx.mbarrier_expect(full, K_BYTES + masked * MASK_BYTES, leader())
    to = base + MASK_TILE + stage * MASK_BYTES
    ptx.bulk_copy(to + u32(0), bits + u64(768) * u64(bits_0), u32(768), full, leader() & masked)
    to = base + K_TILE + stage * K_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, kv_head, entry, leader())
    ptx.tensor_copy(to + u32(10240), tensor_map, full, u32(64), c1, c2, kv_head, entry, leader())


@device
def load_values(base, stage, tensor_map, c1, c2, kv_head, entry, full):
    """A tile of values."""
    ptx.mbarrier_expect(full, V_BYTES, leader())
    to = base + V_TILE + stage * V_BYTES
    ptx.tensor_copy(to + u32(0), tensor_map, full, u32(0), c1, c2, kv_head, entry, leader())
    ptx.tensor_copy(to + u32(10240), tensor_map, full, u32(64), c1, c2, kv_head, entry, leader())


@device
def valid_keys(token, inner_step, length):
    """How many of a tile's keys lie below the length."""
    if token >= length:
        return u32(0)
    return u32(min(u32(length - token + inner_step - u32(1)) // inner_step, u32(80)))


@device
def clear_values(base, stage, valid, cleared_phase):
    """Values beyond the length become 0 when they are there."""
    ptx.mbarrier_wait(base + CLEARED, cleared_phase)
    to = base + V_TILE + stage * V_BYTES + u32(ptx.thread_index() & u32(31)) * u32(4)
    for token in range(valid, u32(80)):
        ptx.store_shared_word(to + u32(0) + u32(token) * u32(128), u32(0), u32(1))
        ptx.store_shared_word(to + u32(10240) + u32(token) * u32(128), u32(0), u32(1))
    ptx.fence_shared()
    ptx.warp_barrier()
    ptx.mbarrier_arrive(base + V_FULL + stage * u32(8), leader())


@device
def consume(
    base, thread, warpgroup, rows, out, lse, scale_log2, heads_q, seq_q, out_row, out_head, out_batch, rest,
):
    """A consumer warpgroup: 64 queries of each item."""
    row_in_group = ((thread >> u32(5)) & u32(3)) * u32(16) + ((thread & u32(31)) >> u32(2))  # and that 8 further on
    column = (thread & u32(3)) * u32(2)
    total = cuda.local.array(36, dtype=np.float32)
    score = cuda.local.array(40, dtype=np.float32)
    weight = cuda.local.array(20, dtype=np.uint32)
    peak = cuda.local.array(2, dtype=np.float32)
    added = cuda.local.array(2, dtype=np.float32)
    for i in range(40):
        score[i] = f32(0.0)
    stage = phase = q_stage = q_phase = u32(0)
    mask_base = base + MASK_TILE + warpgroup * u32(768) + row_in_group * u32(12)
    while True:
        ptx.mbarrier_wait(base + Q_FULL + q_stage * u32(8), q_phase)
        tiles, rank, head, entry = ptx.load_shared_words4(base + ITEM_INFO + q_stage * u32(16))
        if rank == NO_ITEM:
            break
        ptx.warp_barrier()  # all lanes have read it before the leader gives anything back
        q_at = queries_at(base, warpgroup, q_stage)
        row_at = rows + u64(4) * (u64(rank) * u64(64) + u64(warpgroup * u32(64) + row_in_group))
        row_0 = ptx.load_word(row_at)
        row_1 = ptx.load_word(row_at + u64(32))
        out_at = out + u64(entry) * out_batch + u64(head) * out_head
        lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
        rest_at = rest + u64(144) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
        resume_row(0, row_0, column, out_at, out_row, rest_at, lse_at, seq_q, total, peak, added)
        resume_row(1, row_1, column, out_at, out_row, rest_at, lse_at, seq_q, total, peak, added)
        stage, phase = attend(
            base, warpgroup, column, mask_base, q_at, scale_log2, tiles, stage, phase, q_stage, score, weight, total, peak,
            added,
        )
        give_queries_back(base, tiles, q_stage)  # of an item without tiles
        out_at = out + u64(entry) * out_batch + u64(head) * out_head
        lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
        rest_at = rest + u64(144) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
        store_row(0, row_0, column, total, peak, added, out_at, out_row, rest_at, lse, lse_at, seq_q)
        store_row(1, row_1, column, total, peak, added, out_at, out_row, rest_at, lse, lse_at, seq_q)
        q_stage, q_phase = advance(q_stage, q_phase, Q_STAGES)


@device
def attend(
    base, warpgroup, column, mask_base, q_at, scale_log2, tiles, stage, phase, q_stage, score, weight, total, peak,
    added,
):
    """An item's tiles, in chains up to one that this group skips; where the ring of tiles is then."""
    rescale = cuda.local.array(2, dtype=np.float32)
    while tiles > u32(0):
        word, status, kept = wait_keys(base, warpgroup, stage, phase)
        if kept == u32(0):
            skip_tile(base, stage, phase)
            tiles = u32(tiles - u32(1))
            give_queries_back(base, tiles, q_stage)
            stage, phase = advance(stage, phase, STAGES)
        else:
            multiply_queries(score, base, q_at, stage)
            ptx.wgmma_wait_all()
            tiles = u32(tiles - u32(1))
            weigh_scores(score, word, status, mask_base, column, base, tiles, stage, q_stage, scale_log2, peak, added, rescale)
            round_weights(weight, score)
            bring_to_peak(total, rescale)
            v_stage, v_phase = stage, phase
            stage, phase = advance(stage, phase, STAGES)
            going = tiles > u32(0)
            if going:
                word, status, kept = wait_keys(base, warpgroup, stage, phase)
                going = kept != u32(0)
            while going:
                multiply_queries(score, base, q_at, stage)
                multiply_weights(total, weight, base, v_stage, v_phase)
                ptx.wgmma_wait_but_one()
                tiles = u32(tiles - u32(1))
                weigh_scores(score, word, status, mask_base, column, base, tiles, stage, q_stage, scale_log2, peak, added, rescale)
                ptx.mbarrier_wait(base + V_FULL + stage * u32(8), phase)
                ptx.wgmma_wait_all()
                ptx.mbarrier_arrive(base + V_EMPTY + v_stage * u32(8), leader())
                round_weights(weight, score)
                bring_to_peak(total, rescale)
                v_stage, v_phase = stage, phase
                stage, phase = advance(stage, phase, STAGES)
                going = tiles > u32(0)
                if going:
                    word, status, kept = wait_keys(base, warpgroup, stage, phase)
                    going = kept != u32(0)
            multiply_weights(total, weight, base, v_stage, v_phase)
            ptx.wgmma_wait_all()
            ptx.mbarrier_arrive(base + V_EMPTY + v_stage * u32(8), leader())
    return stage, phase


@device
def weigh_scores(
    score, word, status, mask_base, column, base, tiles, stage, q_stage, scale_log2, peak, added, rescale,
):
    """A tile's scores become weights; its keys, and queries after the last one, are given back in between."""
    negate(score)
    mask_scores(score, status, mask_base + stage * MASK_BYTES, column)
    limit_scores(score, word >> u32(8), column)
    give_keys_back(base, stage)
    give_queries_back(base, tiles, q_stage)
    softmax(score, scale_log2, peak, added, rescale)


@device
def wait_keys(base, warpgroup, stage, phase):
    """A tile's keys are there; and which of its pairs this group keeps."""
    ptx.mbarrier_wait(base + K_FULL + stage * u32(8), phase)
    word = ptx.load_shared_word(base + TILE_INFO + stage * u32(16))
    status = u32((word >> (u32(2) * warpgroup)) & u32(3))
    kept = ptx.any_lane(u32(1) if status != u32(0) else u32(0))
    return word, status, kept


@device
def skip_tile(base, stage, phase):
    """Give a tile back of which this group keeps nothing."""
    ptx.warp_barrier()  # all lanes have read what the leader gives back
    ptx.mbarrier_arrive(base + K_EMPTY + stage * u32(8), leader())
    # Else a later wait could take the phase before for its own.
    ptx.mbarrier_wait(base + V_FULL + stage * u32(8), phase)
    ptx.mbarrier_arrive(base + V_EMPTY + stage * u32(8), leader())


@device
def give_keys_back(base, stage):
    """Keys and mask may be overwritten."""
    ptx.warp_barrier()  # a leader's arrival alone orders its own reads only (racecheck)
    ptx.mbarrier_arrive(base + K_EMPTY + stage * u32(8), leader())


@device
def give_queries_back(base, tiles, q_stage):
    """Queries may be overwritten, if no tile is left."""
    if tiles == u32(0):
        ptx.mbarrier_arrive(base + Q_EMPTY + q_stage * u32(8), leader())


@device
def queries_at(base, warpgroup, q_stage):
    """The descriptor of this group's queries."""
    first = u64(4611686293305360384) | u64((base + Q_TILE + warpgroup * u32(8192)) >> u32(4))
    return first + u64(q_stage * u32(1024))


@device
def multiply_queries(score, base, q_at, stage):
    """Issue q.k of the tile in ``stage``."""
    k_at = u64(4611686293305360384) | u64((base + K_TILE + stage * K_BYTES) >> u32(4))
    ptx.wgmma_fence()
    score_product(score, q_at + u64(0), k_at + u64(0), u32(0))
    score_product(score, q_at + u64(2), k_at + u64(2), u32(1))
    score_product(score, q_at + u64(4), k_at + u64(4), u32(1))
    score_product(score, q_at + u64(6), k_at + u64(6), u32(1))
    score_product(score, q_at + u64(512), k_at + u64(640), u32(1))
    ptx.wgmma_commit()


@device
def multiply_weights(total, weight, base, v_stage, v_phase):
    """Issue weights.v of the tile in ``v_stage``, once its values have arrived."""
    ptx.mbarrier_wait(base + V_FULL + v_stage * u32(8), v_phase)
    v_at = u64(4611686293347237888) | u64((base + V_TILE + v_stage * V_BYTES) >> u32(4))
    ptx.wgmma_fence()
    value_product(total, weight[0], weight[1], weight[2], weight[3], v_at + u64(0))
    value_product(total, weight[4], weight[5], weight[6], weight[7], v_at + u64(128))
    value_product(total, weight[8], weight[9], weight[10], weight[11], v_at + u64(256))
    value_product(total, weight[12], weight[13], weight[14], weight[15], v_at + u64(384))
    value_product(total, weight[16], weight[17], weight[18], weight[19], v_at + u64(512))
    ptx.wgmma_commit()


@device
def negate(score):
    """The scale was negative."""
    for i in range(40):
        score[i] = -score[i]


@device
def mask_scores(score, status, mask_at, column):
    """Scores of pairs that are not kept become -inf, if this group keeps only some."""
    if ptx.any_lane(u32(1) if status == u32(2) else u32(0)) != u32(0):
        mask_row(score, 0, mask_at, column)
        mask_row(score, 1, mask_at + u32(96), column)


@device
def mask_row(score, row, mask_at, column):
    """The same of one row."""
    mask = cuda.local.array(3, dtype=np.uint32)
    for i in range(3):
        mask[i] = ptx.load_shared_word(mask_at + u32(4) * u32(i)) >> column
    for j in range(10):
        for x in range(2):
            score[4 * j + 2 * row + x] = score[4 * j + 2 * row + x] if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT


@device
def limit_scores(score, valid, column):
    """Scores of keys beyond the batch entry's length become -inf."""
    if valid < u32(80):
        for j in range(10):
            for x in range(2):
                below = column + u32(8 * j + x) < valid
                score[4 * j + 0 + x] = score[4 * j + 0 + x] if below else NONE_KEPT
                score[4 * j + 2 + x] = score[4 * j + 2 + x] if below else NONE_KEPT


@device
def softmax(score, scale_log2, peak, added, rescale):
    """Scores become weights relative to their row's peak; rescale is the factor for what was added up before."""
    for row in range(2):
        top = NONE_KEPT
        for j in range(10):
            top = ptx.maximum(top, ptx.maximum(score[4 * j + 2 * row], score[4 * j + 2 * row + 1]))
        top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
        top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
        before = peak[row]
        now = top if top - before > f32(8.0) else before
        safe = now if now > NONE_KEPT else f32(0.0)
        peak[row] = now
        rescale[row] = ptx.exp2(before - safe)
        weights = f32(0.0)
        for j in range(10):
            score[4 * j + 2 * row] = ptx.exp2(score[4 * j + 2 * row] * scale_log2 - safe)
            score[4 * j + 2 * row + 1] = ptx.exp2(score[4 * j + 2 * row + 1] * scale_log2 - safe)
            weights += score[4 * j + 2 * row] + score[4 * j + 2 * row + 1]
        added[row] = added[row] * rescale[row] + weights


@device
def round_weights(weight, score):
    """Weights in the arrays' dtype, two a word: the left operand of the product with the values."""
    for i in range(20):
        weight[i] = ptx.pack_bfloat16(score[2 * i], score[2 * i + 1])


@device
def bring_to_peak(total, rescale):
    """Bring the accumulator to the new peaks, where any row of the warp has one."""
    if ptx.any_lane(u32(1) if (rescale[0] != f32(1.0)) or (rescale[1] != f32(1.0)) else u32(0)) != u32(0):
        for j in range(9):
            for x in range(2):
                total[4 * j + 0 + x] *= rescale[0]
                total[4 * j + 2 + x] *= rescale[1]


@device
def resume_row(row, q_idx, column, out_at, out_row, rest_at, lse_at, seq_q, total, peak, added):
    """out and lse as a softmax state: a sum of 1 at the peak lse."""
    safe = q_idx if q_idx < seq_q else u32(0)
    peak[row] = ptx.load_state(lse_at + u64(4) * u64(safe)) * f32(1.4426950408889634)
    added[row] = f32(0.0) if peak[row] == NONE_KEPT else f32(0.25)  # four lanes add up to a row, NaN or not
    start = out_at + u64(safe) * out_row + u64(2) * u64(column)
    rest = rest_at + u64(144) * u64(safe) + u64(2) * u64(column)
    for j in range(9):
        total[4 * j + 2 * row], total[4 * j + 2 * row + 1] = whole_pair(start + u64(16) * u64(j), rest + u64(16) * u64(j))


@device
def whole_pair(at, rest_at):
    """Two numbers of out, with what rounding took off."""
    a, b = ptx.unpack_bfloat16(ptx.load_pair(at))
    x, y = ptx.unpack_bfloat16(ptx.load_pair(rest_at))
    return a + x, b + y


@device
def store_row(row, q_idx, column, total, peak, added, out_at, out_row, rest_at, lse, lse_at, seq_q):
    """out = total / sum, 0 where nothing is kept; lse = (peak + log2 sum) ln 2, then -inf."""
    real = u32(1) if q_idx < seq_q else u32(0)  # padding is 2**32 - 1 here
    row_sum = added[row] + ptx.shuffle_xor(added[row], u32(1))
    row_sum += ptx.shuffle_xor(row_sum, u32(2))
    share = ptx.reciprocal(row_sum) if row_sum != f32(0.0) else f32(0.0)
    to = out_at + u64(q_idx) * out_row
    for quarter in range(2):
        store_quarter(total, 16 * quarter + 2 * row, share, to + u64(64) * u64(quarter), real)
    ptx.store_word(to + u64(128) + u64(2) * u64(column), ptx.pack_bfloat16(total[32 + 2 * row + 0] * share, total[32 + 2 * row + 1] * share), real)
    if lse != u64(0):
        safe = f32(0.0) if peak[row] == NONE_KEPT else peak[row]
        one_lane = real if column == u32(0) else u32(0)
        value = (safe + ptx.log2(row_sum)) * f32(0.6931471805599453)
        ptx.store_real(lse_at + u64(4) * u64(q_idx), value, one_lane)
    to = rest_at + u64(144) * u64(q_idx)
    for j in range(9):
        total[4 * j + 2 * row], total[4 * j + 2 * row + 1] = lost_in_rounding(total[4 * j + 2 * row] * share, total[4 * j + 2 * row + 1] * share)
    for quarter in range(2):
        store_quarter(total, 16 * quarter + 2 * row, f32(1.0), to + u64(64) * u64(quarter), real)
    ptx.store_word(to + u64(128) + u64(2) * u64(column), ptx.pack_bfloat16(total[32 + 2 * row + 0] * f32(1.0), total[32 + 2 * row + 1] * f32(1.0)), real)


@device
def lost_in_rounding(a, b):
    """What rounding takes off two numbers; nothing off those that become inf or NaN."""
    x, y = ptx.unpack_bfloat16(ptx.pack_bfloat16(a, b))
    return a - x if abs(x) < f32(np.inf) else f32(0.0), b - y if abs(y) < f32(np.inf) else f32(0.0)


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
