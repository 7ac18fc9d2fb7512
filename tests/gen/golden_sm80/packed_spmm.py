"""Packed values times the rows of a dense array by a warp's matrix products, generated for every mask whose rows share columns.

Rows of 20 numbers, float16; 64 rows x 64 places a tile, by 128
threads: each warp has 16 rows. A tile is fetched while one is computed.
"""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers
wait_for_copies = ptx.async_wait(0)

# Shared memory, in bytes from its aligned start: two stages, of each the rows of v, then packed values; the block's rows.
STAGE_BYTES, PACKED = u32(16384), u32(5120)
NOTES = u32(32768)


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
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
    keep_rows(rows_at, u32(base + NOTES), thread)
    notes = u32(base + NOTES + u32(256) * warp)
    packed = u32(base + PACKED + u32(2816) * warp)
    ptx.block_barrier()  # the list of rows is there
    copy_values(packed, notes, values_at, corner, lane)
    copy_rows_of_v(v_at, v_row, base, corner, residue, lattice, limit)
    ptx.async_commit()
    clear_padding(base)
    total = cuda.local.array(16, dtype=np.float32)
    for n in range(16):
        total[n] = f32(0.0)
    first_row = u32(lane >> u32(2))
    upper, upper_odd = place_of_row(packed, notes, values_at, corner, lane, first_row)
    lower, lower_odd = place_of_row(packed, notes, values_at, corner, lane, u32(first_row + u32(8)))
    right = u32(base + u32(lane & u32(15)) * u32(80) + u32(lane >> u32(4)) * u32(16))
    while tiles > u32(0):
        wait_for_copies()
        ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
        now = stage
        tiles, corner, stage = u32(tiles - u32(1)), u32(corner + u32(64)), u32(STAGE_BYTES - stage)
        if tiles > u32(0):
            copy_values(u32(packed + stage), notes, values_at, corner, lane)
            copy_rows_of_v(v_at, v_row, u32(base + stage), corner, residue, lattice, limit)
        ptx.async_commit()
        multiply_rows(total, u32(upper + now), upper_odd, u32(lower + now), lower_odd, u32(right + now))
    out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(4) * u64(lane & u32(3))
    for half in range(2):
        row = ptx.load_shared_word(u32(notes + u32(16) * u32(first_row + u32(8 * half))))
        store_row(total, half, row, out_at, out_row, scale, seq_q)


@device
def place_of_row(packed, notes, values_at, corner, lane, which):
    """Of one of a warp's rows, where a lane's first values stand in stage 0; whether they begin within a word."""
    slot = ptx.load_shared_word(u32(notes + u32(16) * which + u32(4)))
    shift = shift_of(values_at, slot, corner)
    to = u32(packed + u32(176) * which)
    return u32(to + u32(4) * u32(u32(shift >> u32(1)) + u32(lane & u32(3)))), u32(shift & u32(1))


@device
def shift_of(values_at, slot, corner):
    """Values of the chunk of a tile's first value that stand before it: of a row always as many."""
    return u32(u32(u32(values_at >> u64(1)) + slot + corner) & u32(7))


@device
def copy_values(to, notes, values_at, corner, lane):
    """A tile's packed values on their way: eight chunks of each row, and of rows that are shifted the ninth."""
    copy_chunk(to, notes, values_at, corner, u32(u32(0) + u32(lane // u32(8))), u32(lane & u32(7)), u32(1))
    copy_chunk(to, notes, values_at, corner, u32(u32(4) + u32(lane // u32(8))), u32(lane & u32(7)), u32(1))
    copy_chunk(to, notes, values_at, corner, u32(u32(8) + u32(lane // u32(8))), u32(lane & u32(7)), u32(1))
    copy_chunk(to, notes, values_at, corner, u32(u32(12) + u32(lane // u32(8))), u32(lane & u32(7)), u32(1))
    copy_chunk(to, notes, values_at, corner, u32(lane & u32(15)), u32(8), u32(1) if lane < u32(16) else u32(0))


@device
def copy_chunk(to, notes, values_at, corner, which, chunk, mine):
    """A chunk of a row: copied where all of it is kept, else put together where some of it is, else 0."""
    _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32(16) * which))
    shift = shift_of(values_at, slot, corner)
    wanted = mine if (chunk < u32(8)) or (shift != u32(0)) else u32(0)
    to = u32(to + u32(176) * which + u32(16) * chunk)
    place = u32(corner + u32(8) * chunk - shift)
    into, whole, some = kept_chunk(place, begin, count)
    whole, some = whole & wanted, some & wanted
    ptx.async_copy(to, values_at + u64(2) * u64(u32(slot + place)), whole)
    rest = u32(mine - whole)
    if ptx.any_lane(u32(some - whole)) != u32(0):
        put_chunk(to, values_at, u32(slot + place), into, count, rest)
    else:
        ptx.store_shared_words4(to, u32(0), u32(0), u32(0), u32(0), rest)


@device
def put_chunk(to, values_at, first, into, count, when):
    """Word by word."""
    word_0 = kept_word(values_at, u32(first + u32(0)), u32(into + u32(0)), count)
    word_1 = kept_word(values_at, u32(first + u32(2)), u32(into + u32(2)), count)
    word_2 = kept_word(values_at, u32(first + u32(4)), u32(into + u32(4)), count)
    word_3 = kept_word(values_at, u32(first + u32(6)), u32(into + u32(6)), count)
    ptx.store_shared_words4(to, word_0, word_1, word_2, word_3, when)


@device
def kept_word(values_at, first, into, count):
    """Two neighbouring values, 0 for one that is not the row's; first: the number of the first."""
    low = u32(1) if into < count else u32(0)
    high = u32(1) if u32(into + u32(1)) < count else u32(0)
    at = values_at + u64(2) * u64(u32(first + u32(1))) - u64(2)
    word = ptx.real_bits(ptx.load_real_when(at, low | high))
    kept = u32(u32(low * u32(65535)) | u32(high * u32(4294901760)))
    return u32(word & kept)


@device
def kept_chunk(place, begin, count):
    """The chunk's first place from the row's first; whether all its places are kept, and whether any is."""
    into = u32(place - begin)
    last = u32(into + u32(7))
    whole = u32(1) if (into < count) and (last < count) else u32(0)
    some = u32(1) if last < u32(count + u32(7)) else u32(0)
    return into, whole, some


@device
def keep_rows(rows_at, to, thread):
    """The block's rows, where all its warps find them."""
    place = u32(thread & u32(63))
    row, slot, begin, count = ptx.load_words4(rows_at + u64(16) * u64(place))
    mine = u32(1) if thread < u32(64) else u32(0)
    ptx.store_shared_words4(u32(to + u32(16) * place), row, slot, begin, count, mine)


@device
def multiply_rows(total, upper, upper_odd, lower, lower_odd, right):
    """A warp's packed values times a tile's rows of v."""
    multiply_step(total, u32(upper + u32(0)), upper_odd, u32(lower + u32(0)), lower_odd, u32(right + u32(0)))
    multiply_step(total, u32(upper + u32(32)), upper_odd, u32(lower + u32(32)), lower_odd, u32(right + u32(1280)))
    multiply_step(total, u32(upper + u32(64)), upper_odd, u32(lower + u32(64)), lower_odd, u32(right + u32(2560)))
    multiply_step(total, u32(upper + u32(96)), upper_odd, u32(lower + u32(96)), lower_odd, u32(right + u32(3840)))


@device
def multiply_step(total, upper, upper_odd, lower, lower_odd, right):
    """Sixteen places of each row."""
    a_0 = two_values(u32(upper + u32(0)), upper_odd)
    a_1 = two_values(u32(lower + u32(0)), lower_odd)
    a_2 = two_values(u32(upper + u32(16)), upper_odd)
    a_3 = two_values(u32(lower + u32(16)), lower_odd)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(0)))
    add_product(total, 0, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total, 4, a_0, a_1, a_2, a_3, b_2, b_3)
    b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(right + u32(32)))
    add_product(total, 8, a_0, a_1, a_2, a_3, b_0, b_1)
    add_product(total, 12, a_0, a_1, a_2, a_3, b_2, b_3)


@device
def two_values(at, odd):
    """Two neighbours, from the words that they are in."""
    word, after = ptx.load_shared_word(at), ptx.load_shared_word(u32(at + u32(4)))
    across = u32(u32(word >> u32(16)) | u32(after << u32(16)))
    return across if odd != u32(0) else word


@device
def store_row(total, half, row, out_at, out_row, scale, seq_q):
    """A lane's numbers of one of its two rows."""
    there = u32(1) if row < seq_q else u32(0)
    to = out_at + u64(row) * out_row
    for j in range(3):
        ptx.store_word(to + u64(16 * j), ptx.pack_float16(total[4 * j + 2 * half + 0] * scale, total[4 * j + 2 * half + 1] * scale), there)


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
    clear_rows_of_v(u32(base + u32(16384)))


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
