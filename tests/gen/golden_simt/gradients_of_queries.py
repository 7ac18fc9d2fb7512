"""dq of sparse attention on any GPU, for every mask that boxes describe.

head_dim 33, value_dim 17, bfloat16, computed in float32;
64 queries x 32 keys a tile, by 128 threads; left are q and dout, right
k and v. 16 lanes share 8 rows; of each a lane has every 16th column.
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


INFINITE = real(np.inf)
# Shared memory, in bytes from its aligned start.
LEFT_1, LEFT_2, RIGHT_1, RIGHT_2, WEIGHTS = u32(0), u32(11264), u32(18432), u32(24064), u32(27648)


def attention_gradients(
    rows, block, piece, bits, views, owners, heads, left_1, left_2, right_1, right_2, dq,
    levels, kv_lengths,
    left_1_row, left_1_head, left_1_batch, left_2_row, left_2_head, left_2_batch, right_1_row, right_1_head, right_1_batch, right_2_row, right_2_head, right_2_batch,
    dq_row, dq_head, dq_batch,
    scale_log2, scale,
    blocks, heads_count, batch, heads_per_wave, heads_levels, seq_left, seq_right, seq_q, box_shift, first_steps, second_steps, pair_steps,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    thread = ptx.thread_index()
    row = u32(u32(thread // u32(16)) * u32(8))
    column = u32(thread & u32(15))
    score = cuda.local.array(16, dtype=np.float32)
    slope = cuda.local.array(16, dtype=np.float32)
    lse = cuda.local.array(8, dtype=np.float32)
    delta = cuda.local.array(8, dtype=np.float32)
    dq_total = cuda.local.array(32, dtype=np.float32)
    for i in range(32):
        dq_total[i] = ZERO
    rank, owner, entry = item_of_block(blocks, heads_count, batch, heads_per_wave)
    head, first, end, _ = ptx.load_words4(owners + u64(16) * u64(owner))
    rows_at = rows + u64(256) * u64(rank)
    row_at = rows_at + u64(4) * u64(row)
    block_at = block + u64(32) * u64(rank)
    left_1_at = left_1 + u64(entry) * left_1_batch + u64(head) * left_1_head
    left_2_at = left_2 + u64(entry) * left_2_batch + u64(head) * left_2_head
    levels_at = levels + u64(16) * (u64(entry) * u64(heads_levels) + u64(head)) * u64(seq_q)
    load_left_1(left_1_at, left_1_row, base + LEFT_1, rows_at, seq_left)
    load_left_2(left_2_at, left_2_row, base + LEFT_2, rows_at, seq_left, levels_at)
    read_level(0, row_at, levels_at, seq_left, lse, delta)
    read_level(1, row_at, levels_at, seq_left, lse, delta)
    read_level(2, row_at, levels_at, seq_left, lse, delta)
    read_level(3, row_at, levels_at, seq_left, lse, delta)
    read_level(4, row_at, levels_at, seq_left, lse, delta)
    read_level(5, row_at, levels_at, seq_left, lse, delta)
    read_level(6, row_at, levels_at, seq_left, lse, delta)
    read_level(7, row_at, levels_at, seq_left, lse, delta)
    limit = seq_right
    limit = ptx.load_word(kv_lengths + u64(4) * u64(entry))
    limit = limit if limit < u32(2147483648) else u32(0)
    limit = limit if limit < seq_right else seq_right
    while first < end:
        other = ptx.load_word(heads + u64(4) * u64(first))
        first = u32(first + u32(1))
        right_1_at = right_1 + u64(entry) * right_1_batch + u64(other) * right_1_head
        right_2_at = right_2 + u64(entry) * right_2_batch + u64(other) * right_2_head
        work(
            block_at, piece, views, bits, right_1_at, right_1_row, right_2_at, right_2_row, base, row, column, scale_log2,
            box_shift, limit, first_steps, second_steps, pair_steps, score, slope, lse, delta, dq_total,
        )
    dq_at = dq + u64(entry) * dq_batch + u64(head) * dq_head
    store_dq(0, dq_total, scale, lse, row_at, dq_at, dq_row, seq_left)
    store_dq(1, dq_total, scale, lse, row_at, dq_at, dq_row, seq_left)
    store_dq(2, dq_total, scale, lse, row_at, dq_at, dq_row, seq_left)
    store_dq(3, dq_total, scale, lse, row_at, dq_at, dq_row, seq_left)
    store_dq(4, dq_total, scale, lse, row_at, dq_at, dq_row, seq_left)
    store_dq(5, dq_total, scale, lse, row_at, dq_at, dq_row, seq_left)
    store_dq(6, dq_total, scale, lse, row_at, dq_at, dq_row, seq_left)
    store_dq(7, dq_total, scale, lse, row_at, dq_at, dq_row, seq_left)


@device
def work(
    block_at, piece, views, bits, right_1_at, right_1_row, right_2_at, right_2_row, base, row, column, scale_log2,
    box_shift, limit, first_steps, second_steps, pair_steps, score, slope, lse, delta, dq_total,
):
    """All tiles of a row block with one head."""
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
                work_on_tile(
                    status, mask_at, corner, inner_step, outer_step, box_shift, limit, right_1_at, right_1_row, right_2_at,
                    right_2_row, base, row, column, scale_log2, first_steps, second_steps, pair_steps, score, slope, lse, delta,
                    dq_total,
                )
            corner = u32(corner + u32(32) * inner_step)
            count = u32(count - u32(1))
        place = u32(place + u32(1))


@device
def work_on_tile(
    status, mask_at, corner, inner_step, outer_step, box_shift, limit, right_1_at, right_1_row, right_2_at,
    right_2_row, base, row, column, scale_log2, first_steps, second_steps, pair_steps, score, slope, lse, delta,
    dq_total,
):
    """One tile: weights, slopes, gradients."""
    ptx.block_barrier()  # nobody reads the tiles before any more
    load_right_1(right_1_at, right_1_row, base + RIGHT_1, corner, inner_step, outer_step, box_shift, limit)
    load_right_2(right_2_at, right_2_row, base + RIGHT_2, corner, inner_step, outer_step, box_shift, limit)
    ptx.block_barrier()  # the tiles are there
    left = u32(base + LEFT_1 + row * u32(176))
    right = u32(base + RIGHT_1 + column * u32(176))
    weights = u32(base + WEIGHTS + row * u32(144))
    place = u32(weights + column * u32(4))
    multiply_first(score, left, right, first_steps)
    scale_scores(score, scale_log2)
    mask_scores(score, status, mask_at, column)
    limit_scores(score, column, corner, inner_step, outer_step, box_shift, limit)
    left = u32(base + LEFT_2 + row * u32(112))
    right = u32(base + RIGHT_2 + column * u32(112))
    multiply_second(slope, left, right, second_steps)
    weigh(score, slope, lse, delta)
    ptx.warp_barrier()  # its lanes have read what was there
    put_numbers(slope, place)
    ptx.warp_barrier()
    add_dq(dq_total, weights, base + RIGHT_1, pair_steps)


@device
def token_of(place, corner, inner_step, outer_step, box_shift):
    """The token at a place of the box that begins at ``corner``."""
    line = u32(place >> box_shift)
    return u32(corner + inner_step * u32(place - u32(line << box_shift)) + outer_step * line)


@device
def load_left_1(first, step, to, rows_at, limit):
    """The left_1 of a tile, into shared memory."""
    chunks = cuda.local.array(12, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(320):
        fetch_left_1(0, begin, chunks, first, step, rows_at, limit)
        fetch_left_1(1, begin, chunks, first, step, rows_at, limit)
        fetch_left_1(2, begin, chunks, first, step, rows_at, limit)
        store_left_1(0, begin, chunks, to)
        store_left_1(1, begin, chunks, to)
        store_left_1(2, begin, chunks, to)
        begin = u32(begin + u32(384))


@device
def fetch_left_1(i, begin, chunks, first, step, rows_at, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(5))
    chunk = u32(number - place * u32(5))
    place = place if place < u32(64) else u32(63)
    token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_left_1(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(5))
    chunk = u32(number - place * u32(5))
    mine = u32(1) if place < u32(64) else u32(0)
    at = u32(to + place * u32(176) + chunk * u32(32))
    full = u32(1) if chunk < u32(4) else u32(0)
    x_0, x_1 = ptx.unpack_bfloat16(chunks[4 * i + 0])
    x_2, x_3 = ptx.unpack_bfloat16(chunks[4 * i + 1])
    x_4, x_5 = ptx.unpack_bfloat16(chunks[4 * i + 2])
    x_6, x_7 = ptx.unpack_bfloat16(chunks[4 * i + 3])
    ptx.store_shared_reals4(at + u32(0), x_0, ptx.select_real(x_1, ZERO, full), ptx.select_real(x_2, ZERO, full), ptx.select_real(x_3, ZERO, full), mine)
    ptx.store_shared_reals4(at + u32(16), ptx.select_real(x_4, ZERO, full), ptx.select_real(x_5, ZERO, full), ptx.select_real(x_6, ZERO, full), ptx.select_real(x_7, ZERO, full), mine)


@device
def load_left_2(first, step, to, rows_at, limit, levels_at):
    """The left_2 of a tile, into shared memory."""
    chunks = cuda.local.array(8, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(192):
        fetch_left_2(0, begin, chunks, first, step, rows_at, limit, levels_at)
        fetch_left_2(1, begin, chunks, first, step, rows_at, limit, levels_at)
        store_left_2(0, begin, chunks, to)
        store_left_2(1, begin, chunks, to)
        begin = u32(begin + u32(256))


@device
def fetch_left_2(i, begin, chunks, first, step, rows_at, limit, levels_at):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(3))
    chunk = u32(number - place * u32(3))
    place = place if place < u32(64) else u32(63)
    token = ptx.load_word(rows_at + u64(4) * u64(place))  # padding is 2**32 - 1
    inside = u32(1) if token < limit else u32(0)
    token = token if token < limit else u32(0)
    inside = inside if load_number(levels_at + u64(16) * u64(token)) < INFINITE else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_left_2(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(3))
    chunk = u32(number - place * u32(3))
    mine = u32(1) if place < u32(64) else u32(0)
    at = u32(to + place * u32(112) + chunk * u32(32))
    full = u32(1) if chunk < u32(2) else u32(0)
    x_0, x_1 = ptx.unpack_bfloat16(chunks[4 * i + 0])
    x_2, x_3 = ptx.unpack_bfloat16(chunks[4 * i + 1])
    x_4, x_5 = ptx.unpack_bfloat16(chunks[4 * i + 2])
    x_6, x_7 = ptx.unpack_bfloat16(chunks[4 * i + 3])
    ptx.store_shared_reals4(at + u32(0), x_0, ptx.select_real(x_1, ZERO, full), ptx.select_real(x_2, ZERO, full), ptx.select_real(x_3, ZERO, full), mine)
    ptx.store_shared_reals4(at + u32(16), ptx.select_real(x_4, ZERO, full), ptx.select_real(x_5, ZERO, full), ptx.select_real(x_6, ZERO, full), ptx.select_real(x_7, ZERO, full), mine)


@device
def load_right_1(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """The right_1 of a tile, into shared memory."""
    chunks = cuda.local.array(8, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(160):
        fetch_right_1(0, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        fetch_right_1(1, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        store_right_1(0, begin, chunks, to)
        store_right_1(1, begin, chunks, to)
        begin = u32(begin + u32(256))


@device
def fetch_right_1(i, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(5))
    chunk = u32(number - place * u32(5))
    place = place if place < u32(32) else u32(31)
    token = token_of(place, corner, inner_step, outer_step, box_shift)
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_right_1(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(5))
    chunk = u32(number - place * u32(5))
    mine = u32(1) if place < u32(32) else u32(0)
    at = u32(to + place * u32(176) + chunk * u32(32))
    full = u32(1) if chunk < u32(4) else u32(0)
    x_0, x_1 = ptx.unpack_bfloat16(chunks[4 * i + 0])
    x_2, x_3 = ptx.unpack_bfloat16(chunks[4 * i + 1])
    x_4, x_5 = ptx.unpack_bfloat16(chunks[4 * i + 2])
    x_6, x_7 = ptx.unpack_bfloat16(chunks[4 * i + 3])
    ptx.store_shared_reals4(at + u32(0), x_0, ptx.select_real(x_1, ZERO, full), ptx.select_real(x_2, ZERO, full), ptx.select_real(x_3, ZERO, full), mine)
    ptx.store_shared_reals4(at + u32(16), ptx.select_real(x_4, ZERO, full), ptx.select_real(x_5, ZERO, full), ptx.select_real(x_6, ZERO, full), ptx.select_real(x_7, ZERO, full), mine)


@device
def load_right_2(first, step, to, corner, inner_step, outer_step, box_shift, limit):
    """The right_2 of a tile, into shared memory."""
    chunks = cuda.local.array(4, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(96):
        fetch_right_2(0, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit)
        store_right_2(0, begin, chunks, to)
        begin = u32(begin + u32(128))


@device
def fetch_right_2(i, begin, chunks, first, step, corner, inner_step, outer_step, box_shift, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(3))
    chunk = u32(number - place * u32(3))
    place = place if place < u32(32) else u32(31)
    token = token_of(place, corner, inner_step, outer_step, box_shift)
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_right_2(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(3))
    chunk = u32(number - place * u32(3))
    mine = u32(1) if place < u32(32) else u32(0)
    at = u32(to + place * u32(112) + chunk * u32(32))
    full = u32(1) if chunk < u32(2) else u32(0)
    x_0, x_1 = ptx.unpack_bfloat16(chunks[4 * i + 0])
    x_2, x_3 = ptx.unpack_bfloat16(chunks[4 * i + 1])
    x_4, x_5 = ptx.unpack_bfloat16(chunks[4 * i + 2])
    x_6, x_7 = ptx.unpack_bfloat16(chunks[4 * i + 3])
    ptx.store_shared_reals4(at + u32(0), x_0, ptx.select_real(x_1, ZERO, full), ptx.select_real(x_2, ZERO, full), ptx.select_real(x_3, ZERO, full), mine)
    ptx.store_shared_reals4(at + u32(16), ptx.select_real(x_4, ZERO, full), ptx.select_real(x_5, ZERO, full), ptx.select_real(x_6, ZERO, full), ptx.select_real(x_7, ZERO, full), mine)


@device
def chunk_of(piece):
    """The chunk of a row's numbers that is this lane's next."""
    return u32(u32(ptx.thread_index() & u32(15)) + u32(16) * u32(piece))


@device
def multiply_first(score, left, right, steps):
    """Scores of a thread's rows and columns, a chunk of their numbers at a time."""
    key = cuda.local.array(8, dtype=np.float32)
    for i in range(16):
        score[i] = ZERO
    for step in range(steps):
        for j in range(2):
            key[4 * j + 0], key[4 * j + 1], key[4 * j + 2], key[4 * j + 3] = read_chunk(right + u32(2816) * u32(j) + u32(16) * u32(step))
        for i in range(8):
            x_0, x_1, x_2, x_3 = read_chunk(left + u32(176) * u32(i) + u32(16) * u32(step))
            for j in range(2):
                score[2 * i + j] += x_0 * key[4 * j + 0]
                score[2 * i + j] += x_1 * key[4 * j + 1]
                score[2 * i + j] += x_2 * key[4 * j + 2]
                score[2 * i + j] += x_3 * key[4 * j + 3]


@device
def multiply_second(slope, left, right, steps):
    """dP of a thread's rows and columns."""
    key = cuda.local.array(8, dtype=np.float32)
    for i in range(16):
        slope[i] = ZERO
    for step in range(steps):
        for j in range(2):
            key[4 * j + 0], key[4 * j + 1], key[4 * j + 2], key[4 * j + 3] = read_chunk(right + u32(1792) * u32(j) + u32(16) * u32(step))
        for i in range(8):
            x_0, x_1, x_2, x_3 = read_chunk(left + u32(112) * u32(i) + u32(16) * u32(step))
            for j in range(2):
                slope[2 * i + j] += x_0 * key[4 * j + 0]
                slope[2 * i + j] += x_1 * key[4 * j + 1]
                slope[2 * i + j] += x_2 * key[4 * j + 2]
                slope[2 * i + j] += x_3 * key[4 * j + 3]


@device
def add_dq(dq_total, weights, right, steps):
    """Slopes times the rows of a right tile, a chunk of them at a time."""
    weight = cuda.local.array(32, dtype=np.float32)
    place = cuda.local.array(1, dtype=np.uint32)
    for piece in range(1):
        chunk = chunk_of(piece)
        place[piece] = right + u32(16) * (chunk if chunk < u32(9) else u32(0))
    for step in range(steps):
        for i in range(8):
            weight[4 * i + 0], weight[4 * i + 1], weight[4 * i + 2], weight[4 * i + 3] = read_chunk(weights + u32(144) * u32(i) + u32(16) * u32(step))
        for x in range(4):
            for piece in range(1):
                y_0, y_1, y_2, y_3 = read_chunk(place[piece] + u32(176) * u32(u32(4) * u32(step) + u32(x)))
                for i in range(8):
                    dq_total[4 * (1 * i + piece) + 0] += weight[4 * i + x] * y_0
                    dq_total[4 * (1 * i + piece) + 1] += weight[4 * i + x] * y_1
                    dq_total[4 * (1 * i + piece) + 2] += weight[4 * i + x] * y_2
                    dq_total[4 * (1 * i + piece) + 3] += weight[4 * i + x] * y_3


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
def read_level(i, row_at, levels_at, seq_left, lse, delta):
    """lse and delta of a query; of padding infinity and 0."""
    token = ptx.load_word(row_at + u64(4 * i))
    there = token < seq_left
    at = levels_at + u64(16) * u64(token if there else u32(0))
    lse[i] = load_number(at) if there else INFINITE
    delta[i] = load_number(at + u64(4)) if there else ZERO


@device
def weigh(score, slope, lse, delta):
    """Weights, and slopes less the scale."""
    weigh_row(0, score, slope, lse, delta)
    weigh_row(1, score, slope, lse, delta)
    weigh_row(2, score, slope, lse, delta)
    weigh_row(3, score, slope, lse, delta)
    weigh_row(4, score, slope, lse, delta)
    weigh_row(5, score, slope, lse, delta)
    weigh_row(6, score, slope, lse, delta)
    weigh_row(7, score, slope, lse, delta)


@device
def weigh_row(i, score, slope, lse, delta):
    """Of one query."""
    level, change = lse[i], delta[i]
    for j in range(2):
        score[2 * i + j] = exp2(score[2 * i + j] - level)
        slope[2 * i + j] = score[2 * i + j] * (slope[2 * i + j] - change)


@device
def put_numbers(values, place):
    """A thread's numbers into shared memory."""
    for i in range(8):
        for j in range(2):
            write_number(place + u32(144) * u32(i) + u32(64) * u32(j), values[2 * i + j])


@device
def store_dq(i, total, factor, lse, row_at, to_first, step, seq_left):
    """A row of dq: its sums times a factor, or 0."""
    token = ptx.load_word(row_at + u64(4 * i))
    there = u32(1) if token < seq_left else u32(0)  # padding is 2**32 - 1 here
    counts = lse[i] < INFINITE
    for piece in range(1):
        chunk = chunk_of(piece)
        inside = there if chunk < u32(9) else u32(0)
        to = to_first + u64(token) * step + u64(16) * u64(chunk)
        x_0 = total[4 * (1 * i + piece) + 0] * factor if counts else ZERO
        x_1 = total[4 * (1 * i + piece) + 1] * factor if counts else ZERO
        x_2 = total[4 * (1 * i + piece) + 2] * factor if counts else ZERO
        x_3 = total[4 * (1 * i + piece) + 3] * factor if counts else ZERO
        y_0, y_1, y_2, y_3 = load_chunk(to if inside != u32(0) else to_first)
        store_chunk(to, x_0 + y_0, x_1 + y_1, x_2 + y_2, x_3 + y_3, inside)


@device
def store_chunk(to, x_0, x_1, x_2, x_3, when):
    """Neighbouring numbers of an array, as float32."""
    ptx.store_reals4(to, x_0, x_1, x_2, x_3, when)


@device
def load_chunk(at):
    """Neighbouring numbers of an array that launches may write."""
    return ptx.load_reals4(at)


@device
def load_number(at):
    """A number that an earlier launch may have written."""
    return ptx.load_state(at)


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
