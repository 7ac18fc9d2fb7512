"""Shares of cells, counted from runs, against the dense mask."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba.formats import raster
from splat_numba.formats.raster import cell_shares, part_picture
from splat_numba.testing import patterns
from tests.formats.pattern_cases import lengths


@st.composite
def parts(draw, length):
    """A half-open range of so many tokens."""
    first = draw(st.integers(0, length))
    return first, draw(st.integers(first, length))


def means(mask, rows, cols, dots):
    """The obvious way."""
    row_edges, col_edges = (
        [first + t * (end - first) // max(min(dots, end - first), 1) for t in range(min(dots, end - first) + 1)]
        for first, end in (rows, cols)
    )
    cells = [[mask[a:b, c:d].mean() for c, d in pairwise(col_edges)] for a, b in pairwise(row_edges)]
    return np.array(cells).reshape(len(row_edges) - 1, len(col_edges) - 1)


@settings(max_examples=80)
@given(st.data(), lengths, lengths, st.integers(1, 20))
def test_a_cell_of_any_part_holds_the_share_of_its_pairs(data, seq_q, seq_kv, dots):
    mask = splat.ACSR.from_pattern(data.draw(patterns(seq_q, seq_kv)), seq_q, seq_kv)
    rows, cols = data.draw(parts(seq_q)), data.draw(parts(seq_kv))
    found = part_picture(mask, rows, cols, dots).kept
    np.testing.assert_allclose(found, means(mask.to_dense(), rows, cols, dots), atol=1e-15)


@given(st.integers(0, 2**16), st.integers(1, 12), st.integers(1, 60), st.integers(1, 9))
def test_masks_of_many_steps_are_counted_in_chunks(seed, rows, cols, dots):
    rng = np.random.default_rng(seed)
    row = np.repeat(np.arange(rows), 1)
    start, step = rng.integers(0, cols, rows), rng.integers(1, 9, rows)
    count = rng.integers(0, -(-(cols - start) // step) + 1)
    mask = np.zeros((rows, cols), bool)
    for r in range(rows):
        mask[r, start[r] : start[r] + step[r] * count[r] : step[r]] = True
    for budget, steps in ((1 << 22, 32), (7, 0)):
        with_steps, raster.MOST_STEPS = raster.MOST_STEPS, steps
        with_budget, raster.ELEMENT_BUDGET = raster.ELEMENT_BUDGET, budget
        try:
            found = cell_shares((row, start, step, count), (0, rows), (0, cols), dots)
        finally:
            raster.MOST_STEPS, raster.ELEMENT_BUDGET = with_steps, with_budget
        np.testing.assert_allclose(found, means(mask, (0, rows), (0, cols), dots), atol=1e-15)
