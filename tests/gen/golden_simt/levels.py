"""lse in base 2, and delta = sum(dout * out) - dlse, of each query, by 16 lanes."""

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


def attention_levels(
    out, dout, lse, dlse, levels,
    out_row, out_head, out_batch, dout_row, dout_head, dout_batch, lse_row, lse_head, lse_batch, dlse_row, dlse_head, dlse_batch,
    heads, seq, rows,
):
    thread = ptx.thread_index()
    number = u32(ptx.block_index() * u32(8) + u32(thread // u32(16)))
    there = u32(1) if number < rows else u32(0)
    number = number if there != u32(0) else u32(0)
    pair = u32(number // seq)
    row = u32(number - pair * seq)
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    out_at = out + u64(entry) * out_batch + u64(head) * out_head + u64(row) * out_row
    dout_at = dout + u64(entry) * dout_batch + u64(head) * dout_head + u64(row) * dout_row
    lse_at = lse + u64(entry) * lse_batch + u64(head) * lse_head + u64(row) * lse_row
    dlse_at = dlse + u64(entry) * dlse_batch + u64(head) * dlse_head + u64(row) * dlse_row
    total = ZERO
    for piece in range(1):
        chunk = chunk_of(piece)
        inside = chunk < u32(10)
        place = u64(16) * u64(chunk if inside else u32(0))
        a_0, a_1 = load_chunk(out_at + place)
        b_0, b_1 = load_chunk(dout_at + place)
        total = total + (a_0 * b_0 if inside else ZERO)
        total = total + (a_1 * b_1 if inside else ZERO)
    total = sum_of_row(total)
    level = load_number(lse_at)
    if dlse != u64(0):
        total = total - load_number(dlse_at)
    kept = level != NONE_KEPT  # NaN counts
    delta = total if kept else ZERO
    level = level * real(1.4426950408889634) if kept else real(np.inf)
    one_lane = there if u32(thread & u32(15)) == u32(0) else u32(0)
    to = levels + u64(16) * u64(number)
    store_number(to, level, one_lane)
    store_number(to + u64(8), delta, one_lane)


@device
def chunk_of(piece):
    """The chunk of a row's numbers that is this lane's next."""
    return u32(u32(ptx.thread_index() & u32(15)) + u32(16) * u32(piece))


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
def load_chunk(at):
    """Neighbouring numbers of an array that launches may write."""
    return joined(ptx.load_pair(at + u64(0)), ptx.load_pair(at + u64(4))), joined(ptx.load_pair(at + u64(8)), ptx.load_pair(at + u64(12)))


@device
def load_number(at):
    """A number that an earlier launch may have written."""
    return joined(ptx.load_pair(at), ptx.load_pair(at + u64(4)))


@device
def store_number(to, x, when):
    """A number of an array, as float64."""
    low, high = words_of(x)
    ptx.store_word(to, low, when)
    ptx.store_word(to + u64(4), high, when)
