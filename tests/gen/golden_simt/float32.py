"""Sparse attention on any GPU, generated for every mask that tables of boxes describe.

head_dim 64, value_dim 64, float32, computed in float32;
64 queries x 64 keys a tile, by 128 threads: 16 lanes share
8 rows; of each a lane has every 16th key and every 16th chunk of results.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

real, f32, u32, u64 = np.float32, np.float32, np.uint32, np.uint64
NONE_KEPT, ZERO = real(-np.inf), real(0.0)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
exp2, log2, reciprocal, maximum = ptx.exp2, ptx.log2, ptx.reciprocal, ptx.maximum
from_lane, read_chunk = ptx.shuffle_xor, ptx.load_shared_reals4


@device
def write_number(place, x):
    """A number into shared memory."""
    ptx.store_shared_word(place, ptx.real_bits(x), u32(1))


# Shared memory, in bytes from its aligned start. Keys and their values take the tile in turn.
QUERIES, TILE, WEIGHTS = u32(0), u32(17408), u32(34816)


def attention(
    rows, block, piece, bits, views, heads, q, k, v, out, lse, kv_lengths,
    q_row, q_head, q_batch, k_row, k_head, k_batch, v_row, v_head, v_batch, out_row, out_head, out_batch,
    scale,
    blocks, heads_count, batch, heads_per_wave, heads_q, group, seq_q, seq_kv, box_shift, head_steps, key_steps,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    thread = ptx.thread_index()
    row = u32(u32(thread // u32(16)) * u32(8))
    column = u32(thread & u32(15))
    peak = cuda.local.array(8, dtype=np.float32)
    added = cuda.local.array(8, dtype=np.float32)
    total = cuda.local.array(32, dtype=np.float32)
    rank, head, entry = item_of_block(heads, blocks, heads_count, batch, heads_per_wave)
    rows_at = rows + u64(256) * u64(rank)
    row_at = rows_at + u64(4) * u64(row)
    q_at = q + u64(entry) * q_batch + u64(head) * q_head
    k_at = k + u64(entry) * k_batch + u64(head // group) * k_head
    v_at = v + u64(entry) * v_batch + u64(head // group) * v_head
    out_at = out + u64(entry) * out_batch + u64(head) * out_head
    lse_at = lse + u64(4) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
    load_queries(q_at, q_row, base + QUERIES, rows_at, seq_q)
    begin_rows(peak, added, total)
    limit = seq_kv
    attend(
        block + u64(32) * u64(rank), piece, views, bits, k_at, k_row, v_at, v_row, base, row, column, scale, peak,
        added, total, box_shift, limit, head_steps, key_steps,
    )
    store_rows(peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)


@device
def attend(
    block_at, piece, views, bits, k_at, k_row, v_at, v_row, base, row, column, scale, peak, added, total, box_shift,
    limit, head_steps, key_steps,
):
    """All tiles of a row block, a piece of neighbouring ones after the other."""
    score = cuda.local.array(32, dtype=np.float32)
    place = ptx.load_word(block_at + u64(12))
    end = ptx.load_word(block_at + u64(16))
    while place < end:
        view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
        offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
        corner = u32(offset + inner_step * c1 + outer_step * c2)
        status, mask, _, _ = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
        mask_at = bits + u64(8) * (u64(64) * u64(mask) + u64(row))
        while count > u32(0):
            attend_tile(
                status, mask_at, corner, inner_step, outer_step, box_shift, limit, k_at, k_row, v_at, v_row, base, row, column,
                scale, score, peak, added, total, head_steps, key_steps,
            )
            corner = u32(corner + u32(64) * inner_step)
            count = u32(count - u32(1))
        place = u32(place + u32(1))


@device
def attend_tile(
    status, mask_at, corner, inner_step, outer_step, box_shift, limit, k_at, k_row, v_at, v_row, base, row, column,
    scale, score, peak, added, total, head_steps, key_steps,
):
    """One tile: scores, weights, and its values."""
    queries = u32(base + QUERIES + row * u32(272))
    weights = u32(base + WEIGHTS + row * u32(272))
    ptx.block_barrier()  # nobody reads the tile before any more
    load_keys(k_at, k_row, base + TILE, corner, inner_step, outer_step, box_shift, limit)
    ptx.block_barrier()  # the keys are there
    keys = u32(base + TILE + column * u32(272))
    multiply_keys(score, queries, keys, head_steps)
    ptx.block_barrier()  # nobody reads the keys any more
    load_values(v_at, v_row, base + TILE, corner, inner_step, outer_step, box_shift, limit)
    scale_scores(score, scale)
    mask_scores(score, status, mask_at, column)
    softmax(score, u32(weights + column * u32(4)), peak, added, total)
    ptx.block_barrier()  # values and weights are there
    add_values(total, weights, base + TILE, key_steps)


@device
def token_of(place, corner, inner_step, outer_step, box_shift):
    """The token at a place of the box that begins at ``corner``."""
    line = u32(place >> box_shift)
    return u32(corner + inner_step * u32(place - u32(line << box_shift)) + outer_step * line)


@device
def load_queries(first, step, to, rows_at, limit):
    """The queries of a tile, into shared memory."""
    chunks = cuda.local.array(32, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(1024):
        fetch_queries(0, begin, chunks, first, step, rows_at, limit)
        fetch_queries(1, begin, chunks, first, step, rows_at, limit)
        fetch_queries(2, begin, chunks, first, step, rows_at, limit)
        fetch_queries(3, begin, chunks, first, step, rows_at, limit)
        fetch_queries(4, begin, chunks, first, step, rows_at, limit)
        fetch_queries(5, begin, chunks, first, step, rows_at, limit)
        fetch_queries(6, begin, chunks, first, step, rows_at, limit)
        fetch_queries(7, begin, chunks, first, step, rows_at, limit)
        store_queries(0, begin, chunks, to)
        store_queries(1, begin, chunks, to)
        store_queries(2, begin, chunks, to)
        store_queries(3, begin, chunks, to)
        store_queries(4, begin, chunks, to)
        store_queries(5, begin, chunks, to)
        store_queries(6, begin, chunks, to)
        store_queries(7, begin, chunks, to)
        begin = u32(begin + u32(1024))


@device
def fetch_queries(i, begin, chunks, first, step, rows_at, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_queries(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    at = u32(to + place * u32(272) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], u32(1))


@device
def load_keys(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """The keys of a tile, into shared memory."""
    chunks = cuda.local.array(32, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(1024):
        fetch_keys(0, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(1, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(2, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(3, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(4, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(5, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(6, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(7, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        store_keys(0, begin, chunks, to)
        store_keys(1, begin, chunks, to)
        store_keys(2, begin, chunks, to)
        store_keys(3, begin, chunks, to)
        store_keys(4, begin, chunks, to)
        store_keys(5, begin, chunks, to)
        store_keys(6, begin, chunks, to)
        store_keys(7, begin, chunks, to)
        begin = u32(begin + u32(1024))


@device
def fetch_keys(i, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    token = token_of(place, corner, inner_step, outer_step, box_shift)
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_keys(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    at = u32(to + place * u32(272) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], u32(1))


@device
def load_values(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """The values of a tile, into shared memory."""
    chunks = cuda.local.array(32, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(1024):
        fetch_values(0, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(1, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(2, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(3, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(4, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(5, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(6, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(7, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        store_values(0, begin, chunks, to)
        store_values(1, begin, chunks, to)
        store_values(2, begin, chunks, to)
        store_values(3, begin, chunks, to)
        store_values(4, begin, chunks, to)
        store_values(5, begin, chunks, to)
        store_values(6, begin, chunks, to)
        store_values(7, begin, chunks, to)
        begin = u32(begin + u32(1024))


@device
def fetch_values(i, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    token = token_of(place, corner, inner_step, outer_step, box_shift)
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_values(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(16))
    chunk = u32(number - place * u32(16))
    at = u32(to + place * u32(272) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], u32(1))


@device
def chunk_of(piece):
    """The chunk of a row's numbers that is this lane's next."""
    return u32(u32(ptx.thread_index() & u32(15)) + u32(16) * u32(piece))


@device
def multiply_keys(score, left, right, steps):
    """Scores of a thread's rows and keys: products of a chunk of their numbers at a time."""
    key = cuda.local.array(16, dtype=np.float32)
    for i in range(32):
        score[i] = ZERO
    for step in range(steps):
        for j in range(4):
            key[4 * j + 0], key[4 * j + 1], key[4 * j + 2], key[4 * j + 3] = read_chunk(right + u32(4352) * u32(j) + u32(16) * u32(step))
        for i in range(8):
            x_0, x_1, x_2, x_3 = read_chunk(left + u32(272) * u32(i) + u32(16) * u32(step))
            for j in range(4):
                score[4 * i + j] += x_0 * key[4 * j + 0]
                score[4 * i + j] += x_1 * key[4 * j + 1]
                score[4 * i + j] += x_2 * key[4 * j + 2]
                score[4 * i + j] += x_3 * key[4 * j + 3]


@device
def add_values(total, weights, right, steps):
    """Weights times values: a chunk of a row's weights at a time."""
    weight = cuda.local.array(32, dtype=np.float32)
    place = cuda.local.array(1, dtype=np.uint32)
    for piece in range(1):
        chunk = chunk_of(piece)
        place[piece] = right + u32(16) * (chunk if chunk < u32(16) else u32(0))
    for step in range(steps):
        for i in range(8):
            weight[4 * i + 0], weight[4 * i + 1], weight[4 * i + 2], weight[4 * i + 3] = read_chunk(weights + u32(272) * u32(i) + u32(16) * u32(step))
        for x in range(4):
            for piece in range(1):
                y_0, y_1, y_2, y_3 = read_chunk(place[piece] + u32(272) * u32(u32(4) * u32(step) + u32(x)))
                for i in range(8):
                    total[4 * (1 * i + piece) + 0] += weight[4 * i + x] * y_0
                    total[4 * (1 * i + piece) + 1] += weight[4 * i + x] * y_1
                    total[4 * (1 * i + piece) + 2] += weight[4 * i + x] * y_2
                    total[4 * (1 * i + piece) + 3] += weight[4 * i + x] * y_3


@device
def scale_scores(score, scale):
    """Scores in base 2."""
    for i in range(32):
        score[i] = score[i] * scale


@device
def mask_scores(score, status, mask_at, column):
    """Scores of pairs that are not kept become -inf, in a tile of which some are."""
    if status == u32(2):
        mask_row(0, score, mask_at, column)
        mask_row(1, score, mask_at, column)
        mask_row(2, score, mask_at, column)
        mask_row(3, score, mask_at, column)
        mask_row(4, score, mask_at, column)
        mask_row(5, score, mask_at, column)
        mask_row(6, score, mask_at, column)
        mask_row(7, score, mask_at, column)


@device
def mask_row(i, score, mask_at, column):
    """The same of one row."""
    mask_0 = ptx.load_word(mask_at + u64(8 * i + 0)) >> column
    mask_1 = ptx.load_word(mask_at + u64(8 * i + 4)) >> column
    score[4 * i + 0] = score[4 * i + 0] if (u32(mask_0 >> u32(0)) & u32(1)) != u32(0) else NONE_KEPT
    score[4 * i + 1] = score[4 * i + 1] if (u32(mask_0 >> u32(16)) & u32(1)) != u32(0) else NONE_KEPT
    score[4 * i + 2] = score[4 * i + 2] if (u32(mask_1 >> u32(0)) & u32(1)) != u32(0) else NONE_KEPT
    score[4 * i + 3] = score[4 * i + 3] if (u32(mask_1 >> u32(16)) & u32(1)) != u32(0) else NONE_KEPT


@device
def top_of_row(x):
    """The largest of what a row's lanes have."""
    x = maximum(x, from_lane(x, u32(1)))
    x = maximum(x, from_lane(x, u32(2)))
    x = maximum(x, from_lane(x, u32(4)))
    x = maximum(x, from_lane(x, u32(8)))
    return x


@device
def sum_of_row(x):
    """The sum of what a row's lanes have."""
    x = x + from_lane(x, u32(1))
    x = x + from_lane(x, u32(2))
    x = x + from_lane(x, u32(4))
    x = x + from_lane(x, u32(8))
    return x


@device
def softmax(score, weights, peak, added, total):
    """Scores become weights relative to their row's peak, in shared memory; sums are brought to a new peak."""
    weigh_row(0, score, weights, peak, added, total)
    weigh_row(1, score, weights, peak, added, total)
    weigh_row(2, score, weights, peak, added, total)
    weigh_row(3, score, weights, peak, added, total)
    weigh_row(4, score, weights, peak, added, total)
    weigh_row(5, score, weights, peak, added, total)
    weigh_row(6, score, weights, peak, added, total)
    weigh_row(7, score, weights, peak, added, total)


@device
def weigh_row(i, score, weights, peak, added, total):
    """The same of one row."""
    top = peak[i]
    for j in range(4):
        top = maximum(top, score[4 * i + j])
    top = top_of_row(top)
    safe = top if top > NONE_KEPT else ZERO
    rescale = exp2(peak[i] - safe)
    peak[i] = top
    weight_sum = ZERO
    for j in range(4):
        weight = exp2(score[4 * i + j] - safe)
        at = weights + u32(272 * i)
        write_number(at + u32(64) * u32(j), weight)
        weight_sum += weight
    added[i] = added[i] * rescale + weight_sum
    for n in range(4):
        total[4 * i + n] *= rescale


@device
def begin_rows(peak, added, total):
    """An empty softmax."""
    for i in range(8):
        peak[i], added[i] = NONE_KEPT, ZERO
    for i in range(32):
        total[i] = ZERO


@device
def store_chunk(to, x_0, x_1, x_2, x_3, when):
    """Neighbouring numbers of an array, as float32."""
    ptx.store_reals4(to, x_0, x_1, x_2, x_3, when)


@device
def store_number(to, x, when):
    """A number of an array, as float32."""
    ptx.store_real(to, x, when)


@device
def store_rows(peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q):
    """A thread's rows."""
    store_row(0, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)
    store_row(1, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)
    store_row(2, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)
    store_row(3, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)
    store_row(4, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)
    store_row(5, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)
    store_row(6, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)
    store_row(7, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q)


@device
def store_row(i, peak, added, total, row_at, column, out_at, out_row, lse, lse_at, seq_q):
    """out = total / sum, 0 where nothing is kept; lse = (peak + log2 sum) ln 2, then -inf."""
    q_idx = ptx.load_word(row_at + u64(4 * i))
    there = u32(1) if q_idx < seq_q else u32(0)  # padding is 2**32 - 1 here
    row_sum = sum_of_row(added[i])
    factor = reciprocal(row_sum) if row_sum != ZERO else ZERO
    for piece in range(1):
        chunk = chunk_of(piece)
        inside = there if chunk < u32(16) else u32(0)
        store_chunk(out_at + u64(q_idx) * out_row + u64(16) * u64(chunk), total[4 * (1 * i + piece) + 0] * factor, total[4 * (1 * i + piece) + 1] * factor, total[4 * (1 * i + piece) + 2] * factor, total[4 * (1 * i + piece) + 3] * factor, inside)
    if lse != u64(0):
        safe = ZERO if peak[i] == NONE_KEPT else peak[i]
        one_lane = there if column == u32(0) else u32(0)
        level = (safe + log2(row_sum)) * real(0.6931471805599453)
        store_number(lse_at + u64(4) * u64(q_idx), level, one_lane)


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
