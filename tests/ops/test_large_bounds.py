"""Bounds far outside the sequence: found as a segmentation fault, when int32 tile edges wrapped around."""

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.executors.cpu import operands


@pytest.mark.parametrize(
    "mask",
    [splat.window(2**33, 0) | splat.strided(3), splat.global_tokens(2**33) & splat.window(3) | splat.strided(2)],
    ids=repr,
)
def test_bounds_beyond_int32_keep_what_the_pattern_keeps(mask, rng):
    q, k, v = (rng.standard_normal((50, 16)).astype(np.float32) for _ in range(3))
    dense = splat.ACSR.from_pattern(mask, 50, 50)
    np.testing.assert_allclose(splat.attention(q, k, v, mask), splat.reference.attention(q, k, v, dense), atol=1e-5)


@pytest.mark.parametrize(("name", "lengths"), [("q", (2**31, 1)), ("k", (1, 2**31))])
def test_the_longest_sequence_is_that_of_int32(name, lengths):
    with pytest.raises(splat.ArgumentError, match=rf"^{name} wanted with at most 2147483647 tokens, got 2147483648"):
        operands.check_sizes(*lengths, 1, 1)
    operands.check_sizes(*(min(one, 2**31 - 1) for one in lengths), 1, 1)
    with pytest.raises(splat.ArgumentError, match=r"^seq_(q|kv) wanted <= 2147483647, got 2147483648"):
        splat.plan(splat.causal(), seq_q=lengths[0], seq_kv=lengths[1], head_dim=8, dtype="float32")
