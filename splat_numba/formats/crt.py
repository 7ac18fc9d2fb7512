"""Where two runs meet: the Chinese remainder theorem on arrays of arithmetic progressions."""

import numpy as np

from splat_numba.formats.sweep import Ints

Progressions = tuple[Ints, Ints, Ints]
"""(start, step, count), three int64 arrays of one length; steps >= 1 and below 2**31, counts >= 1."""


def meet(a: Progressions, b: Progressions) -> Progressions:
    """Common elements of a[k] and b[k] for every k, again (start, step, count); count 0 where there is none."""
    (a_start, a_step, a_count), (b_start, b_step, b_count) = a, b
    shared = np.gcd(a_step, b_step)
    a_part, b_part = a_step // shared, b_step // shared
    step = a_part * b_step
    gap = b_start - a_start
    # a_start + a_step * t lies on b's lattice: a_part * t = gap / shared modulo b_part.
    t = (gap // shared) % b_part * inverse(a_part % b_part, b_part) % b_part
    on_both = a_start + a_step * t
    low = np.maximum(a_start, b_start)
    start = on_both - (on_both - low) // step * step  # the first common element >= low
    high = np.minimum(a_start + a_step * (a_count - 1), b_start + b_step * (b_count - 1))
    count = np.where((gap % shared == 0) & (high >= start), (high - start) // step + 1, 0)
    return start, step, count


def inverse(value: Ints, modulus: Ints) -> Ints:
    """x with value * x = 1 modulo `modulus`, 0 <= x < modulus, by Euclid's algorithm; (value, modulus) coprime."""
    r_old, r = modulus.copy(), value.copy()
    x_old, x = np.zeros_like(value), np.ones_like(value)
    while (active := np.flatnonzero(r)).size:
        quotient = r_old[active] // r[active]
        r_old[active], r[active] = r[active], r_old[active] - quotient * r[active]
        x_old[active], x[active] = x[active], x_old[active] - quotient * x[active]
    result: Ints = x_old % modulus
    return result
