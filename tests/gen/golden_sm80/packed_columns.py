"""Packed values, transposed, times the rows of a dense array by a warp's matrix products, generated for every mask whose rows share columns.

Rows of 64 numbers, float16; 64 rows x 64 places a tile, by
128 threads: each warp has 16 rows. A tile is fetched while one is computed.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: two stages of rows of v and the tile's packed values; a head's first and last chunk of these.
STAGE_BYTES = u32(18432)
VALUES, ENDS = u32(9216), u32(36864)


def columns(
    rows, blocks, values, v, out,
    values_row, values_head, values_batch, v_row, v_head, v_batch, out_row, out_head, out_batch,
    scale,
    blocks_listed, heads, share, seq_q, seq_kv, pairs,
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
    residue, lattice, corner, tiles = ptx.load_words4(blocks + u64(32) * u64(rank))
    rows_at = rows + u64(16) * u64(ptx.load_word(blocks + u64(32) * u64(rank) + u64(16)))
    limit = seq_kv
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
    keep_ends(values_at, pairs, u32(base + ENDS), thread)
    copy_rows_of_v(v_at, v_row, base, rows_at, limit)
    ptx.async_commit()
    side, strip = u32(warp // u32(4)), u32(warp & u32(3))
    row_of_tile, quarter = u32(u32(16) * strip + u32(lane >> u32(2))), u32(lane & u32(3))
    column = u32(corner + u32(64) * side + u32(16) * quarter)
    listed = rows_at + u64(16) * u64(row_of_tile)
    at = cuda.local.array(2, dtype=np.uint64)
    ahead, most, shift, counts = cuda.local.array(2, dtype=np.uint32), cuda.local.array(2, dtype=np.uint32), cuda.local.array(2, dtype=np.uint32), cuda.local.array(2, dtype=np.uint32)
    notes = cuda.local.array(6, dtype=np.uint32)
    words = cuda.local.array(24, dtype=np.uint32)
    weights = cuda.local.array(16, dtype=np.uint32)
    total = cuda.local.array(32, dtype=np.float32)
    for n in range(32):
        total[n] = f32(0.0)
    to = u32(base + VALUES + u32(144) * row_of_tile + u32(128) * side + u32(32) * quarter)
    left, right = u32(base + VALUES + u32(144) * u32(u32(lane & u32(7)) + u32(8) * u32(lane >> u32(4))) + u32(16) * u32(u32(lane >> u32(3)) & u32(1)) + u32(32) * warp), u32(base + u32(lane & u32(15)) * u32(144) + u32(lane >> u32(4)) * u32(16))
    read_notes(notes, listed)
    ptx.block_barrier()  # the head's ends are there
    near = find_rows(at, ahead, most, shift, counts, notes, values_at, column, pairs)
    fetch_values(words, values_at, at, ahead, most, shift, u32(0), near, pairs, u32(base + ENDS))
    while tiles > u32(0):
        now, stage, tiles = stage, u32(STAGE_BYTES - stage), u32(tiles - u32(1))
        rows_at, listed = rows_at + u64(1024), listed + u64(1024)
        if tiles > u32(0):
            read_notes(notes, listed)
        place_values(weights, words, ahead, counts, shift, u32(0))
        put_values(weights, u32(to + now))
        wait_for_copies()
        ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
        if tiles > u32(0):
            copy_rows_of_v(v_at, v_row, u32(base + stage), rows_at, limit)
        ptx.async_commit()
        if tiles > u32(0):
            near = find_rows(at, ahead, most, shift, counts, notes, values_at, column, pairs)
            fetch_values(words, values_at, at, ahead, most, shift, u32(0), near, pairs, u32(base + ENDS))
        multiply_columns(total, u32(left + now), u32(right + now))
    out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(4) * u64(quarter)
    for half in range(2):
        place = u32(u32(16) * warp + u32(lane >> u32(2)) + u32(8) * u32(half))
        row = u32(residue + lattice * u32(corner + place))
        store_row(total, half, row, out_at, out_row, scale, seq_q)


@device
def read_notes(notes, listed):
    """Of each of a lane's rows of a tile where its values stand: slot, begin, count."""
    for i in range(2):
        _, slot, begin, count = ptx.load_words4(listed + u64(128 * i))
        notes[3 * i], notes[3 * i + 1], notes[3 * i + 2] = slot, begin, count


@device
def find_rows(at, ahead, most, shift, counts, notes, values_at, column, pairs):
    """Where a lane's chunks of them begin, and how many it has; whether the warp has some that are another head's."""
    some_near = u32(0)
    for i in range(2):
        slot, begin, count = notes[3 * i], notes[3 * i + 1], notes[3 * i + 2]
        shift[i] = shift_of(values_at, u32(slot + column))
        at[i] = values_at + u64(2) * signed(u32(slot + column - shift[i]))
        ahead[i], counts[i] = u32(u32(column - shift[i] - begin) + u32(7)), count
        most[i] = u32(count + u32(7)) if count > u32(0) else u32(0)
        some_near = some_near | near_ends(u32(slot + begin), count, pairs)
    return ptx.any_lane(some_near)


@device
def shift_of(values_at, value):
    """Values of the 16 bytes of a value that stand before it."""
    return u32(u32(u32(values_at >> u64(1)) + value) & u32(7))


@device
def signed(word):
    """A word as a number of 64 bits, with its sign."""
    return u64(word ^ u32(2147483648)) - u64(2147483648)


@device
def near_ends(first, count, pairs):
    """Whether chunks of a row may be some that are not all of the head's; first: its first packed value."""
    close = u32(1) if (first < u32(8)) or (u32(first + count + u32(8)) > pairs) else u32(0)
    return close if count > u32(0) else u32(0)


@device
def keep_ends(values_at, pairs, to, thread):
    """The chunks in which a head's packed values begin and end, as far as words have any of them."""
    mine = u32(1) if thread < u32(8) else u32(0)
    end = values_at + u64(2) * u64(pairs)
    at = end if u32(thread & u32(4)) != u32(0) else values_at
    at = (at & u64(18446744073709551600)) + u64(4) * u64(thread & u32(3))
    some = mine if (at + u64(4) > values_at) and (at < end) else u32(0)
    word = ptx.real_bits(ptx.load_real_when(at, some))
    ptx.store_shared_word(u32(to + u32(4) * u32(thread & u32(7))), word, mine)


@device
def fetch_values(words, values_at, at, ahead, most, shift, done, near, pairs, ends):
    """A lane's chunks of each of its rows on their way; whether the warp keeps anything of the tile."""
    at_0, ahead_0 = at[0] + u64(2) * u64(done), u32(ahead[0] + done)
    at_1, ahead_1 = at[1] + u64(2) * u64(done), u32(ahead[1] + done)
    if near != u32(0):
        some_0 = fetch_near(words, 0, values_at, at_0, ahead_0, most[0], shift[0], pairs, ends)
        some_1 = fetch_near(words, 12, values_at, at_1, ahead_1, most[1], shift[1], pairs, ends)
    else:
        some_0 = fetch_row(words, 0, at_0, ahead_0, most[0], shift[0])
        some_1 = fetch_row(words, 12, at_1, ahead_1, most[1], shift[1])
    return ptx.any_lane(some_0 | some_1)


@device
def fetch_row(words, to, at, ahead, most, shift):
    """Those of a row that has any place of them, 1 if there are such; ahead: of the first one's last place."""
    some_0 = u32(1) if u32(ahead + u32(0)) < most else u32(0)
    some_1 = u32(1) if u32(ahead + u32(8)) < most else u32(0)
    some_2 = u32(1) if u32(ahead + u32(16)) < most else u32(0)
    some_2 = some_2 if shift != u32(0) else u32(0)
    words[to + 0], words[to + 1], words[to + 2], words[to + 3] = ptx.load_words4_when(at + u64(0), some_0)
    words[to + 4], words[to + 5], words[to + 6], words[to + 7] = ptx.load_words4_when(at + u64(16), some_1)
    words[to + 8], words[to + 9], words[to + 10], words[to + 11] = ptx.load_words4_when(at + u64(32), some_2)
    return some_0 | some_1 | some_2


@device
def fetch_near(words, to, values_at, at, ahead, most, shift, pairs, ends):
    """The same of a row that has values in a head's first or last chunk."""
    some_0 = u32(1) if u32(ahead + u32(0)) < most else u32(0)
    some_1 = u32(1) if u32(ahead + u32(8)) < most else u32(0)
    some_2 = u32(1) if u32(ahead + u32(16)) < most else u32(0)
    some_2 = some_2 if shift != u32(0) else u32(0)
    first_0 = u32(u32(u64(at - values_at) >> u64(1)) + u32(0))
    inside_0 = some_0 if (first_0 < pairs) and (u32(first_0 + u32(7)) < pairs) else u32(0)
    first_1 = u32(u32(u64(at - values_at) >> u64(1)) + u32(8))
    inside_1 = some_1 if (first_1 < pairs) and (u32(first_1 + u32(7)) < pairs) else u32(0)
    first_2 = u32(u32(u64(at - values_at) >> u64(1)) + u32(16))
    inside_2 = some_2 if (first_2 < pairs) and (u32(first_2 + u32(7)) < pairs) else u32(0)
    words[to + 0], words[to + 1], words[to + 2], words[to + 3] = ptx.load_words4_when(at + u64(0), inside_0)
    words[to + 4], words[to + 5], words[to + 6], words[to + 7] = ptx.load_words4_when(at + u64(16), inside_1)
    words[to + 8], words[to + 9], words[to + 10], words[to + 11] = ptx.load_words4_when(at + u64(32), inside_2)
    take_end(words, to + 0, first_0, some_0 & u32(u32(1) - inside_0), ends)
    take_end(words, to + 4, first_1, some_1 & u32(u32(1) - inside_1), ends)
    take_end(words, to + 8, first_2, some_2 & u32(u32(1) - inside_2), ends)
    return some_0 | some_1 | some_2


@device
def take_end(words, at, first, edge, ends):
    """A chunk at the head's first or last value."""
    place = u32(ends + ptx.select(u32(0), u32(16), u32(first >> u32(31))))
    a, b, c, d = ptx.load_shared_words4(place)
    words[at + 0] = ptx.select(a, words[at + 0], edge)
    words[at + 1] = ptx.select(b, words[at + 1], edge)
    words[at + 2] = ptx.select(c, words[at + 2], edge)
    words[at + 3] = ptx.select(d, words[at + 3], edge)


@device
def place_values(weights, words, ahead, counts, shift, done):
    """A lane's places of each of its rows, two a word, 0 where the row does not keep one."""
    place_row(weights, 0, words, 0, shift[0])
    place_0 = u32(u32(ahead[0] + shift[0]) + u32(done - u32(7)))
    part_0 = in_part(place_0, counts[0])
    place_row(weights, 8, words, 12, shift[1])
    place_1 = u32(u32(ahead[1] + shift[1]) + u32(done - u32(7)))
    part_1 = in_part(place_1, counts[1])
    if ptx.any_lane(part_0 | part_1) != u32(0):
        drop_others(weights, 0, place_0, counts[0])
        drop_others(weights, 8, place_1, counts[1])


@device
def place_row(weights, to, words, at, shift):
    """Of a row, from where its chunks have them: four, two and one value further on."""
    word = cuda.local.array(10, dtype=np.uint32)
    for y in range(10):
        word[y] = ptx.select(words[at + y + 2], words[at + y], shift & u32(4))
    for y in range(9):
        word[y] = ptx.select(word[y + 1], word[y], shift & u32(2))
    for y in range(8):
        across = u32(u32(word[y] >> u32(16)) | u32(word[y + 1] << u32(16)))
        weights[to + y] = ptx.select(across, word[y], shift & u32(1))


@device
def in_part(place, count):
    """Whether a row does not keep all places of a lane; place: its first one from the row's."""
    return u32(0) if (place < count) and (u32(place + u32(15)) < count) else u32(1)


@device
def drop_others(weights, to, place, count):
    """0 in place of what a row does not keep: a bit for each of a lane's places."""
    before, left = u32(u32(0) - place), u32(count - place)
    before = before if before < u32(2147483648) else u32(0)
    before = before if before < u32(16) else u32(16)
    left = left if left < u32(2147483648) else u32(0)
    left = left if left < u32(16) else u32(16)
    kept = u32(u32(u32(1) << left) - u32(1)) & u32(~u32(u32(u32(1) << before) - u32(1)))
    kept = kept | u32(kept << u32(15))  # the upper one of two places in the upper half of a word
    for y in range(8):
        two = u32(u32(kept >> u32(2 * y)) & u32(65537)) * u32(65535)
        weights[to + y] = weights[to + y] & u32(two)


@device
def put_values(weights, to):
    """A lane's places of its rows, side by side in the tile."""
    ptx.store_shared_words4(u32(to + u32(0)), weights[0], weights[1], weights[2], weights[3], u32(1))
    ptx.store_shared_words4(u32(to + u32(16)), weights[4], weights[5], weights[6], weights[7], u32(1))
    ptx.store_shared_words4(u32(to + u32(1152)), weights[8], weights[9], weights[10], weights[11], u32(1))
    ptx.store_shared_words4(u32(to + u32(1168)), weights[12], weights[13], weights[14], weights[15], u32(1))


@device
def multiply_columns(total, left, right):
    """A warp's columns of a tile times its rows of v."""
    multiply_columns_step(total, u32(left + u32(0)), u32(right + u32(0)))
    multiply_columns_step(total, u32(left + u32(2304)), u32(right + u32(2304)))
    multiply_columns_step(total, u32(left + u32(4608)), u32(right + u32(4608)))
    multiply_columns_step(total, u32(left + u32(6912)), u32(right + u32(6912)))


@device
def multiply_columns_step(total, left, right):
    """Sixteen rows."""
    a_0, a_1, a_2, a_3 = ptx.load_matrices_transposed(left)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(0)))
    add_product(total, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(32)))
    add_product(total, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total, 12, a_0, a_1, a_2, a_3, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(64)))
    add_product(total, 16, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total, 20, a_0, a_1, a_2, a_3, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(96)))
    add_product(total, 24, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total, 28, a_0, a_1, a_2, a_3, b_2, b_3)


@device
def store_row(total, half, row, out_at, out_row, scale, seq_q):
    """A lane's numbers of one of its rows."""
    there = u32(1) if row < seq_q else u32(0)
    to = out_at + u64(row) * out_row
    for j in range(8):
        ptx.store_word(to + u64(16 * j), ptx.pack_float16(total[4 * j + 2 * half + 0] * scale, total[4 * j + 2 * half + 1] * scale), there)


@device
def copy_rows_of_v(first, step, to, rows_at, limit):
    """Begin to copy the rows_of_v of a tile."""
    thread = ptx.shuffle_xor_word(ptx.thread_index(), u32(0))
    chunk = u32(thread % u32(8))
    place = u32(thread // u32(8))
    while place < u32(64):
        token = ptx.load_word(rows_at + u64(16) * u64(place))  # 2**32 - 1: none
        at = u32(to + place * u32(144) + chunk * u32(16))
        inside = u32(1) if token < limit else u32(0)
        ptx.async_copy(at, first + u64(token) * step + u64(16) * u64(chunk), inside)
        ptx.store_shared_words4(at, u32(0), u32(0), u32(0), u32(0), u32(u32(1) - inside))
        place = u32(place + u32(16))


@device
def add_product(sums, at, a_0, a_1, a_2, a_3, b_0, b_1):
    """(16, 8) sums += (16, 16) x (16, 8)."""
    sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3] = ptx.mma_float16(
        a_0, a_1, a_2, a_3, b_0, b_1,
        sums[at + 0], sums[at + 1], sums[at + 2], sums[at + 3],
    )
