"""One problem whose answer must be the same whoever holds its arrays."""

import numpy as np

import splat_numba as splat

MASKS = [
    splat.window(20, 0) | splat.sinks(4),  # in closed form
    splat.ACSR.from_pattern(splat.dilated(3, 5) | splat.blocked(16), 130, 130),  # by tables
]


def numbers(dtype, head_dim):
    """q, k, v and a gradient of out; two query heads share a key head."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, heads, 130, head_dim), np.float32).astype(dtype) for heads in (4, 2, 2, 4)]


def gradients_of(arrays, mask, **options):
    """Of q, k and v, as functions of no framework's own."""
    *given, dout = arrays
    return splat.attention_vjp(*given, mask, **options)[1](dout)
