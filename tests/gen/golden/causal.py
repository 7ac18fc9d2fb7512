"""Sparse attention, generated for causal.align_end.

head_dim 8, value_dim 8, float32; any length; target cpu.
Call each pass in turn, with ranges first .. last - 1 of its work items; ranges are independent of each other.
"""

import math

import numpy as np
from numba import njit

from splat_numba.runtime.halves import from_bfloat16, from_float16, to_bfloat16, to_float16
from splat_numba.runtime.simd import address, advance, assign, element
from splat_numba.runtime.tiles import gather_rows, load_each, load_scaled, multiply_add, scatter_rows
from splat_numba.runtime.tiles import store_each, store_tile, times, times_or_zero
from splat_numba.runtime.vectors import floor, fma, maximum, power_of_two, select, shaped, store, transpose

real = np.float32
WIDTH = 8  # numbers in one vector
LOWEST = real(np.finfo(real).min)  # where maxima begin: a row may hold nothing but -inf, and -inf - -inf is NaN
load, splat, inside, bits = shaped("float32", WIDTH)


@njit(nogil=True, error_model="numpy", forceinline=True)
def exp2(x):
    """2**x: the nearest whole power from the exponent bits, the rest by a polynomial."""
    whole = floor(maximum(x, splat(real(-126.0))) + splat(real(0.5)))  # maximum turns NaN into a number,
    rest = x - whole  # so NaN goes on through the rest
    p = splat(real(0.00015353361713359853))
    p = fma(p, rest, splat(real(0.0013398874477699649)))
    p = fma(p, rest, splat(real(0.009618437358961465)))
    p = fma(p, rest, splat(real(0.05550332470924774)))
    p = fma(p, rest, splat(real(0.24022647913610046)))
    p = fma(p, rest, splat(real(0.6931472028551922)))
    p = fma(p, rest, splat(real(1.0))) * power_of_two(whole)
    return select(splat(real(-126.0)) > x, splat(real(0.0)), p)


@njit(nogil=True, error_model="numpy", forceinline=True)
def row_of(rows, lane):
    """Row of a lane; the block's first row where the lane has none."""
    row = element(rows, lane)
    return row if row >= 0 else element(rows, 0)


@njit(nogil=True, error_model="numpy")
def rows_to_lanes_float32_16(source, row_stride, dim_stride, rows, dims, scale, tile):
    """tile[x, lane] = scale * source[rows[lane], x]; a lane without a row repeats the first row."""
    whole = 0
    if dim_stride == 1:
        whole, zero, factor = dims - dims % WIDTH, splat(real(0.0)), splat(scale)
        empty = (zero, zero, zero, zero, zero, zero, zero, zero)
        for lane in range(0, 16, WIDTH):
            for x in range(0, whole, WIDTH):
                square = transpose(gather_rows(empty, advance(source, x), row_stride, rows, lane))
                store_each(times(square, factor), advance(tile, x * 16 + lane), 16)
    for lane in range(16):
        here = advance(source, row_of(rows, lane) * row_stride)
        for x in range(whole, dims):
            assign(tile, x * 16 + lane, real(element(here, x * dim_stride) * scale))


@njit(nogil=True, error_model="numpy")
def lanes_to_rows_float32_16(tile, factor, target, row_stride, dim_stride, rows, dims):
    """target[rows[lane], x] = factor[lane] * tile[x, lane]; 0 where factor is, whatever the tile holds."""
    whole = 0
    if dim_stride == 1:
        whole, zero = dims - dims % WIDTH, splat(real(0.0))
        empty = (zero, zero, zero, zero, zero, zero, zero, zero)
        for lane in range(0, 16, WIDTH):
            for x in range(0, whole, WIDTH):
                square = load_each(empty, advance(tile, x * 16 + lane), 16)
                square = transpose(times_or_zero(square, load(factor, lane)))
                scatter_rows(square, advance(target, x), row_stride, rows, lane)
    for lane in range(16):
        row, f = element(rows, lane), element(factor, lane)
        if row >= 0:
            here = advance(target, row * row_stride)
            for x in range(whole, dims):
                value = real(element(tile, x * 16 + lane) * f)
                value = real(0.0) if f == real(0.0) else value
                assign(here, x * dim_stride, value)


@njit(nogil=True, error_model="numpy")
def store_rows_16x128(out, row_stride, dim_stride, lse, lse_stride, rows, maxima, sums, inverse, total):
    """out[row] = total / sum and lse[row] = maximum + log(sum); an empty row gives 0 and -inf."""
    for lane in range(16):
        row, weight = element(rows, lane), element(sums, lane)
        empty = weight == real(0.0)
        assign(inverse, lane, real(0.0) if empty else real(1.0) / weight)
        if row >= 0:
            log_sum = element(maxima, lane) * real(0.6931471805599453) + math.log(weight)
            assign(lse, row * lse_stride, real(-np.inf) if empty else real(log_sum))
    lanes_to_rows_float32_16(total, inverse, out, row_stride, dim_stride, rows, 8)


@njit(nogil=True, error_model="numpy")
def stage_16x128(source, key_stride, dim_stride, count, dims, staged):
    """staged[key, x] = source[key, x] in the compute type."""
    for key in range(count):
        here = advance(source, key * key_stride)
        whole = 0
        if dim_stride == 1:
            whole = dims - dims % WIDTH
            for x in range(0, whole, WIDTH):
                store(staged, key * dims + x, load(here, x))
        for x in range(whole, dims):
            assign(staged, key * dims + x, element(here, x * dim_stride))


@njit(nogil=True, error_model="numpy")
def multiply_keys_16x128(k, key_stride, dim_stride, count, queries, scores):
    """scores[key, lane] = sum over x of k[key, x] * queries[x, lane], 4 keys at a time."""
    zero = splat(real(0.0))
    if count < 4:
        for key in range(count):
            for lane in range(0, 16, 2 * WIDTH):
                tile = (zero, zero)
                for x in range(8):
                    tile = multiply_add(tile, advance(k, key * key_stride + x * dim_stride), key_stride, advance(queries, x * 16 + lane))
                store_tile(tile, advance(scores, key * 16 + lane), 16)
        return
    for start in range(0, count, 4):
        key = min(start, count - 4)  # the last group overlaps its neighbour: same keys, same scores
        for lane in range(0, 16, 2 * WIDTH):
            tile = (zero, zero, zero, zero, zero, zero, zero, zero)
            for x in range(8):
                tile = multiply_add(tile, advance(k, key * key_stride + x * dim_stride), key_stride, advance(queries, x * 16 + lane))
            store_tile(tile, advance(scores, key * 16 + lane), 16)


@njit(nogil=True, error_model="numpy")
def multiply_values_16x128(v, key_stride, dim_stride, count, weights, alpha, total):
    """total[x, lane] = alpha[lane] * total[x, lane] + sum over key of v[key, x] * weights[key, lane]."""
    zero = splat(real(0.0))
    for dim in range(0, 8, 4):
        for lane in range(0, 16, 2 * WIDTH):
            place = advance(total, dim * 16 + lane)
            tile = load_scaled((zero, zero, zero, zero, zero, zero, zero, zero), place, 16, advance(alpha, lane))
            for key in range(count):
                tile = multiply_add(tile, advance(v, key * key_stride + dim * dim_stride), dim_stride, advance(weights, key * 16 + lane))
            store_tile(tile, place, 16)


@njit(nogil=True, error_model="numpy")
def soften_full_16x128(scores, count, maxima, sums, alpha):
    """scores become weights, where every query keeps every key."""
    zero = splat(real(0.0))
    for lane in range(0, 16, WIDTH):
        old = load(maxima, lane)
        new = old
        for key in range(count):
            new = maximum(load(scores, key * 16 + lane), new)
        total = zero
        for key in range(count):
            weight = exp2(load(scores, key * 16 + lane) - new)
            store(scores, key * 16 + lane, weight)
            total = total + weight
        store(maxima, lane, new)
        factor = exp2(old - new)
        store(alpha, lane, factor)
        store(sums, lane, fma(load(sums, lane), factor, total))


@njit(nogil=True, error_model="numpy")
def reset_16x128(maxima, sums, total):
    """Nothing seen: the smallest maximum, sum 0, total 0."""
    for lane in range(0, 16, WIDTH):
        store(maxima, lane, splat(LOWEST))
        store(sums, lane, splat(real(0.0)))
    for place in range(0, 128, WIDTH):
        store(total, place, splat(real(0.0)))


@njit(nogil=True, error_model="numpy")
def soften_inside_16x128(scores, count, maxima, sums, alpha, first, low, high):
    """scores become weights, where a query keeps lattice columns low <= first + key < high."""
    zero = splat(real(0.0))
    nothing = splat(real(-np.inf))
    for lane in range(0, 16, WIDTH):
        old = load(maxima, lane)
        new = old
        for key in range(count):
            new = maximum(select(inside(low, high, lane, first + key), load(scores, key * 16 + lane), nothing), new)
        total = zero
        for key in range(count):
            weight = select(inside(low, high, lane, first + key), exp2(load(scores, key * 16 + lane) - new), zero)
            store(scores, key * 16 + lane, weight)
            total = total + weight
        store(maxima, lane, new)
        factor = exp2(old - new)
        store(alpha, lane, factor)
        store(sums, lane, fma(load(sums, lane), factor, total))


@njit(nogil=True, error_model="numpy")
def attend_interval_16x128(k, k_stride, k_dim, v, v_stride, v_dim, low, high, rows, queries, scores, maxima, sums, alpha, total, staged):
    """Keys low[lane] <= key < high[lane] of one lattice; where all rows keep all keys no mask is needed."""
    start, stop, full_start, full_stop = np.int64(1 << 62), np.int64(0), np.int64(0), np.int64(1 << 62)
    for lane in range(rows):
        here, end = np.int64(element(low, lane)), np.int64(element(high, lane))
        if here < end:
            start, stop = min(start, here), max(stop, end)
        full_start, full_stop = max(full_start, here), min(full_stop, end)
    while start < stop:
        count = min(np.int64(128), stop - start)
        multiply_keys_16x128(advance(k, start * k_stride), k_stride, k_dim, count, queries, scores)
        if full_start <= start and start + count <= full_stop:
            soften_full_16x128(scores, count, maxima, sums, alpha)
        else:
            soften_inside_16x128(scores, count, maxima, sums, alpha, start, low, high)
        values, apart, unit = advance(v, start * v_stride), v_stride, v_dim
        if apart != 8:  # rows a power of two apart share a few cache sets, and are read many times
            stage_16x128(advance(v, start * v_stride), v_stride, v_dim, count, 8, staged)
            values, apart, unit = staged, 8, 1
        multiply_values_16x128(values, apart, unit, count, scores, alpha, total)
        start += count


@njit(nogil=True, error_model="numpy")
def pass_0(first, last, blocks, classes, q, k, v, out, lse, heads, kv_lengths, scale):
    """Row blocks whose keys follow from the row's number."""
    q_at = (q.strides[0] // 4, q.strides[1] // 4, q.strides[2] // 4, q.strides[3] // 4)
    k_at = (k.strides[0] // 4, k.strides[1] // 4, k.strides[2] // 4, k.strides[3] // 4)
    v_at = (v.strides[0] // 4, v.strides[1] // 4, v.strides[2] // 4, v.strides[3] // 4)
    out_at = (out.strides[0] // 4, out.strides[1] // 4, out.strides[2] // 4, out.strides[3] // 4)
    lse_at = (lse.strides[0] // 4, lse.strides[1] // 4, lse.strides[2] // 4)
    seq_q, seq_kv = q.shape[2], k.shape[2]
    delta = seq_kv - seq_q
    scratch = np.empty(3376, real)
    queries = address(scratch, 0)
    scores = address(scratch, 128)
    maxima = address(scratch, 2176)
    sums = address(scratch, 2192)
    alpha = address(scratch, 2208)
    total = address(scratch, 2224)
    staged = address(scratch, 2352)
    places, edges = np.empty(16, np.int64), np.empty(32, np.int32)
    rows, low, high = address(places, 0), address(edges, 0), address(edges, 16)
    row_lo, row_hi = 0, seq_q
    for item in range(first, last):
        block, group = item % blocks, item // blocks
        residue, slot = group % classes, group // classes
        batch, head = slot // heads.size, heads[slot % heads.size]
        kv_head = head // (q.shape[1] // k.shape[1])
        limit = min(kv_lengths[batch], seq_kv)
        q_head = address(q, batch * q_at[0] + head * q_at[1])
        k_head = address(k, batch * k_at[0] + kv_head * k_at[1])
        v_head = address(v, batch * v_at[0] + kv_head * v_at[1])
        out_head = address(out, batch * out_at[0] + head * out_at[1])
        lse_head = address(lse, batch * lse_at[0] + head * lse_at[1])
        row = row_lo + block * 16  # first row of the block
        count = min(16, row_hi - row)
        if count <= 0:
            continue
        for lane in range(16):
            places[lane] = row + lane if lane < count else -1
        rows_to_lanes_float32_16(q_head, q_at[2], q_at[3], rows, 8, scale, queries)
        reset_16x128(maxima, sums, total)
        # columns from 0 to row + delta + 1
        for lane in range(count):
            row = places[lane]
            edges[lane] = 0
            edges[16 + lane] = min(max(row + delta + 1, 0), limit)
        for lane in range(count, 16):
            edges[lane] = edges[16 + lane] = 0
        attend_interval_16x128(k_head, k_at[2], k_at[3], v_head, v_at[2], v_at[3], low, high, count, queries, scores, maxima, sums, alpha, total, staged)
        store_rows_16x128(out_head, out_at[2], out_at[3], lse_head, lse_at[2], rows, maxima, sums, alpha, total)
    return scratch.size + places.size + edges.size  # the pointers above are good until here
