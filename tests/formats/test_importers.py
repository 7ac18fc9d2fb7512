"""Other libraries' mask parameters mean what they mean there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.formats.closed_form import closed_form
from splat_numba.formats.importers import from_flash_attention, from_sliding_window
from splat_numba.formats.patterns import causal, full, window
from tests.formats.dense_oracle import dense
from tests.formats.pattern_cases import lengths

side = st.integers(-1, 6)


@given(side, side, st.booleans(), lengths, lengths)
def test_flash_attention_windows_are_aligned_at_the_end(left, right, is_causal, seq_q, seq_kv):
    i, j = np.ogrid[:seq_q, :seq_kv]
    position = i + seq_kv - seq_q
    right_side = 0 if is_causal else right
    wanted = np.ones((seq_q, seq_kv), bool)
    if left >= 0:
        wanted &= j >= position - left
    if right_side >= 0:
        wanted &= j <= position + right_side
    pattern = from_flash_attention((left, right), is_causal)
    np.testing.assert_array_equal(dense(pattern, seq_q, seq_kv), wanted)
    assert len(closed_form(pattern)) == 1


@given(st.integers(1, 8), lengths, lengths)
def test_sliding_windows_count_the_query_itself(n, seq_q, seq_kv):
    i, j = np.ogrid[:seq_q, :seq_kv]
    past = dense(from_sliding_window(n), seq_q, seq_kv)
    np.testing.assert_array_equal(past, (i - n < j) & (j <= i))
    np.testing.assert_array_equal(dense(from_sliding_window(n, causal=False), seq_q, seq_kv), np.abs(i - j) < n)


def test_descriptions():
    assert from_flash_attention((-1, -1)) == full().align_end()
    assert from_flash_attention((-1, -1), causal=True) == causal().align_end()
    assert from_flash_attention((4, 2)) == window(4, 2).align_end()
    assert from_flash_attention((4, -1), True) == window(4, 0).align_end()
    assert from_sliding_window(4) == window(3, 0)
    assert from_sliding_window(4, causal=False) == window(3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: from_flash_attention((-2, 0)), PatternError, "window_size[0]: wanted an integer >= -1, got -2."),
        (lambda: from_flash_attention(4), PatternTypeError, "window_size: wanted a pair (left, right), -1 for"),
        (lambda: from_flash_attention((1, 2, 3)), PatternTypeError, "window_size: wanted a pair (left, right), -1 for"),
        (lambda: from_flash_attention((1, 2), 1), PatternTypeError, "causal: wanted True or False, got 1 of type int."),
        (lambda: from_sliding_window(0), PatternError, "n: wanted an integer >= 1, got 0."),
        (lambda: from_sliding_window(4, None), PatternTypeError, "causal: wanted True or False, got None"),
    ],
)
def test_anything_else_is_refused(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(message)
