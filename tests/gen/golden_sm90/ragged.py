"""Sparse attention on Hopper, generated for every mask that tables of boxes describe.

head_dim 80, value_dim 72, bfloat16; 64 queries x 80 keys a tile.
A block is 1 x 128 threads, each for 64 queries, and a producer that fetches boxes of q, k and v,
2 tiles ahead; blocks take items (row block, head, batch entry) in turn, longest row blocks first.
"""

import numpy as np
from numba import cuda

from splat_numba.runtime.cuda import intrinsics as ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
NONE_KEPT = f32(-np.inf)
fewer_registers = ptx.release_registers(56)
more_registers = ptx.claim_registers(200)
score_product = ptx.matrix_product(80, "bfloat16", from_registers=False, transposed=False)
value_product = ptx.matrix_product(72, "bfloat16", from_registers=True, transposed=True)


def attention(
    q_maps, kv_maps, rows, block, piece, bits, heads, kv_lengths, views, out, lse, counter,
    scale_log2,
    blocks, heads_count, heads_q, group, batch, heads_per_wave, seq_q, q_views, kv_views,
    out_row, out_head, out_batch,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(1023)) & u32(4294966272))
    q_tile = base
    k_tile = u32(base + u32(16384))
    v_tile = u32(base + u32(57344))
    mask_tile = u32(base + u32(98304))
    tile_info = u32(base + u32(99840))
    item_info = u32(base + u32(99872))
    q_full = u32(base + u32(99888))
    q_empty = u32(base + u32(99896))
    k_full = u32(base + u32(99904))
    k_empty = u32(base + u32(99920))
    v_full = u32(base + u32(99936))
    v_empty = u32(base + u32(99952))
    thread = ptx.thread_index()
    warpgroup = u32(thread >> u32(7))
    lane = u32(thread & u32(31))
    items = u32(blocks * heads_count * batch)
    cleared = base + u32(99968)
    if thread == u32(0):
        ptx.mbarrier_init(q_full + u32(0), u32(1))
        ptx.mbarrier_init(q_empty + u32(0), u32(4))
        ptx.mbarrier_init(k_full + u32(0), u32(1))
        ptx.mbarrier_init(k_empty + u32(0), u32(4))
        ptx.mbarrier_init(v_full + u32(0), u32(1))
        ptx.mbarrier_init(v_empty + u32(0), u32(4))
        ptx.mbarrier_init(k_full + u32(8), u32(1))
        ptx.mbarrier_init(k_empty + u32(8), u32(4))
        ptx.mbarrier_init(v_full + u32(8), u32(1))
        ptx.mbarrier_init(v_empty + u32(8), u32(4))
        ptx.mbarrier_init(cleared, u32(1))
        ptx.fence_mbarrier_init()
    ptx.block_barrier()
    if warpgroup == u32(1):
        fewer_registers()
        if thread < u32(160):
            leader = u32(1) if lane == u32(0) else u32(0)
            stage = u32(0)
            free = u32(1)  # parity of the phase in which a stage was given back; a fresh barrier counts as given back
            q_stage = u32(0)
            q_free = u32(1)
            for place in range(q_views):
                ptx.fence_tensor_map(q_maps + u64(128) * u64(place))
            for place in range(u32(2) * kv_views):
                ptx.fence_tensor_map(kv_maps + u64(128) * u64(place))
            k1 = k2 = status = bits_0 = bits_1 = bits_2 = u32(0)
            k_map = u64(0)
            item = ptx.block_index()
            cleared_phase = token = inner_step = kept_status = u32(0)
            number = u32(item)
            wave_items = u32(heads_per_wave * blocks)
            wave = u32(number // wave_items)
            left = u32(number - wave * wave_items)
            first_pair = u32(wave * heads_per_wave)
            width = u32(min(heads_per_wave, u32(heads_count * batch - first_pair)))
            next_rank = u32(left // width)
            pair = u32(first_pair + left - next_rank * width)
            next_entry = u32(pair // heads_count)
            head_at = heads + u64(4) * u64(pair - next_entry * heads_count)
            word_at = block + u64(32) * u64(next_rank) + u64(4) * u64(lane)
            next_words = ptx.load_word(word_at if lane < u32(8) else head_at)  # one register, where nine would be spilled
            while item < items:
                rank, entry = next_rank, next_entry
                view = ptx.word_of_lane(next_words, u32(0))
                c1 = ptx.word_of_lane(next_words, u32(1))
                c2 = ptx.word_of_lane(next_words, u32(2))
                first_piece = ptx.word_of_lane(next_words, u32(3))
                end_of_pieces = ptx.word_of_lane(next_words, u32(4))
                tiles = ptx.word_of_lane(next_words, u32(5))
                head = ptx.word_of_lane(next_words, u32(8))
                kv_head = u32(head // group)
                ptx.mbarrier_wait(q_empty + q_stage * u32(8), q_free)
                ptx.store_shared_words4(item_info + q_stage * u32(16), tiles, rank, head, entry, leader)
                ptx.mbarrier_expect(q_full + q_stage * u32(8), u32(16384), leader)
                ptx.tensor_copy(q_tile + q_stage * u32(16384) + u32(0), q_maps + u64(128) * u64(view), q_full + q_stage * u32(8), u32(0), c1, c2, head, entry, leader)
                ptx.tensor_copy(q_tile + q_stage * u32(16384) + u32(8192), q_maps + u64(128) * u64(view), q_full + q_stage * u32(8), u32(64), c1, c2, head, entry, leader)
                q_free = u32(q_free ^ u32(1))
                length = ptx.load_word(kv_lengths + u64(4) * u64(entry))
                taken = ptx.fetch_add(counter, u32(1), leader)  # blocks take what is left in turn
                place = first_piece
                count = u32(0)
                while place < end_of_pieces:
                    if count == u32(0):
                        kv_view, k1, k2, count = ptx.load_words4(piece + u64(32) * u64(place))
                        status, bits_0, bits_1, bits_2 = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
                        k_map = kv_maps + u64(256) * u64(kv_view)
                        offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(kv_view))
                        token = u32(offset + inner_step * k1 + outer_step * k2)
                        kept_status = status
                    valid = u32(0)
                    if token < length:
                        valid = u32(min(u32(length - token + inner_step - u32(1)) // inner_step, u32(80)))
                    status = u32(kept_status | (valid << u32(8)))
                    if valid == u32(0):
                        status = u32(0)
                    ptx.mbarrier_wait(k_empty + stage * u32(8), free)
                    ptx.store_shared_words4(tile_info + stage * u32(16), status, bits_0, bits_1, bits_2, leader)
                    masked = u32(1) if (status & u32(2)) != u32(0) else u32(0)
                    mask_bytes = u32(masked) * u32(768)
                    ptx.mbarrier_expect(k_full + stage * u32(8), u32(20480) + mask_bytes, leader)
                    ptx.bulk_copy(mask_tile + stage * u32(768) + u32(0), bits + u64(768) * u64(bits_0), u32(768), k_full + stage * u32(8), leader & masked)
                    ptx.tensor_copy(k_tile + stage * u32(20480) + u32(0), k_map, k_full + stage * u32(8), u32(0), k1, k2, kv_head, entry, leader)
                    ptx.tensor_copy(k_tile + stage * u32(20480) + u32(10240), k_map, k_full + stage * u32(8), u32(64), k1, k2, kv_head, entry, leader)
                    ptx.mbarrier_wait(v_empty + stage * u32(8), free)
                    if valid == u32(80):
                        ptx.mbarrier_expect(v_full + stage * u32(8), u32(20480), leader)
                        ptx.tensor_copy(v_tile + stage * u32(20480) + u32(0), k_map + u64(128), v_full + stage * u32(8), u32(0), k1, k2, kv_head, entry, leader)
                        ptx.tensor_copy(v_tile + stage * u32(20480) + u32(10240), k_map + u64(128), v_full + stage * u32(8), u32(64), k1, k2, kv_head, entry, leader)
                    else:
                        ptx.mbarrier_expect(cleared, u32(20480), leader)
                        ptx.tensor_copy(v_tile + stage * u32(20480) + u32(0), k_map + u64(128), cleared, u32(0), k1, k2, kv_head, entry, leader)
                        ptx.tensor_copy(v_tile + stage * u32(20480) + u32(10240), k_map + u64(128), cleared, u32(64), k1, k2, kv_head, entry, leader)
                        ptx.mbarrier_wait(cleared, cleared_phase)
                        cleared_phase = u32(cleared_phase ^ u32(1))
                        for token_in_tile in range(valid, u32(80)):
                            ptx.store_shared_word(v_tile + stage * u32(20480) + u32(0) + u32(token_in_tile) * u32(128) + lane * u32(4), u32(0), u32(1))
                            ptx.store_shared_word(v_tile + stage * u32(20480) + u32(10240) + u32(token_in_tile) * u32(128) + lane * u32(4), u32(0), u32(1))
                        ptx.fence_shared()
                        ptx.warp_barrier()
                        ptx.mbarrier_arrive(v_full + stage * u32(8), leader)
                    k1 = u32(k1 + u32(80))
                    token = u32(token + inner_step * u32(80))
                    stage = u32(stage + u32(1))
                    if stage == u32(2):
                        stage = u32(0)
                        free = u32(free ^ u32(1))
                    count = u32(count - u32(1))
                    if count == u32(0):
                        place = u32(place + u32(1))
                item = u32(ptx.grid_size() + ptx.word_of_lane(taken, u32(0)))
                number = u32(min(item, items - u32(1)))
                wave_items = u32(heads_per_wave * blocks)
                wave = u32(number // wave_items)
                left = u32(number - wave * wave_items)
                first_pair = u32(wave * heads_per_wave)
                width = u32(min(heads_per_wave, u32(heads_count * batch - first_pair)))
                next_rank = u32(left // width)
                pair = u32(first_pair + left - next_rank * width)
                next_entry = u32(pair // heads_count)
                head_at = heads + u64(4) * u64(pair - next_entry * heads_count)
                word_at = block + u64(32) * u64(next_rank) + u64(4) * u64(lane)
                next_words = ptx.load_word(word_at if lane < u32(8) else head_at)  # one register, where nine would be spilled
            ptx.mbarrier_wait(q_empty + q_stage * u32(8), q_free)
            ptx.store_shared_words4(item_info + q_stage * u32(16), u32(0), u32(4294967295), u32(0), u32(0), leader)
            ptx.mbarrier_arrive(q_full + q_stage * u32(8), leader)
            ended = ptx.word_of_lane(ptx.fetch_add(counter + u64(4), u32(1), leader), u32(0)) + u32(1)
            last_block = leader if ended == ptx.grid_size() else u32(0)
            ptx.store_word(counter, u32(0), last_block)
            ptx.store_word(counter + u64(4), u32(0), last_block)
    else:
        more_registers()
        leader = u32(1) if lane == u32(0) else u32(0)  # each warp gives back for itself: no warp may lag behind another
        row_in_group = ((thread >> u32(5)) & u32(3)) * u32(16) + (lane >> u32(2))  # and the row 8 further on
        column = (lane & u32(3)) * u32(2)
        q_descriptor = u64(4611686293305360384) | u64((q_tile + warpgroup * u32(8192)) >> u32(4))
        total = cuda.local.array(36, dtype=np.float32)
        score = cuda.local.array(40, dtype=np.float32)
        weight = cuda.local.array(20, dtype=np.uint32)
        for i in range(40):
            score[i] = f32(0.0)
        stage = u32(0)
        phase = u32(0)
        q_stage = u32(0)
        q_phase = u32(0)
        mask = cuda.local.array(3, dtype=np.uint32)
        mask_base = mask_tile + warpgroup * u32(768) + row_in_group * u32(12)
        while True:
            ptx.mbarrier_wait(q_full + q_stage * u32(8), q_phase)
            tiles_left, rank, head, entry = ptx.load_shared_words4(item_info + q_stage * u32(16))
            if rank == u32(4294967295):
                break
            ptx.warp_barrier()  # all lanes have read it before the leader gives anything back
            q_held = True
            q_at = q_descriptor + u64(q_stage * u32(1024))
            row_at = rows + u64(4) * (u64(rank) * u64(64) + u64(warpgroup * u32(64) + row_in_group))
            row_0 = ptx.load_word(row_at)
            row_1 = ptx.load_word(row_at + u64(32))
            real_0 = u32(1) if row_0 < seq_q else u32(0)  # padding is 2**32 - 1 here
            real_1 = u32(1) if row_1 < seq_q else u32(0)
            out_at = out + u64(entry) * out_batch + u64(head) * out_head
            lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
            safe_0 = row_0 if real_0 else u32(0)
            peak_0 = ptx.load_state(lse_at + u64(4) * u64(safe_0)) * f32(1.4426950408889634)
            sum_0 = f32(0.0) if peak_0 == NONE_KEPT else f32(0.25)  # four lanes add up to a row, NaN or not
            from_0 = out_at + u64(safe_0) * out_row + u64(2) * u64(column)
            total[0], total[1] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(0)))
            total[4], total[5] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(16)))
            total[8], total[9] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(32)))
            total[12], total[13] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(48)))
            total[16], total[17] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(64)))
            total[20], total[21] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(80)))
            total[24], total[25] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(96)))
            total[28], total[29] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(112)))
            total[32], total[33] = ptx.unpack_bfloat16(ptx.load_pair(from_0 + u64(128)))
            safe_1 = row_1 if real_1 else u32(0)
            peak_1 = ptx.load_state(lse_at + u64(4) * u64(safe_1)) * f32(1.4426950408889634)
            sum_1 = f32(0.0) if peak_1 == NONE_KEPT else f32(0.25)  # four lanes add up to a row, NaN or not
            from_1 = out_at + u64(safe_1) * out_row + u64(2) * u64(column)
            total[2], total[3] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(0)))
            total[6], total[7] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(16)))
            total[10], total[11] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(32)))
            total[14], total[15] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(48)))
            total[18], total[19] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(64)))
            total[22], total[23] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(80)))
            total[26], total[27] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(96)))
            total[30], total[31] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(112)))
            total[34], total[35] = ptx.unpack_bfloat16(ptx.load_pair(from_1 + u64(128)))
            while tiles_left > u32(0):
                ptx.mbarrier_wait(k_full + stage * u32(8), phase)
                word = ptx.load_shared_word(tile_info + stage * u32(16))
                status = u32((word >> (u32(2) * warpgroup)) & u32(3))
                kept = ptx.any_lane(u32(1) if status != u32(0) else u32(0))
                if kept == u32(0):
                    ptx.warp_barrier()
                    tiles_left = u32(tiles_left - u32(1))
                    ptx.mbarrier_arrive(k_empty + stage * u32(8), leader)
                    ptx.mbarrier_wait(v_full + stage * u32(8), phase)  # else a later wait could take the phase before for its own
                    ptx.mbarrier_arrive(v_empty + stage * u32(8), leader)
                    stage = u32(stage + u32(1))
                    if stage == u32(2):
                        stage = u32(0)
                        phase = u32(phase ^ u32(1))
                else:
                    k_descriptor = u64(4611686293305360384) | u64((k_tile + stage * u32(20480)) >> u32(4))
                    ptx.wgmma_fence()
                    score_product(score, q_at + u64(0), k_descriptor + u64(0), u32(0))
                    score_product(score, q_at + u64(2), k_descriptor + u64(2), u32(1))
                    score_product(score, q_at + u64(4), k_descriptor + u64(4), u32(1))
                    score_product(score, q_at + u64(6), k_descriptor + u64(6), u32(1))
                    score_product(score, q_at + u64(512), k_descriptor + u64(640), u32(1))
                    ptx.wgmma_commit()
                    ptx.wgmma_wait_all()
                    for i in range(40):
                        score[i] = -score[i]
                    if ptx.any_lane(u32(1) if status == u32(2) else u32(0)) != u32(0):
                        mask[0] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(0) + u32(0)) >> column
                        mask[1] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(0) + u32(4)) >> column
                        mask[2] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(0) + u32(8)) >> column
                        for j in range(10):
                            for x in range(2):
                                score[4 * j + 0 + x] = score[4 * j + 0 + x] if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT
                        mask[0] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(96) + u32(0)) >> column
                        mask[1] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(96) + u32(4)) >> column
                        mask[2] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(96) + u32(8)) >> column
                        for j in range(10):
                            for x in range(2):
                                score[4 * j + 2 + x] = score[4 * j + 2 + x] if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT
                    valid = word >> u32(8)
                    if valid < u32(80):
                        for j in range(10):
                            for x in range(2):
                                below = column + u32(8 * j + x) < valid
                                score[4 * j + 0 + x] = score[4 * j + 0 + x] if below else NONE_KEPT
                                score[4 * j + 2 + x] = score[4 * j + 2 + x] if below else NONE_KEPT
                    tiles_left = u32(tiles_left - u32(1))
                    ptx.warp_barrier()
                    ptx.mbarrier_arrive(k_empty + stage * u32(8), leader)
                    if tiles_left == u32(0):
                        ptx.mbarrier_arrive(q_empty + q_stage * u32(8), leader)
                        q_held = False
                    top = NONE_KEPT
                    for j in range(10):
                        top = ptx.maximum(top, ptx.maximum(score[4 * j + 0], score[4 * j + 1]))
                    top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
                    top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
                    before = peak_0
                    peak_0 = top if top - before > f32(8.0) else before
                    safe = peak_0 if peak_0 > NONE_KEPT else f32(0.0)
                    rescale_0 = ptx.exp2(before - safe)
                    added = f32(0.0)
                    for j in range(10):
                        score[4 * j + 0] = ptx.exp2(score[4 * j + 0] * scale_log2 - safe)
                        score[4 * j + 1] = ptx.exp2(score[4 * j + 1] * scale_log2 - safe)
                        added += score[4 * j + 0] + score[4 * j + 1]
                    sum_0 = sum_0 * rescale_0 + added
                    top = NONE_KEPT
                    for j in range(10):
                        top = ptx.maximum(top, ptx.maximum(score[4 * j + 2], score[4 * j + 3]))
                    top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
                    top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
                    before = peak_1
                    peak_1 = top if top - before > f32(8.0) else before
                    safe = peak_1 if peak_1 > NONE_KEPT else f32(0.0)
                    rescale_1 = ptx.exp2(before - safe)
                    added = f32(0.0)
                    for j in range(10):
                        score[4 * j + 2] = ptx.exp2(score[4 * j + 2] * scale_log2 - safe)
                        score[4 * j + 3] = ptx.exp2(score[4 * j + 3] * scale_log2 - safe)
                        added += score[4 * j + 2] + score[4 * j + 3]
                    sum_1 = sum_1 * rescale_1 + added
                    for i in range(20):
                        weight[i] = ptx.pack_bfloat16(score[2 * i], score[2 * i + 1])
                    if ptx.any_lane(u32(1) if (rescale_0 != f32(1.0)) or (rescale_1 != f32(1.0)) else u32(0)) != u32(0):
                        for j in range(9):
                            for x in range(2):
                                total[4 * j + 0 + x] *= rescale_0
                                total[4 * j + 2 + x] *= rescale_1
                    v_stage = stage
                    v_phase = phase
                    stage = u32(stage + u32(1))
                    if stage == u32(2):
                        stage = u32(0)
                        phase = u32(phase ^ u32(1))
                    going = tiles_left > u32(0)
                    if going:
                        ptx.mbarrier_wait(k_full + stage * u32(8), phase)
                        word = ptx.load_shared_word(tile_info + stage * u32(16))
                        status = u32((word >> (u32(2) * warpgroup)) & u32(3))
                        kept = ptx.any_lane(u32(1) if status != u32(0) else u32(0))
                        going = kept != u32(0)
                    while going:
                        k_descriptor = u64(4611686293305360384) | u64((k_tile + stage * u32(20480)) >> u32(4))
                        ptx.wgmma_fence()
                        score_product(score, q_at + u64(0), k_descriptor + u64(0), u32(0))
                        score_product(score, q_at + u64(2), k_descriptor + u64(2), u32(1))
                        score_product(score, q_at + u64(4), k_descriptor + u64(4), u32(1))
                        score_product(score, q_at + u64(6), k_descriptor + u64(6), u32(1))
                        score_product(score, q_at + u64(512), k_descriptor + u64(640), u32(1))
                        ptx.wgmma_commit()
                        ptx.mbarrier_wait(v_full + v_stage * u32(8), v_phase)
                        v_descriptor = u64(4611686293347237888) | u64((v_tile + v_stage * u32(20480)) >> u32(4))
                        ptx.wgmma_fence()
                        value_product(total, weight[0], weight[1], weight[2], weight[3], v_descriptor + u64(0))
                        value_product(total, weight[4], weight[5], weight[6], weight[7], v_descriptor + u64(128))
                        value_product(total, weight[8], weight[9], weight[10], weight[11], v_descriptor + u64(256))
                        value_product(total, weight[12], weight[13], weight[14], weight[15], v_descriptor + u64(384))
                        value_product(total, weight[16], weight[17], weight[18], weight[19], v_descriptor + u64(512))
                        ptx.wgmma_commit()
                        ptx.wgmma_wait_but_one()
                        for i in range(40):
                            score[i] = -score[i]
                        if ptx.any_lane(u32(1) if status == u32(2) else u32(0)) != u32(0):
                            mask[0] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(0) + u32(0)) >> column
                            mask[1] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(0) + u32(4)) >> column
                            mask[2] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(0) + u32(8)) >> column
                            for j in range(10):
                                for x in range(2):
                                    score[4 * j + 0 + x] = score[4 * j + 0 + x] if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT
                            mask[0] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(96) + u32(0)) >> column
                            mask[1] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(96) + u32(4)) >> column
                            mask[2] = ptx.load_shared_word(mask_base + stage * u32(768) + u32(96) + u32(8)) >> column
                            for j in range(10):
                                for x in range(2):
                                    score[4 * j + 2 + x] = score[4 * j + 2 + x] if mask[j >> 2] & u32(1 << (8 * (j & 3) + x)) else NONE_KEPT
                        valid = word >> u32(8)
                        if valid < u32(80):
                            for j in range(10):
                                for x in range(2):
                                    below = column + u32(8 * j + x) < valid
                                    score[4 * j + 0 + x] = score[4 * j + 0 + x] if below else NONE_KEPT
                                    score[4 * j + 2 + x] = score[4 * j + 2 + x] if below else NONE_KEPT
                        tiles_left = u32(tiles_left - u32(1))
                        ptx.warp_barrier()
                        ptx.mbarrier_arrive(k_empty + stage * u32(8), leader)
                        if tiles_left == u32(0):
                            ptx.mbarrier_arrive(q_empty + q_stage * u32(8), leader)
                            q_held = False
                        top = NONE_KEPT
                        for j in range(10):
                            top = ptx.maximum(top, ptx.maximum(score[4 * j + 0], score[4 * j + 1]))
                        top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
                        top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
                        before = peak_0
                        peak_0 = top if top - before > f32(8.0) else before
                        safe = peak_0 if peak_0 > NONE_KEPT else f32(0.0)
                        rescale_0 = ptx.exp2(before - safe)
                        added = f32(0.0)
                        for j in range(10):
                            score[4 * j + 0] = ptx.exp2(score[4 * j + 0] * scale_log2 - safe)
                            score[4 * j + 1] = ptx.exp2(score[4 * j + 1] * scale_log2 - safe)
                            added += score[4 * j + 0] + score[4 * j + 1]
                        sum_0 = sum_0 * rescale_0 + added
                        top = NONE_KEPT
                        for j in range(10):
                            top = ptx.maximum(top, ptx.maximum(score[4 * j + 2], score[4 * j + 3]))
                        top = ptx.maximum(top, ptx.shuffle_xor(top, u32(1)))
                        top = ptx.maximum(top, ptx.shuffle_xor(top, u32(2))) * scale_log2
                        before = peak_1
                        peak_1 = top if top - before > f32(8.0) else before
                        safe = peak_1 if peak_1 > NONE_KEPT else f32(0.0)
                        rescale_1 = ptx.exp2(before - safe)
                        added = f32(0.0)
                        for j in range(10):
                            score[4 * j + 2] = ptx.exp2(score[4 * j + 2] * scale_log2 - safe)
                            score[4 * j + 3] = ptx.exp2(score[4 * j + 3] * scale_log2 - safe)
                            added += score[4 * j + 2] + score[4 * j + 3]
                        sum_1 = sum_1 * rescale_1 + added
                        ptx.mbarrier_wait(v_full + stage * u32(8), phase)
                        ptx.wgmma_wait_all()
                        ptx.mbarrier_arrive(v_empty + v_stage * u32(8), leader)
                        for i in range(20):
                            weight[i] = ptx.pack_bfloat16(score[2 * i], score[2 * i + 1])
                        if ptx.any_lane(u32(1) if (rescale_0 != f32(1.0)) or (rescale_1 != f32(1.0)) else u32(0)) != u32(0):
                            for j in range(9):
                                for x in range(2):
                                    total[4 * j + 0 + x] *= rescale_0
                                    total[4 * j + 2 + x] *= rescale_1
                        v_stage = stage
                        v_phase = phase
                        stage = u32(stage + u32(1))
                        if stage == u32(2):
                            stage = u32(0)
                            phase = u32(phase ^ u32(1))
                        going = tiles_left > u32(0)
                        if going:
                            ptx.mbarrier_wait(k_full + stage * u32(8), phase)
                            word = ptx.load_shared_word(tile_info + stage * u32(16))
                            status = u32((word >> (u32(2) * warpgroup)) & u32(3))
                            kept = ptx.any_lane(u32(1) if status != u32(0) else u32(0))
                            going = kept != u32(0)
                    ptx.mbarrier_wait(v_full + v_stage * u32(8), v_phase)
                    v_descriptor = u64(4611686293347237888) | u64((v_tile + v_stage * u32(20480)) >> u32(4))
                    ptx.wgmma_fence()
                    value_product(total, weight[0], weight[1], weight[2], weight[3], v_descriptor + u64(0))
                    value_product(total, weight[4], weight[5], weight[6], weight[7], v_descriptor + u64(128))
                    value_product(total, weight[8], weight[9], weight[10], weight[11], v_descriptor + u64(256))
                    value_product(total, weight[12], weight[13], weight[14], weight[15], v_descriptor + u64(384))
                    value_product(total, weight[16], weight[17], weight[18], weight[19], v_descriptor + u64(512))
                    ptx.wgmma_commit()
                    ptx.wgmma_wait_all()
                    ptx.mbarrier_arrive(v_empty + v_stage * u32(8), leader)
            if q_held:
                ptx.mbarrier_arrive(q_empty + q_stage * u32(8), leader)
            real_0 = u32(1) if row_0 < seq_q else u32(0)  # padding is 2**32 - 1 here
            real_1 = u32(1) if row_1 < seq_q else u32(0)
            out_at = out + u64(entry) * out_batch + u64(head) * out_head
            lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
            odd = lane & u32(1)
            upper = lane & u32(2)
            chunk = u64(16) * u64(lane & u32(3))
            sum_0 += ptx.shuffle_xor(sum_0, u32(1))
            sum_0 += ptx.shuffle_xor(sum_0, u32(2))
            share = ptx.reciprocal(sum_0) if sum_0 != f32(0.0) else f32(0.0)
            to = out_at + u64(row_0) * out_row
            for quarter in range(2):
                word_0 = ptx.pack_bfloat16(total[16 * quarter + 0] * share, total[16 * quarter + 1] * share)
                word_1 = ptx.pack_bfloat16(total[16 * quarter + 4] * share, total[16 * quarter + 5] * share)
                word_2 = ptx.pack_bfloat16(total[16 * quarter + 8] * share, total[16 * quarter + 9] * share)
                word_3 = ptx.pack_bfloat16(total[16 * quarter + 12] * share, total[16 * quarter + 13] * share)
                got_0 = ptx.shuffle_xor_word(ptx.select(word_0, word_1, odd), u32(1))
                got_1 = ptx.shuffle_xor_word(ptx.select(word_2, word_3, odd), u32(1))
                low_0 = ptx.select(got_0, word_0, odd)
                low_1 = ptx.select(word_1, got_0, odd)
                high_0 = ptx.select(got_1, word_2, odd)
                high_1 = ptx.select(word_3, got_1, odd)
                got_0 = ptx.shuffle_xor_word(ptx.select(low_0, high_0, upper), u32(2))
                got_1 = ptx.shuffle_xor_word(ptx.select(low_1, high_1, upper), u32(2))
                ptx.store_words4(
                    to + u64(64) * u64(quarter) + chunk,
                    ptx.select(got_0, low_0, upper),
                    ptx.select(got_1, low_1, upper),
                    ptx.select(high_0, got_0, upper),
                    ptx.select(high_1, got_1, upper),
                    real_0,
                )
            ptx.store_word(to + u64(128) + u64(2) * u64(column), ptx.pack_bfloat16(total[32] * share, total[33] * share), real_0)
            if lse != u64(0):
                safe = f32(0.0) if peak_0 == NONE_KEPT else peak_0
                one_lane = real_0 if column == u32(0) else u32(0)
                value = (safe + ptx.log2(sum_0)) * f32(0.6931471805599453)
                ptx.store_real(lse_at + u64(4) * u64(row_0), value, one_lane)
            sum_1 += ptx.shuffle_xor(sum_1, u32(1))
            sum_1 += ptx.shuffle_xor(sum_1, u32(2))
            share = ptx.reciprocal(sum_1) if sum_1 != f32(0.0) else f32(0.0)
            to = out_at + u64(row_1) * out_row
            for quarter in range(2):
                word_0 = ptx.pack_bfloat16(total[16 * quarter + 2] * share, total[16 * quarter + 3] * share)
                word_1 = ptx.pack_bfloat16(total[16 * quarter + 6] * share, total[16 * quarter + 7] * share)
                word_2 = ptx.pack_bfloat16(total[16 * quarter + 10] * share, total[16 * quarter + 11] * share)
                word_3 = ptx.pack_bfloat16(total[16 * quarter + 14] * share, total[16 * quarter + 15] * share)
                got_0 = ptx.shuffle_xor_word(ptx.select(word_0, word_1, odd), u32(1))
                got_1 = ptx.shuffle_xor_word(ptx.select(word_2, word_3, odd), u32(1))
                low_0 = ptx.select(got_0, word_0, odd)
                low_1 = ptx.select(word_1, got_0, odd)
                high_0 = ptx.select(got_1, word_2, odd)
                high_1 = ptx.select(word_3, got_1, odd)
                got_0 = ptx.shuffle_xor_word(ptx.select(low_0, high_0, upper), u32(2))
                got_1 = ptx.shuffle_xor_word(ptx.select(low_1, high_1, upper), u32(2))
                ptx.store_words4(
                    to + u64(64) * u64(quarter) + chunk,
                    ptx.select(got_0, low_0, upper),
                    ptx.select(got_1, low_1, upper),
                    ptx.select(high_0, got_0, upper),
                    ptx.select(high_1, got_1, upper),
                    real_1,
                )
            ptx.store_word(to + u64(128) + u64(2) * u64(column), ptx.pack_bfloat16(total[34] * share, total[35] * share), real_1)
            if lse != u64(0):
                safe = f32(0.0) if peak_1 == NONE_KEPT else peak_1
                one_lane = real_1 if column == u32(0) else u32(0)
                value = (safe + ptx.log2(sum_1)) * f32(0.6931471805599453)
                ptx.store_real(lse_at + u64(4) * u64(row_1), value, one_lane)
            q_phase = u32(q_phase ^ u32(1))
