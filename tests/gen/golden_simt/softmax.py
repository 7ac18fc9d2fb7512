"""Softmax of packed values, generated for every mask; a warp has a row.

Packed values, float64, computed in float64.
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


def softmax(
    rows, values, weights,
    values_row, values_head, values_batch, weights_row, weights_head, weights_batch,
    row_blocks, rows_listed, heads,
):
    thread, item = ptx.thread_index(), ptx.block_index()
    lane = u32(thread & u32(31))
    pair = u32(item // row_blocks)
    rank = u32(u32(item - pair * row_blocks) * u32(4) + u32(thread // u32(32)))
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    if rank < rows_listed:
        row, slot, count, run = ptx.load_words4(rows + u64(16) * u64(rank))
        values_at = values + u64(entry) * values_batch + u64(head) * values_head + u64(slot) * values_row
        weights_at = weights + u64(entry) * weights_batch + u64(head) * weights_head + u64(slot) * weights_row
        last = u32(count - u32(1))
        rounded = u32(u32(count + u32(31)) & u32(4294967264))
        peak, added = NONE_KEPT, ZERO
        begin = lane
        while begin < rounded:
            x = load_number(values_at + u64(begin if begin < count else last) * values_row)
            x = x if begin < count else NONE_KEPT
            top = maximum(peak, x)
            safe = top if top > NONE_KEPT else ZERO
            added = added * power(peak - safe) + power(x - safe)
            peak = top
            begin = u32(begin + u32(32))
        top = top_of_warp(peak)
        safe = top if top > NONE_KEPT else ZERO
        total = sum_of_warp(added * power(peak - safe))
        factor = reciprocal(total) if total != ZERO else ZERO
        begin = lane
        while begin < rounded:
            there = u32(1) if begin < count else u32(0)
            place = u64(begin if begin < count else last)
            weight = power(load_number(values_at + place * values_row) - safe) * factor
            store_number(weights_at + place * weights_row, weight, there)
            begin = u32(begin + u32(32))


@device
def power(x):
    """exp(x)."""
    return exp2(x * real(1.4426950408889634))


@device
def top_of_warp(x):
    """The largest of what lanes have."""
    x = maximum(x, from_lane(x, u32(1)))
    x = maximum(x, from_lane(x, u32(2)))
    x = maximum(x, from_lane(x, u32(4)))
    x = maximum(x, from_lane(x, u32(8)))
    x = maximum(x, from_lane(x, u32(16)))
    return x


@device
def sum_of_warp(x):
    """The sum of what lanes have."""
    x = x + from_lane(x, u32(1))
    x = x + from_lane(x, u32(2))
    x = x + from_lane(x, u32(4))
    x = x + from_lane(x, u32(8))
    x = x + from_lane(x, u32(16))
    return x


@device
def load_number(at):
    """A number of an array, float64."""
    return joined(ptx.load_pair(at), ptx.load_pair(at + u64(4)))


@device
def store_number(to, x, when):
    """A number of an array, as float64."""
    low, high = words_of(x)
    ptx.store_word(to, low, when)
    ptx.store_word(to + u64(4), high, when)
