"""Transposition against the dense transpose, and its cost against the number of runs."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat_numba.formats.convert import from_dense, to_dense
from splat_numba.formats.runs import equal, from_triples
from splat_numba.formats.transpose import transpose


@st.composite
def masks(draw):
    """Masks painted from runs along rows, along columns and along diagonals."""
    rows, cols = draw(st.integers(0, 16)), draw(st.integers(0, 16))
    mask = np.zeros((rows, cols), np.bool_)
    place, move = st.integers(0, 15), st.integers(0, 4)
    for i, j, down, right, count in draw(st.lists(st.tuples(place, place, move, move, st.integers(1, 12)), max_size=8)):
        steps = np.arange(count)
        painted = (i + down * steps < rows) & (j + right * steps < cols)
        mask[(i + down * steps)[painted], (j + right * steps)[painted]] = True
    return mask


@given(masks())
def test_transpose_is_that_of_the_dense_mask_and_its_own_inverse(mask):
    runs = from_dense(mask)
    turned = transpose(runs)
    assert turned.shape == (mask.shape[1], mask.shape[0])
    assert np.array_equal(to_dense(turned), mask.T)
    assert equal(transpose(turned), runs)


@given(masks())
def test_affine_columns_become_one_run(mask):
    turned = transpose(from_dense(mask))
    for column, runs in zip(mask.T, turned.runs_per_row, strict=True):
        kept = np.flatnonzero(column)
        affine = len(set(np.diff(kept).tolist())) <= 1
        assert runs == min(kept.size, 1) if affine else runs > 1


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 6), st.integers(0, 6))
def test_strided_and_dilated_masks_are_as_regular_turned_as_straight(rows, cols, step, reach):
    i, j = np.arange(rows)[:, None], np.arange(cols)
    for mask in ((i - j) % step == 0, ((i - j) % step == 0) & (abs(i - j) <= reach * step), (j % step == 0) & (i >= 0)):
        turned = transpose(from_dense(mask))
        assert (turned.runs_per_row <= 1).all()
        assert np.array_equal(to_dense(turned), mask.T)


N = 1 << 16
ROW = np.arange(N)


@pytest.mark.parametrize(
    ("start", "step", "count", "runs"),
    [
        pytest.param(0, 1, ROW + 1, N, id="causal"),
        pytest.param(np.maximum(ROW - N // 2, 0), 1, np.minimum(ROW, N // 2) + 1, N, id="window"),
        pytest.param(ROW % 64, 64, (N - 1 - ROW % 64) // 64 + 1, N, id="strided"),
        pytest.param(63, 64, N // 64, N // 64, id="columns"),
    ],
)
def test_memory_follows_the_runs_and_not_the_pairs(start, step, count, runs):
    """65536 rows of up to 65536 columns: their pairs would need gigabytes."""
    table = from_triples((N, N), ROW, start, step, count)
    tracemalloc.start()
    turned = transpose(table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert turned.nnz == table.nnz
    assert turned.start.size == runs
    assert peak < 500 * N  # bytes; measured about 300 a row
    assert equal(transpose(turned), table)


def test_rows_with_gaps_between_them_become_runs_with_a_step():
    turned = transpose(from_triples((9, 3), [1, 4, 7], 0, 1, 3))
    assert (turned.start.tolist(), turned.step.tolist(), turned.count.tolist()) == ([1] * 3, [3] * 3, [3] * 3)


def test_rows_of_one_lattice_that_form_two_progressions():
    """The tracks 0, 4, ..., 20 and 9, 10 of one lattice interleave."""
    mask = np.zeros((24, 5), np.bool_)
    mask[[0, 4, 8, 12, 16, 20, 9, 10], 1:4] = True
    assert np.array_equal(to_dense(transpose(from_dense(mask))), mask.T)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (2, 3)])
def test_empty_masks(shape):
    turned = transpose(from_triples(shape, [], [], [], []))
    assert turned.shape == shape[::-1]
    assert turned.nnz == 0
