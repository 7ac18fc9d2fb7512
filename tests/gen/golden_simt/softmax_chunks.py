"""Softmax of packed values by chunks, generated for every mask; a warp has a row.

Packed values, float16, computed in float32.
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


def softmax(
    rows, values, weights,
    values_row, values_head, values_batch, weights_row, weights_head, weights_batch,
    row_blocks, rows_listed, heads, pairs,
):
    thread, item = ptx.thread_index(), ptx.block_index()
    lane = u32(thread & u32(31))
    pair = u32(item // row_blocks)
    rank = u32(u32(item - pair * row_blocks) * u32(4) + u32(thread // u32(32)))
    entry = u32(pair // heads)
    head = u32(pair - entry * heads)
    rank = u32(rank * u32(4))
    if rank < rows_listed:
        mine = u32(rank + u32(lane // u32(8)))
        safe = mine if mine < rows_listed else rank
        row, slot, count, run = ptx.load_words4(rows + u64(16) * u64(safe))
        values_at = values + u64(entry) * values_batch + u64(head) * values_head
        weights_at = weights + u64(entry) * weights_batch + u64(head) * weights_head
        all_values, all_weights = values_at, weights_at
        values_at = place_of_row(values_at, values_row, slot)
        weights_at = place_of_row(weights_at, weights_row, slot)
        shift, chunks, alike = first_chunk(values_at, weights_at, count)
        left = u32(u32(1) - is_held(slot, shift, chunks, alike, pairs))
        if ptx.any_lane(left) == u32(0):
            lane = u32(lane & u32(7))
            softmax_of_held(values_at, weights_at, shift, count, chunks, lane)
        else:
            for i in range(4):
                first, many = ptx.word_of_lane(slot, u32(8 * i)), ptx.word_of_lane(count, u32(8 * i))
                values_at = place_of_row(all_values, values_row, first)
                weights_at = place_of_row(all_weights, weights_row, first)
                shift, chunks, alike = first_chunk(values_at, weights_at, many)
                softmax_in_turn(values_at, weights_at, shift, many, chunks, alike, lane)


@device
def place_of_row(at, step, slot):
    """Where a row's packed values begin."""
    return at + u64(slot) * step


@device
def first_chunk(from_at, to_at, count):
    """How many numbers of its first chunk stand before a row's; its chunks; whether results have the same ones."""
    shift = u32(u32(from_at & u64(15)) // u32(2))
    alike = u32(1) if u32(to_at & u64(15)) == u32(from_at & u64(15)) else u32(0)
    chunks = u32(u32(count + shift + u32(7)) // u32(8)) if count > u32(0) else u32(0)
    return shift, chunks, alike


@device
def is_held(slot, shift, chunks, alike, pairs):
    """Whether a lane has few enough chunks of a row, and all of them are the head's."""
    fits = alike if chunks <= u32(16) else u32(0)
    fits = fits if slot >= shift else u32(0)
    return fits if u32(slot + u32(8) * chunks) <= u32(pairs + shift) else u32(0)


@device
def softmax_of_held(values_at, weights_at, shift, count, chunks, lane):
    """All of a row, in registers."""
    words = cuda.local.array(8, dtype=np.uint32)
    x = cuda.local.array(16, dtype=np.float32)
    fetch_row(words, values_at - u64(2) * u64(shift), chunks, lane)
    top = top_of_row(hold_row(x, words, shift, count, chunks, lane))
    total = sum_of_row(raise_row(x, top if top > NONE_KEPT else ZERO, chunks))
    store_row(x, weights_at, shift, count, chunks, lane, reciprocal(total) if total != ZERO else ZERO)


@device
def fetch_row(words, first_at, chunks, lane):
    """A row's chunks, on their way."""
    inside = u32(1) if u32(lane + u32(0)) < chunks else u32(0)
    words[0], words[1], words[2], words[3] = ptx.load_words4_when(first_at + u64(16) * u64(u32(lane + u32(0))), inside)
    inside = u32(1) if u32(lane + u32(8)) < chunks else u32(0)
    words[4], words[5], words[6], words[7] = ptx.load_words4_when(first_at + u64(16) * u64(u32(lane + u32(8))), inside)


@device
def hold_row(x, words, shift, count, chunks, lane):
    """Their numbers, and a lane's largest."""
    peak = NONE_KEPT
    if ptx.any_lane(u32(1) if chunks > u32(0) else u32(0)) != u32(0):
        peak = hold_chunk(x, 0, words, 0, u32(u32(8) * u32(lane + u32(0)) - shift), count, peak)
    if ptx.any_lane(u32(1) if chunks > u32(8) else u32(0)) != u32(0):
        peak = hold_chunk(x, 8, words, 4, u32(u32(8) * u32(lane + u32(8)) - shift), count, peak)
    return peak


@device
def raise_row(x, safe, chunks):
    """Their exponentials, and a lane's sum."""
    added = ZERO
    if ptx.any_lane(u32(1) if chunks > u32(0) else u32(0)) != u32(0):
        added = raise_chunk(x, 0, safe, added)
    if ptx.any_lane(u32(1) if chunks > u32(8) else u32(0)) != u32(0):
        added = raise_chunk(x, 8, safe, added)
    return added


@device
def store_row(x, weights_at, shift, count, chunks, lane, factor):
    """The weights of a row."""
    if ptx.any_lane(u32(1) if chunks > u32(0) else u32(0)) != u32(0):
        store_held(x, 0, weights_at, u32(u32(8) * u32(lane + u32(0)) - shift), count, factor)
    if ptx.any_lane(u32(1) if chunks > u32(8) else u32(0)) != u32(0):
        store_held(x, 8, weights_at, u32(u32(8) * u32(lane + u32(8)) - shift), count, factor)


@device
def fetch_chunk(words, first, first_at, chunk, chunks):
    """A chunk's 16 bytes, where the row has it."""
    inside = u32(1) if chunk < chunks else u32(0)
    words[first + 0], words[first + 1], words[first + 2], words[first + 3] = ptx.load_words4_when(first_at + u64(16) * u64(chunk), inside)


@device
def hold_chunk(x, at, words, first, place, count, peak):
    """A chunk's numbers, -inf for those that are not the row's, and the largest so far."""
    a, b, c, d = words[first + 0], words[first + 1], words[first + 2], words[first + 3]
    x_0, x_1 = ptx.unpack_float16(a)
    x_2, x_3 = ptx.unpack_float16(b)
    x_4, x_5 = ptx.unpack_float16(c)
    x_6, x_7 = ptx.unpack_float16(d)
    whole = u32(1) if (place < count) and (u32(place + u32(7)) < count) else u32(0)
    if ptx.any_lane(u32(u32(1) - whole)) != u32(0):
        there = u32(1) if u32(place + u32(0)) < count else u32(0)
        x_0 = ptx.select_real(x_0, NONE_KEPT, there)
        there = u32(1) if u32(place + u32(1)) < count else u32(0)
        x_1 = ptx.select_real(x_1, NONE_KEPT, there)
        there = u32(1) if u32(place + u32(2)) < count else u32(0)
        x_2 = ptx.select_real(x_2, NONE_KEPT, there)
        there = u32(1) if u32(place + u32(3)) < count else u32(0)
        x_3 = ptx.select_real(x_3, NONE_KEPT, there)
        there = u32(1) if u32(place + u32(4)) < count else u32(0)
        x_4 = ptx.select_real(x_4, NONE_KEPT, there)
        there = u32(1) if u32(place + u32(5)) < count else u32(0)
        x_5 = ptx.select_real(x_5, NONE_KEPT, there)
        there = u32(1) if u32(place + u32(6)) < count else u32(0)
        x_6 = ptx.select_real(x_6, NONE_KEPT, there)
        there = u32(1) if u32(place + u32(7)) < count else u32(0)
        x_7 = ptx.select_real(x_7, NONE_KEPT, there)
    x[at + 0], peak = x_0, maximum(peak, x_0)
    x[at + 1], peak = x_1, maximum(peak, x_1)
    x[at + 2], peak = x_2, maximum(peak, x_2)
    x[at + 3], peak = x_3, maximum(peak, x_3)
    x[at + 4], peak = x_4, maximum(peak, x_4)
    x[at + 5], peak = x_5, maximum(peak, x_5)
    x[at + 6], peak = x_6, maximum(peak, x_6)
    x[at + 7], peak = x_7, maximum(peak, x_7)
    return peak


@device
def raise_chunk(x, at, safe, added):
    """Their exponentials, and the sum so far."""
    for k in range(8):
        x[at + k] = power(x[at + k] - safe)
        added = added + x[at + k]
    return added


@device
def store_held(x, at, weights_at, place, count, factor):
    """A chunk's weights, as far as they are the row's."""
    whole = u32(1) if (place < count) and (u32(place + u32(7)) < count) else u32(0)
    some = u32(1) if u32(place + u32(7)) < u32(count + u32(7)) else u32(0)
    part = u32(some - whole)
    to = weights_at + u64(2) * u64(place)
    a = ptx.pack_float16(x[at + 0] * factor, x[at + 1] * factor)
    b = ptx.pack_float16(x[at + 2] * factor, x[at + 3] * factor)
    c = ptx.pack_float16(x[at + 4] * factor, x[at + 5] * factor)
    d = ptx.pack_float16(x[at + 6] * factor, x[at + 7] * factor)
    ptx.store_words4(to, a, b, c, d, whole)
    if ptx.any_lane(part) != u32(0):
        store_ends(weights_at, a, b, c, d, place, count, part)


@device
def store_ends(row_at, a, b, c, d, place, count, when):
    """A chunk's words of which the row has both numbers; of those at its first and last place, one."""
    kept = when if (u32(place + u32(0)) < count) and (u32(u32(place + u32(0)) + u32(1)) < count) else u32(0)
    ptx.store_word(row_at + u64(2) * u64(u32(place + u32(0))), a, kept)
    kept = when if (u32(place + u32(2)) < count) and (u32(u32(place + u32(2)) + u32(1)) < count) else u32(0)
    ptx.store_word(row_at + u64(2) * u64(u32(place + u32(2))), b, kept)
    kept = when if (u32(place + u32(4)) < count) and (u32(u32(place + u32(4)) + u32(1)) < count) else u32(0)
    ptx.store_word(row_at + u64(2) * u64(u32(place + u32(4))), c, kept)
    kept = when if (u32(place + u32(6)) < count) and (u32(u32(place + u32(6)) + u32(1)) < count) else u32(0)
    ptx.store_word(row_at + u64(2) * u64(u32(place + u32(6))), d, kept)
    before, left = u32(u32(0) - place), u32(count - place)
    odd = when if (before < u32(8)) and (u32(before & u32(1)) != u32(0)) else u32(0)
    odd = odd if count > u32(0) else u32(0)
    ptx.store_half(row_at, u32(word_of(a, b, c, d, before) >> u32(16)), odd)
    odd = when if (left < u32(8)) and (u32(left & u32(1)) != u32(0)) else u32(0)
    odd = odd if count > u32(0) else u32(0)
    ptx.store_half(row_at + u64(2) * u64(u32(count - u32(1))), word_of(a, b, c, d, left), odd)


@device
def word_of(a, b, c, d, number):
    """The word that a number of a chunk is in."""
    low, high = ptx.select(b, a, number & u32(2)), ptx.select(d, c, number & u32(2))
    return ptx.select(high, low, number & u32(4))


@device
def top_of_row(x):
    """The largest of what its lanes have."""
    x = maximum(x, from_lane(x, u32(1)))
    x = maximum(x, from_lane(x, u32(2)))
    x = maximum(x, from_lane(x, u32(4)))
    return x


@device
def sum_of_row(x):
    """The sum of what its lanes have."""
    x = x + from_lane(x, u32(1))
    x = x + from_lane(x, u32(2))
    x = x + from_lane(x, u32(4))
    return x


@device
def softmax_in_turn(values_at, weights_at, shift, count, chunks, alike, lane):
    """A row's chunks one after the other, twice."""
    rounded = u32(u32(chunks + u32(31)) & u32(4294967264))
    peak, added = NONE_KEPT, ZERO
    chunk = lane
    while chunk < rounded:
        place = u32(u32(8) * chunk - shift)
        x_0, x_1, x_2, x_3, x_4, x_5, x_6, x_7 = load_chunk(values_at, place, count)
        top = maximum(maximum(maximum(maximum(maximum(maximum(maximum(maximum(peak, x_0), x_1), x_2), x_3), x_4), x_5), x_6), x_7)
        safe = top if top > NONE_KEPT else ZERO
        here = power(x_0 - safe) + power(x_1 - safe) + power(x_2 - safe) + power(x_3 - safe) + power(x_4 - safe) + power(x_5 - safe) + power(x_6 - safe) + power(x_7 - safe)
        added = added * power(peak - safe) + here
        peak = top
        chunk = u32(chunk + u32(32))
    top = top_of_warp(peak)
    safe = top if top > NONE_KEPT else ZERO
    total = sum_of_warp(added * power(peak - safe))
    factor = reciprocal(total) if total != ZERO else ZERO
    chunk = lane
    while chunk < rounded:
        place = u32(u32(8) * chunk - shift)
        x_0, x_1, x_2, x_3, x_4, x_5, x_6, x_7 = load_chunk(values_at, place, count)
        store_chunk(
            weights_at, place, count, alike, power(x_0 - safe) * factor, power(x_1 - safe) * factor,
            power(x_2 - safe) * factor, power(x_3 - safe) * factor, power(x_4 - safe) * factor, power(x_5 - safe) * factor,
            power(x_6 - safe) * factor, power(x_7 - safe) * factor,
        )
        chunk = u32(chunk + u32(32))


@device
def kept_chunk(place, count):
    """Whether the row has all of a chunk, and whether any."""
    last = u32(place + u32(7))
    whole = u32(1) if (place < count) and (last < count) else u32(0)
    some = u32(1) if last < u32(count + u32(7)) else u32(0)
    return whole, some & u32(u32(1) - whole)


@device
def load_chunk(values_at, place, count):
    """A chunk's numbers, -inf for those that are not the row's."""
    whole, part = kept_chunk(place, count)
    a, b, c, d = ptx.load_words4_when(values_at + u64(2) * u64(place), whole)
    x_0, x_1 = ptx.unpack_float16(a)
    x_2, x_3 = ptx.unpack_float16(b)
    x_4, x_5 = ptx.unpack_float16(c)
    x_6, x_7 = ptx.unpack_float16(d)
    x_0 = ptx.select_real(x_0, NONE_KEPT, whole)
    x_1 = ptx.select_real(x_1, NONE_KEPT, whole)
    x_2 = ptx.select_real(x_2, NONE_KEPT, whole)
    x_3 = ptx.select_real(x_3, NONE_KEPT, whole)
    x_4 = ptx.select_real(x_4, NONE_KEPT, whole)
    x_5 = ptx.select_real(x_5, NONE_KEPT, whole)
    x_6 = ptx.select_real(x_6, NONE_KEPT, whole)
    x_7 = ptx.select_real(x_7, NONE_KEPT, whole)
    if ptx.any_lane(part) != u32(0):
        x_0 = own_number(values_at, u32(place + u32(0)), count, part, x_0)
        x_1 = own_number(values_at, u32(place + u32(1)), count, part, x_1)
        x_2 = own_number(values_at, u32(place + u32(2)), count, part, x_2)
        x_3 = own_number(values_at, u32(place + u32(3)), count, part, x_3)
        x_4 = own_number(values_at, u32(place + u32(4)), count, part, x_4)
        x_5 = own_number(values_at, u32(place + u32(5)), count, part, x_5)
        x_6 = own_number(values_at, u32(place + u32(6)), count, part, x_6)
        x_7 = own_number(values_at, u32(place + u32(7)), count, part, x_7)
    return x_0, x_1, x_2, x_3, x_4, x_5, x_6, x_7


@device
def own_number(values_at, place, count, part, x):
    """The number at a place where it is the row's and the chunk is read so, else what was there."""
    mine = part if place < count else u32(0)
    found = load_number(values_at + u64(2) * u64(place if mine != u32(0) else u32(0)))
    return ptx.select_real(found, x, mine)


@device
def store_chunk(weights_at, place, count, alike, x_0, x_1, x_2, x_3, x_4, x_5, x_6, x_7):
    """A chunk's numbers, as far as they are the row's."""
    whole, part = kept_chunk(place, count)
    at = weights_at + u64(2) * u64(place)
    a = ptx.pack_float16(x_0, x_1)
    b = ptx.pack_float16(x_2, x_3)
    c = ptx.pack_float16(x_4, x_5)
    d = ptx.pack_float16(x_6, x_7)
    ptx.store_words4(at, a, b, c, d, whole & alike)
    alone = part | u32(whole & u32(u32(1) - alike))
    if ptx.any_lane(alone) != u32(0):
        store_own(weights_at, u32(place + u32(0)), count, alone, x_0)
        store_own(weights_at, u32(place + u32(1)), count, alone, x_1)
        store_own(weights_at, u32(place + u32(2)), count, alone, x_2)
        store_own(weights_at, u32(place + u32(3)), count, alone, x_3)
        store_own(weights_at, u32(place + u32(4)), count, alone, x_4)
        store_own(weights_at, u32(place + u32(5)), count, alone, x_5)
        store_own(weights_at, u32(place + u32(6)), count, alone, x_6)
        store_own(weights_at, u32(place + u32(7)), count, alone, x_7)


@device
def store_own(weights_at, place, count, when, x):
    """A number if it is the row's."""
    store_number(weights_at + u64(2) * u64(place), x, when if place < count else u32(0))


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
    """A number of an array, float16."""
    low, high = ptx.unpack_float16(ptx.load_pair(at & u64(18446744073709551612)))
    return ptx.select_real(high, low, u32(at & u64(2)))


@device
def store_number(to, x, when):
    """A number of an array, as float16."""
    ptx.store_half(to, ptx.pack_float16(x, x), when)
