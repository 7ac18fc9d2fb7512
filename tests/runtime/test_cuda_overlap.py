"""Overlap by addresses gives what NumPy gives for arrays that are there."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from splat_numba.runtime.cuda.overlap import share_elements

MEMORY = np.zeros(4000, np.uint16)
AXES = st.lists(st.tuples(st.integers(0, 4), st.integers(-40, 40)), min_size=1, max_size=4)


def strided(start, axes):
    shape, strides = zip(*axes, strict=True)
    return as_strided(MEMORY[2000 + start :], shape, tuple(2 * step for step in strides))


def place(array):
    return array.__array_interface__["data"][0], array.shape, array.strides


@given(AXES, AXES, st.integers(-300, 300))
def test_it_agrees_with_numpy(first, second, apart):
    a, b = strided(0, first), strided(apart, second)
    assert share_elements(*place(a), *place(b)) == np.shares_memory(a, b)


def test_interleaved_heads_of_one_large_buffer_are_apart():
    shape, strides = (64, 32, 100_000, 128), (2**36, 768, 32 * 768, 2)
    assert not share_elements(1 << 40, shape, strides, (1 << 40) + 256, shape, strides)
    assert share_elements(1 << 40, shape, strides, (1 << 40) + 254, shape, strides)
