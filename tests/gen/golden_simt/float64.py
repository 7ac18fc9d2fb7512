"""Sparse attention on any GPU, generated for every mask that tables of boxes describe.

head_dim 20, value_dim 40, float64, computed in float64;
64 queries x 32 keys a tile, by 128 threads: 16 lanes share
8 rows; of each a lane has every 16th key and every 16th chunk of results.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

real, f32, u32, u64 = np.float64, np.float32, np.uint32, np.uint64
NONE_KEPT, ZERO = real(-np.inf), real(0.0)
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
joined, words_of = ptx.join_double, ptx.split_double


@device
def double_of(bits):
    """The float64 of these bits."""
    return joined(u32(bits & u64(4294967295)), u32(bits >> u64(32)))


@device
def exp2(x):
    """2**x for x < 1024; subnormal results are 0."""
    shifted = x + real(6755399441055744.0)
    part = x - (shifted - real(6755399441055744.0))
    whole, _ = words_of(shifted)
    power = joined(u32(0), u32(u32(whole + u32(1023)) & u32(2047)) << u32(20))
    y = real(1.3691488853904124e-12)
    y = y * part + real(2.5678435993488196e-11)
    y = y * part + real(4.44553827187081e-10)
    y = y * part + real(7.054911620801121e-09)
    y = y * part + real(1.0178086009239696e-07)
    y = y * part + real(1.3215486790144305e-06)
    y = y * part + real(1.5252733804059838e-05)
    y = y * part + real(0.00015403530393381606)
    y = y * part + real(0.0013333558146428441)
    y = y * part + real(0.009618129107628477)
    y = y * part + real(0.055504108664821576)
    y = y * part + real(0.2402265069591007)
    y = y * part + real(0.6931471805599453)
    y = y * part + real(1.0)
    return ZERO if x < real(-1022.0) else y * power


@device
def log2(x):
    """The logarithm to base 2 of what float32 can hold."""
    y = real(ptx.log2(f32(x)))
    rest = x * exp2(-y) - real(1.0)
    series = rest * (real(1.0) - rest * (real(0.5) - rest * real(0.3333333333333333)))
    return y + series * real(1.4426950408889634) if y > NONE_KEPT else y


@device
def reciprocal(x):
    """1 / x, from 23 bits of it in two steps of Newton's."""
    y = real(ptx.reciprocal(f32(x)))
    y = y * (real(2.0) - x * y)
    return y * (real(2.0) - x * y)


@device
def maximum(a, b):
    """The larger one; a number rather than NaN."""
    return a if (a > b) or (b != b) else b


@device
def from_lane(x, apart):
    """x of the lane whose number differs by these bits."""
    low, high = words_of(x)
    return joined(ptx.shuffle_xor_word(low, apart), ptx.shuffle_xor_word(high, apart))


@device
def read_chunk(place):
    """Two numbers of shared memory."""
    a, b, c, d = ptx.load_shared_words4(place)
    return joined(a, b), joined(c, d)


@device
def write_number(place, x):
    """A number into shared memory."""
    low, high = words_of(x)
    ptx.store_shared_word(place, low, u32(1))
    ptx.store_shared_word(place + u32(4), high, u32(1))


# Shared memory, in bytes from its aligned start. Keys and their values take the tile in turn.
QUERIES, TILE, WEIGHTS = u32(0), u32(11264), u32(22016)


def attention(
    rows, block, piece, bits, views, heads, q, k, v, out, lse, kv_lengths,
    q_row, q_head, q_batch, k_row, k_head, k_batch, v_row, v_head, v_batch, out_row, out_head, out_batch,
    scale_bits,
    blocks, heads_count, batch, heads_per_wave, heads_q, group, seq_q, seq_kv, box_shift, head_steps, key_steps,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    thread = ptx.thread_index()
    row = u32(u32(thread // u32(16)) * u32(8))
    column = u32(thread & u32(15))
    peak = cuda.local.array(8, dtype=np.float64)
    added = cuda.local.array(8, dtype=np.float64)
    total = cuda.local.array(32, dtype=np.float64)
    scale = double_of(scale_bits)
    rank, head, entry = item_of_block(heads, blocks, heads_count, batch, heads_per_wave)
    rows_at = rows + u64(256) * u64(rank)
    row_at = rows_at + u64(4) * u64(row)
    q_at = q + u64(entry) * q_batch + u64(head) * q_head
    k_at = k + u64(entry) * k_batch + u64(head // group) * k_head
    v_at = v + u64(entry) * v_batch + u64(head // group) * v_head
    out_at = out + u64(entry) * out_batch + u64(head) * out_head
    lse_at = lse + u64(8) * (u64(entry) * u64(heads_q) + u64(head)) * u64(seq_q)
    load_queries(q_at, q_row, base + QUERIES, rows_at, seq_q)
    begin_rows(peak, added, total, row_at, out_at, out_row, lse_at, seq_q)
    limit = seq_kv
    limit = ptx.load_word(kv_lengths + u64(4) * u64(entry))
    limit = limit if limit < u32(2147483648) else u32(0)
    limit = limit if limit < seq_kv else seq_kv
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
    score = cuda.local.array(16, dtype=np.float64)
    place = ptx.load_word(block_at + u64(12))
    end = ptx.load_word(block_at + u64(16))
    while place < end:
        view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
        offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
        corner = u32(offset + inner_step * c1 + outer_step * c2)
        status, mask, _, _ = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))
        mask_at = bits + u64(4) * (u64(64) * u64(mask) + u64(row))
        while count > u32(0):
            if corner < limit:
                attend_tile(
                    status, mask_at, corner, inner_step, outer_step, box_shift, limit, k_at, k_row, v_at, v_row, base, row, column,
                    scale, score, peak, added, total, head_steps, key_steps,
                )
            corner = u32(corner + u32(32) * inner_step)
            count = u32(count - u32(1))
        place = u32(place + u32(1))


@device
def attend_tile(
    status, mask_at, corner, inner_step, outer_step, box_shift, limit, k_at, k_row, v_at, v_row, base, row, column,
    scale, score, peak, added, total, head_steps, key_steps,
):
    """One tile: scores, weights, and its values."""
    queries = u32(base + QUERIES + row * u32(176))
    weights = u32(base + WEIGHTS + row * u32(272))
    ptx.block_barrier()  # nobody reads the tile before any more
    load_keys(k_at, k_row, base + TILE, corner, inner_step, outer_step, box_shift, limit)
    ptx.block_barrier()  # the keys are there
    keys = u32(base + TILE + column * u32(176))
    multiply_keys(score, queries, keys, head_steps)
    ptx.block_barrier()  # nobody reads the keys any more
    load_values(v_at, v_row, base + TILE, corner, inner_step, outer_step, box_shift, limit)
    scale_scores(score, scale)
    mask_scores(score, status, mask_at, column)
    limit_scores(score, column, corner, inner_step, outer_step, box_shift, limit)
    softmax(score, u32(weights + column * u32(8)), peak, added, total)
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
    chunks = cuda.local.array(16, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(640):
        fetch_queries(0, begin, chunks, first, step, rows_at, limit)
        fetch_queries(1, begin, chunks, first, step, rows_at, limit)
        fetch_queries(2, begin, chunks, first, step, rows_at, limit)
        fetch_queries(3, begin, chunks, first, step, rows_at, limit)
        store_queries(0, begin, chunks, to)
        store_queries(1, begin, chunks, to)
        store_queries(2, begin, chunks, to)
        store_queries(3, begin, chunks, to)
        begin = u32(begin + u32(512))


@device
def fetch_queries(i, begin, chunks, first, step, rows_at, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(10))
    chunk = u32(number - place * u32(10))
    place = place if place < u32(64) else u32(63)
    token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_queries(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(10))
    chunk = u32(number - place * u32(10))
    mine = u32(1) if place < u32(64) else u32(0)
    at = u32(to + place * u32(176) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], mine)


@device
def load_keys(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """The keys of a tile, into shared memory."""
    chunks = cuda.local.array(12, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(320):
        fetch_keys(0, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(1, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_keys(2, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        store_keys(0, begin, chunks, to)
        store_keys(1, begin, chunks, to)
        store_keys(2, begin, chunks, to)
        begin = u32(begin + u32(384))


@device
def fetch_keys(i, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(10))
    chunk = u32(number - place * u32(10))
    place = place if place < u32(32) else u32(31)
    token = token_of(place, corner, inner_step, outer_step, box_shift)
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_keys(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(10))
    chunk = u32(number - place * u32(10))
    mine = u32(1) if place < u32(32) else u32(0)
    at = u32(to + place * u32(176) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], mine)


@device
def load_values(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """The values of a tile, into shared memory."""
    chunks = cuda.local.array(16, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(640):
        fetch_values(0, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(1, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(2, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_values(3, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        store_values(0, begin, chunks, to)
        store_values(1, begin, chunks, to)
        store_values(2, begin, chunks, to)
        store_values(3, begin, chunks, to)
        begin = u32(begin + u32(512))


@device
def fetch_values(i, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(20))
    chunk = u32(number - place * u32(20))
    place = place if place < u32(32) else u32(31)
    token = token_of(place, corner, inner_step, outer_step, box_shift)
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_values(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(20))
    chunk = u32(number - place * u32(20))
    mine = u32(1) if place < u32(32) else u32(0)
    at = u32(to + place * u32(336) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], mine)


@device
def chunk_of(piece):
    """The chunk of a row's numbers that is this lane's next."""
    return u32(u32(ptx.thread_index() & u32(15)) + u32(16) * u32(piece))


@device
def multiply_keys(score, left, right, steps):
    """Scores of a thread's rows and keys: products of a chunk of their numbers at a time."""
    key = cuda.local.array(4, dtype=np.float64)
    for i in range(16):
        score[i] = ZERO
    for step in range(steps):
        for j in range(2):
            key[2 * j + 0], key[2 * j + 1] = read_chunk(right + u32(2816) * u32(j) + u32(16) * u32(step))
        for i in range(8):
            x_0, x_1 = read_chunk(left + u32(176) * u32(i) + u32(16) * u32(step))
            for j in range(2):
                score[2 * i + j] += x_0 * key[2 * j + 0]
                score[2 * i + j] += x_1 * key[2 * j + 1]


@device
def add_values(total, weights, right, steps):
    """Weights times values: a chunk of a row's weights at a time."""
    weight = cuda.local.array(16, dtype=np.float64)
    place = cuda.local.array(2, dtype=np.uint32)
    for piece in range(2):
        chunk = chunk_of(piece)
        place[piece] = right + u32(16) * (chunk if chunk < u32(20) else u32(0))
    for step in range(steps):
        for i in range(8):
            weight[2 * i + 0], weight[2 * i + 1] = read_chunk(weights + u32(272) * u32(i) + u32(16) * u32(step))
        for x in range(2):
            for piece in range(2):
                y_0, y_1 = read_chunk(place[piece] + u32(336) * u32(u32(2) * u32(step) + u32(x)))
                for i in range(8):
                    total[2 * (2 * i + piece) + 0] += weight[2 * i + x] * y_0
                    total[2 * (2 * i + piece) + 1] += weight[2 * i + x] * y_1


@device
def scale_scores(score, scale):
    """Scores in base 2."""
    for i in range(16):
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
    mask_0 = ptx.load_word(mask_at + u64(4 * i + 0)) >> column
    score[2 * i + 0] = score[2 * i + 0] if (u32(mask_0 >> u32(0)) & u32(1)) != u32(0) else NONE_KEPT
    score[2 * i + 1] = score[2 * i + 1] if (u32(mask_0 >> u32(16)) & u32(1)) != u32(0) else NONE_KEPT


@device
def limit_scores(score, column, corner, inner_step, outer_step, box_shift, limit):
    """Scores of keys beyond the batch entry's length become -inf."""
    below = token_of(u32(column + u32(0)), corner, inner_step, outer_step, box_shift) < limit
    for i in range(8):
        score[2 * i + 0] = score[2 * i + 0] if below else NONE_KEPT
    below = token_of(u32(column + u32(16)), corner, inner_step, outer_step, box_shift) < limit
    for i in range(8):
        score[2 * i + 1] = score[2 * i + 1] if below else NONE_KEPT


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
    for j in range(2):
        top = maximum(top, score[2 * i + j])
    top = top_of_row(top)
    safe = top if top > NONE_KEPT else ZERO
    rescale = exp2(peak[i] - safe)
    peak[i] = top
    weight_sum = ZERO
    for j in range(2):
        weight = exp2(score[2 * i + j] - safe)
        at = weights + u32(272 * i)
        write_number(at + u32(128) * u32(j), weight)
        weight_sum += weight
    added[i] = added[i] * rescale + weight_sum
    for n in range(4):
        total[4 * i + n] *= rescale


@device
def begin_rows(peak, added, total, row_at, out_at, out_row, lse_at, seq_q):
    """A thread's rows."""
    begin_row(0, peak, added, total, row_at, out_at, out_row, lse_at, seq_q)
    begin_row(1, peak, added, total, row_at, out_at, out_row, lse_at, seq_q)
    begin_row(2, peak, added, total, row_at, out_at, out_row, lse_at, seq_q)
    begin_row(3, peak, added, total, row_at, out_at, out_row, lse_at, seq_q)
    begin_row(4, peak, added, total, row_at, out_at, out_row, lse_at, seq_q)
    begin_row(5, peak, added, total, row_at, out_at, out_row, lse_at, seq_q)
    begin_row(6, peak, added, total, row_at, out_at, out_row, lse_at, seq_q)
    begin_row(7, peak, added, total, row_at, out_at, out_row, lse_at, seq_q)


@device
def begin_row(i, peak, added, total, row_at, out_at, out_row, lse_at, seq_q):
    """out and lse as a softmax: a sum of 1 at lse."""
    q_idx = ptx.load_word(row_at + u64(4 * i))
    safe = q_idx if q_idx < seq_q else u32(0)
    peak[i] = load_number(lse_at + u64(8) * u64(safe)) * real(1.4426950408889634)
    added[i] = ZERO if peak[i] == NONE_KEPT else real(0.0625)  # a row's lanes add up, NaN or not
    for piece in range(2):
        chunk = chunk_of(piece)
        chunk = chunk if chunk < u32(20) else u32(0)
        total[2 * (2 * i + piece) + 0], total[2 * (2 * i + piece) + 1] = load_chunk(out_at + u64(safe) * out_row + u64(16) * u64(chunk))


@device
def store_chunk(to, x_0, x_1, when):
    """Neighbouring numbers of an array, as float64."""
    a, b = words_of(x_0)
    c, d = words_of(x_1)
    ptx.store_words4(to, a, b, c, d, when)


@device
def store_number(to, x, when):
    """A number of an array, as float64."""
    low, high = words_of(x)
    ptx.store_word(to, low, when)
    ptx.store_word(to + u64(4), high, when)


@device
def load_chunk(at):
    """Neighbouring numbers of an array that launches may write."""
    return joined(ptx.load_pair(at + u64(0)), ptx.load_pair(at + u64(4))), joined(ptx.load_pair(at + u64(8)), ptx.load_pair(at + u64(12)))


@device
def load_number(at):
    """A number that an earlier launch may have written."""
    return joined(ptx.load_pair(at), ptx.load_pair(at + u64(4)))


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
    for piece in range(2):
        chunk = chunk_of(piece)
        inside = there if chunk < u32(20) else u32(0)
        store_chunk(out_at + u64(q_idx) * out_row + u64(16) * u64(chunk), total[2 * (2 * i + piece) + 0] * factor, total[2 * (2 * i + piece) + 1] * factor, inside)
    if lse != u64(0):
        safe = ZERO if peak[i] == NONE_KEPT else peak[i]
        one_lane = there if column == u32(0) else u32(0)
        level = (safe + log2(row_sum)) * real(0.6931471805599453)
        store_number(lse_at + u64(8) * u64(q_idx), level, one_lane)


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
