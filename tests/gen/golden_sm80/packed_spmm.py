"""Packed values times the rows of a dense array by a warp's matrix products, generated for every mask whose rows share columns.

Rows of 20 numbers, float16; 64 rows x 64 places a tile, by 128
threads: each warp has 16 rows. A tile is fetched while one is computed.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: two stages, a tile's packed values, the block's rows.
STAGE_BYTES, PACKED = u32(5120), u32(10240)
NOTES = u32(19456)


def spmm(
    rows, blocks, values, v, out,
    values_row, values_head, values_batch, v_row, v_head, v_batch, out_row, out_head, out_batch,
    scale,
    blocks_listed, heads, share, seq_q, seq_kv,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    thread, stage = ptx.thread_index(), u32(0)
    lane, warp = u32(thread & u32(31)), u32(thread // u32(32))
    item = ptx.block_index()
    pair = u32(item // blocks_listed)
    rank = u32(item - pair * blocks_listed)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    rows_at = rows + u64(1024) * u64(rank)
    residue, lattice, corner, tiles = ptx.load_words4(blocks + u64(16) * u64(rank))
    limit = seq_kv
    keep_rows(rows_at, u32(base + NOTES), thread)
    notes = u32(base + NOTES + u32(256) * warp)
    packed = u32(base + PACKED + u32(2304) * warp)
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
    copy_rows_of_v(v_at, v_row, base, corner, residue, lattice, limit)
    ptx.async_commit()
    clear_padding(base)
    words = cuda.local.array(16, dtype=np.uint32)
    total = cuda.local.array(16, dtype=np.float32)
    for n in range(16):
        total[n] = f32(0.0)
    weights, right = places(base, packed, lane)
    ptx.block_barrier()  # the list of rows is there
    rows_here = whole_rows(notes, values_at, corner, lane)
    alone = fetch_values(words, rows_here, notes, values_at, corner, lane)
    while tiles > u32(0):
        wait_for_copies()
        ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
        for i in range(16):
            put_row(i, rows_here, words[i], alone, notes, values_at, corner, lane, packed)
        now = u32(right + stage)
        tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32(64)), u32(STAGE_BYTES - stage)
        if tiles > u32(0):
            rows_here = whole_rows(notes, values_at, corner, lane)
            alone = fetch_values(words, rows_here, notes, values_at, corner, lane)
            copy_rows_of_v(v_at, v_row, u32(base + stage), corner, residue, lattice, limit)
        ptx.async_commit()
        ptx.warp_barrier()
        multiply_rows(total, weights, now)
    out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(4) * u64(lane & u32(3))
    for half in range(2):
        store_row(total, half, notes, out_at, out_row, lane, scale, seq_q)


@device
def places(base, packed, lane):
    """Where a lane's rows of the first matrices of packed values and of v begin."""
    upper, row = u32(u32(lane >> u32(4)) * u32(16)), u32(lane & u32(15))
    weights = u32(packed + row * u32(144) + upper)
    return weights, u32(base + row * u32(80) + upper)


@device
def fetch_values(words, rows_here, notes, values_at, corner, lane):
    """A tile's packed values on their way: a word of each row; of a lane's row the word beyond the last lane's."""
    for i in range(16):
        known = ptx.word_of_lane(rows_here, u32(i))
        if known != u32(0):
            first = u32(known >> u32(1))
            at = values_at + u64(2) * u64(u32(first + lane + lane))
            words[i] = ptx.real_bits(ptx.load_state(at - u64(2) * u64(odd_at(first, values_at))))
        else:
            words[i] = part_of_row(i, notes, values_at, corner, lane)
    first, into, count, odd = row_of_tile(u32(lane & u32(15)), notes, values_at, corner)
    low, high, alone = kept_of_word(into, count, odd, lane)
    at = values_at + u64(2) * u64(u32(first + u32(63)))
    return ptx.real_bits(ptx.load_real_when(at, alone))


@device
def part_of_row(i, notes, values_at, corner, lane):
    """A lane's word of row i, or 0."""
    first, into, count, odd = row_of_tile(i, notes, values_at, corner)
    low, high, alone = kept_of_word(into, count, odd, lane)
    at = values_at + u64(2) * u64(u32(first + lane + lane + u32(1) - odd)) - u64(2)
    return ptx.real_bits(ptx.load_real_when(at, low | high))


@device
def put_row(i, rows_here, word, last_words, notes, values_at, corner, lane, packed):
    """Row i of a tile in shared memory, 0 where nothing is kept."""
    to = u32(packed + u32(144 * i) + u32(4) * lane)
    known = ptx.word_of_lane(rows_here, u32(i))
    if known != u32(0):
        if odd_at(u32(known >> u32(1)), values_at) == u32(0):
            ptx.store_shared_word(to, word, u32(1))
        else:
            ptx.store_shared_word(to, across(word, ptx.word_of_lane(last_words, u32(i)), lane), u32(1))
    else:
        kept = kept_values(i, word, last_words, notes, values_at, corner, lane)
        ptx.store_shared_word(to, kept, u32(1))


@device
def across(word, last, lane):
    """The lane's second value and the first after it."""
    after = ptx.word_of_lane(word, u32(u32(lane + u32(1)) & u32(31)))
    after = last if lane == u32(31) else after
    return u32(u32(word >> u32(16)) | u32(after << u32(16)))


@device
def kept_values(i, word, last_words, notes, values_at, corner, lane):
    """Of row i where it begins or ends: what is kept."""
    first, into, count, odd = row_of_tile(i, notes, values_at, corner)
    low, high, alone = kept_of_word(into, count, odd, lane)
    upper, lower = u32(u32(u32(0) - high) << u32(16)), u32(u32(u32(0) - low) >> u32(16))
    word = u32(word & u32(upper | lower))
    last = ptx.word_of_lane(last_words, u32(i))
    last = last if alone != u32(0) else u32(0)
    two = across(word, last, lane)
    return two if odd != u32(0) else word


@device
def multiply_rows(total, weights, right):
    """A warp's packed values times a tile's rows of v."""
    multiply_step(total, u32(weights + u32(0)), u32(right + u32(0)))
    multiply_step(total, u32(weights + u32(32)), u32(right + u32(1280)))
    multiply_step(total, u32(weights + u32(64)), u32(right + u32(2560)))
    multiply_step(total, u32(weights + u32(96)), u32(right + u32(3840)))


@device
def multiply_step(total, weights, right):
    """Sixteen places of each row."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices(weights)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(0)))
    add_product(total, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(32)))
    add_product(total, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total, 12, a_0, a_1, a_2, a_3, b_2, b_3)


@device
def store_row(total, half, notes, out_at, out_row, lane, scale, seq_q):
    """A lane's numbers of one of its two rows."""
    row = ptx.load_shared_word(u32(notes + u32(16) * u32(u32(lane >> u32(2)) + u32(8 * half))))
    there = u32(1) if row < seq_q else u32(0)
    to = out_at + u64(row) * out_row
    for j in range(3):
        ptx.store_word(to + u64(16 * j), ptx.pack_float16(total[4 * j + 2 * half + 0] * scale, total[4 * j + 2 * half + 1] * scale), there)


@device
def row_of_tile(i, notes, values_at, corner):
    """Of row i: its place 0's value, that place from the row's first, pairs of the row; whether it is odd."""
    _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32(16) * u32(i)))
    first, into = u32(slot + corner), u32(corner - begin)
    return first, into, count, odd_at(first, values_at)


@device
def odd_at(first, values_at):
    """Whether a value is the second of its word."""
    return u32(u32(u32(values_at >> u64(1)) + first) & u32(1))


@device
def whole_rows(notes, values_at, corner, lane):
    """Of the lane's row: twice its place 0's value and 1 where a tile's places are all kept, else 0."""
    first, into, count, odd = row_of_tile(u32(lane & u32(15)), notes, values_at, corner)
    whole = (into < count) and (u32(into + u32(63)) < count)
    return u32(u32(first << u32(1)) | u32(1)) if whole else u32(0)


@device
def kept_of_word(into, count, odd, lane):
    """Whether a lane's word has a first value that is kept, a second; whether the place beyond the last word is."""
    column = u32(u32(lane + lane) - odd)
    low = u32(1) if (column < u32(64)) and (u32(into + column) < count) else u32(0)
    high = u32(1) if u32(into + column + u32(1)) < count else u32(0)
    alone = odd if u32(into + u32(63)) < count else u32(0)
    return low, high, alone


@device
def keep_rows(rows_at, to, thread):
    """The block's rows, where all its warps find them."""
    place = u32(thread & u32(63))
    row, slot, begin, count = ptx.load_words4(rows_at + u64(16) * u64(place))
    mine = u32(1) if thread < u32(64) else u32(0)
    ptx.store_shared_words4(u32(to + u32(16) * place), row, slot, begin, count, mine)


@device
def copy_rows_of_v(first, step, to, corner, residue, lattice, limit):
    """Begin to copy the rows_of_v of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    number = thread
    while number < u32(192):
        place = u32(number // u32(3))
        chunk = u32(number - place * u32(3))
        mine = u32(1) if place < u32(64) else u32(0)
        token = u32(residue + lattice * u32(corner + place))
        at = u32(to + place * u32(80) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside & mine)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside) & mine)
        number = u32(number + u32(128))


@device
def clear_padding(base):
    """The chunks that complete a row's last step, as 0."""
    clear_rows_of_v(u32(base + u32(0)))
    clear_rows_of_v(u32(base + u32(5120)))


@device
def clear_rows_of_v(to):
    """The same of one tile."""
    for i in range(1):
        place = u32(ptx.thread_index() + u32(128) * u32(i))
        mine = u32(1) if place < u32(64) else u32(0)
        at = u32(to + place * u32(80) + u32(48))
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), mine)


@device
def add_product(sums, at, a_0, a_1, a_2, a_3, b_0, b_1):
    """(16, 8) sums += (16, 16) x (16, 8)."""
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_float16(
        a_0, a_1, a_2, a_3, b_0, b_1,
        sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3],
    )
