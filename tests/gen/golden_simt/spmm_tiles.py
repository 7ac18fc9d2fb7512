"""Packed values times rows in tiles on any GPU, generated for every mask whose rows share columns.

Rows of 20 numbers, float64, computed in float64;
64 rows x 64 places a tile, by 128 threads:
16 lanes share 8 rows.
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


# Shared memory, in bytes from its aligned start: keys or rows of v of a tile come first.
WEIGHTS, NOTES = u32(11264), u32(45056)


def spmm(
    rows, blocks, values, v, out,
    values_row, values_head, values_batch, v_row, v_head, v_batch, out_row, out_head, out_batch,
    scale_bits,
    blocks_listed, heads, share, seq_q, seq_kv, place_steps,
):
    start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
    base = u32((start + u32(15)) & u32(4294967280))
    thread = ptx.thread_index()
    row = u32(u32(thread // u32(16)) * u32(8))
    column = u32(thread & u32(15))
    scale = double_of(scale_bits)
    item = ptx.block_index()
    pair = u32(item // blocks_listed)
    rank = u32(item - pair * blocks_listed)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    rows_at = rows + u64(1024) * u64(rank)
    residue, lattice, corner, tiles = ptx.load_words4(blocks + u64(16) * u64(rank))
    limit = seq_kv
    keep_rows(rows_at, u32(base + NOTES), thread)
    notes = u32(base + NOTES + u32(16) * row)
    values_at = values + u64(entry) * values_batch + u64(head) * values_head
    v_at = v + u64(entry) * v_batch + u64(head // share) * v_head
    weights = u32(base + WEIGHTS + u32(528) * row)
    total = cuda.local.array(16, dtype=np.float64)
    for n in range(16):
        total[n] = ZERO
    ptx.block_barrier()  # the list of rows is there
    while tiles > u32(0):
        load_rows_of_v(v_at, v_row, base, corner, residue, lattice, limit)
        load_weights(weights, notes, values_at, values_row, corner, column)
        ptx.block_barrier()
        multiply_rows(total, weights, base, place_steps)
        ptx.block_barrier()  # nobody reads the tile any more
        tiles, corner = u32(tiles - u32(1)), u32(corner + u32(64))
    out_at = out + u64(entry) * out_batch + u64(head) * out_head
    for i in range(8):
        store_row(i, total, notes, out_at, out_row, scale, seq_q)


@device
def load_weights(weights, notes, values_at, values_row, corner, column):
    """Packed values of a thread's rows of a tile, 0 where none is kept; all are on their way at once."""
    number = cuda.local.array(32, dtype=np.float64)
    for i in range(8):
        _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32(16 * i)))
        for j in range(4):
            place = u32(corner + column + u32(16 * j))
            safe = u32(slot + place) if u32(place - begin) < count else u32(0)
            number[4 * i + j] = load_number(values_at + values_row * u64(safe))
    for i in range(8):
        _, slot, begin, count = ptx.load_shared_words4(u32(notes + u32(16 * i)))
        for j in range(4):
            here = u32(column + u32(16 * j))
            x = number[4 * i + j] if u32(corner + here - begin) < count else ZERO
            to = u32(weights + u32(528 * i))
            write_number(u32(to + u32(8) * here), x)


@device
def store_row(i, total, notes, out_at, out_row, scale, seq_q):
    """Row i of a thread's results."""
    row = ptx.load_shared_word(u32(notes + u32(16 * i)))
    there = u32(1) if row < seq_q else u32(0)
    for piece in range(1):
        chunk = chunk_of(piece)
        inside = there if chunk < u32(10) else u32(0)
        store_chunk(out_at + u64(row) * out_row + u64(16) * u64(chunk), total[2 * (1 * i + piece) + 0] * scale, total[2 * (1 * i + piece) + 1] * scale, inside)


@device
def store_chunk(to, x_0, x_1, when):
    """Neighbouring numbers of an array, as float64."""
    a, b = words_of(x_0)
    c, d = words_of(x_1)
    ptx.store_words4(to, a, b, c, d, when)


@device
def load_number(at):
    """A number of an array, float64."""
    return joined(ptx.load_pair(at), ptx.load_pair(at + u64(4)))


@device
def load_rows_of_v(first, step, to, corner, residue, lattice, limit):
    """The rows_of_v of a tile, into shared memory."""
    chunks = cuda.local.array(16, dtype=np.uint32)
    begin = ptx.thread_index()
    while begin < u32(640):
        fetch_rows_of_v(0, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_rows_of_v(1, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_rows_of_v(2, begin, chunks, first, step, corner, residue, lattice, limit)
        fetch_rows_of_v(3, begin, chunks, first, step, corner, residue, lattice, limit)
        store_rows_of_v(0, begin, chunks, to)
        store_rows_of_v(1, begin, chunks, to)
        store_rows_of_v(2, begin, chunks, to)
        store_rows_of_v(3, begin, chunks, to)
        begin = u32(begin + u32(512))


@device
def fetch_rows_of_v(i, begin, chunks, first, step, corner, residue, lattice, limit):
    """A lane's chunk of this number."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(10))
    chunk = u32(number - place * u32(10))
    place = place if place < u32(64) else u32(63)
    token = u32(residue + lattice * u32(corner + place))
    inside = u32(1) if token < limit else u32(0)
    at = first + u64(token) * step + u64(16) * u64(chunk)
    chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3] = ptx.load_words4_when(at, inside)


@device
def store_rows_of_v(i, begin, chunks, to):
    """The same into shared memory."""
    number = u32(begin + u32(128 * i))
    place = u32(number // u32(10))
    chunk = u32(number - place * u32(10))
    mine = u32(1) if place < u32(64) else u32(0)
    at = u32(to + place * u32(176) + chunk * u32(16))
    ptx.store_shared_words4(at, chunks[4 * i + 0], chunks[4 * i + 1], chunks[4 * i + 2], chunks[4 * i + 3], mine)


@device
def multiply_rows(total, weights, right, steps):
    """A thread's packed values times the tile's rows of v."""
    weight = cuda.local.array(16, dtype=np.float64)
    place = cuda.local.array(1, dtype=np.uint32)
    for piece in range(1):
        chunk = chunk_of(piece)
        place[piece] = right + u32(16) * (chunk if chunk < u32(10) else u32(0))
    for step in range(steps):
        for i in range(8):
            weight[2 * i + 0], weight[2 * i + 1] = read_chunk(weights + u32(528) * u32(i) + u32(16) * u32(step))
        for x in range(2):
            for piece in range(1):
                y_0, y_1 = read_chunk(place[piece] + u32(176) * u32(u32(2) * u32(step) + u32(x)))
                for i in range(8):
                    total[2 * (1 * i + piece) + 0] += weight[2 * i + x] * y_0
                    total[2 * (1 * i + piece) + 1] += weight[2 * i + x] * y_1


@device
def chunk_of(piece):
    """The chunk of a row's numbers that is this lane's next."""
    return u32(u32(ptx.thread_index() & u32(15)) + u32(16) * u32(piece))


@device
def keep_rows(rows_at, to, thread):
    """The block's rows, where all its warps find them."""
    place = u32(thread & u32(63))
    row, slot, begin, count = ptx.load_words4(rows_at + u64(16) * u64(place))
    mine = u32(1) if thread < u32(64) else u32(0)
    ptx.store_shared_words4(u32(to + u32(16) * place), row, slot, begin, count, mine)
