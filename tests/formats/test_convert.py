"""Dense, CSR and SciPy masks to runs and back: exact round trips, and refusals word by word."""

import sys

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from splat_numba.errors import FormatError, FormatTypeError
from splat_numba.formats import convert
from splat_numba.formats.runs import Runs, equal, from_columns, from_triples, to_csr

sides = array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20)
noise = arrays(np.bool_, sides)


@st.composite
def lattices(draw):
    """Masks whose rows hold a run each, some of them crossed by a second mask."""
    rows, cols = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    mask = np.zeros((rows, cols), np.bool_)
    run = st.tuples(st.integers(0, rows - 1), st.integers(0, cols - 1), st.integers(1, 6), st.integers(1, 12))
    for row, start, step, count in draw(st.lists(run, max_size=16)):
        mask[row, start : start + step * count : step] = True
    return mask


masks = noise | lattices()


@given(masks)
def test_dense_round_trip_is_the_identity(mask):
    runs = convert.from_dense(mask)
    assert np.array_equal(convert.to_dense(runs), mask)
    assert runs.nnz == mask.sum()


@given(masks)
def test_dense_csr_and_scipy_give_the_same_runs(mask):
    runs = convert.from_dense(mask)
    sparse = scipy.sparse.csr_array(mask)
    others = [
        convert.from_csr(sparse.indptr, sparse.indices, mask.shape),
        convert.from_csr(sparse.indptr.tolist(), sparse.indices.tolist(), mask.shape),
        from_columns(mask.shape, sparse.indptr, sparse.indices),
    ]
    others += [
        convert.from_scipy(kind(mask.astype(np.float32))) for kind in (scipy.sparse.coo_array, scipy.sparse.csc_matrix)
    ]
    for other in others:
        for name in ("row_ptr", "start", "step", "count"):
            assert np.array_equal(getattr(other, name), getattr(runs, name)), name


@given(masks)
def test_csr_and_scipy_round_trips_are_the_identity(mask):
    runs = convert.from_dense(mask)
    assert equal(convert.from_csr(*to_csr(runs), mask.shape), runs)
    back = convert.to_scipy(runs)
    assert back.has_sorted_indices
    assert np.array_equal(back.toarray(), mask)


@given(masks)
def test_results_do_not_depend_on_the_chunk_size(mask):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "_DENSE_BUDGET", 25)
        runs = convert.from_dense(mask)
        assert np.array_equal(convert.to_dense(runs), mask)
        assert equal(runs, convert.from_dense(mask))


@given(lattices())
def test_views_of_masks_convert_as_their_copies(mask):
    for view in (mask.T, mask[::-1, ::2], np.broadcast_to(mask[:1], (4, mask.shape[1]))):
        assert np.array_equal(convert.to_dense(convert.from_dense(view)), view)


def test_touching_runs_that_were_not_merged_are_written_out_too():
    """Hand-made tables need not be canonical: an interval may start where another one ends."""
    runs = Runs((1, 6), np.array([0, 2]), np.array([0, 2]), np.array([1, 1]), np.array([2, 3]))
    assert convert.to_dense(runs).tolist() == [[True] * 5 + [False]]


def test_scipy_matrices_keep_what_is_not_zero_and_stay_unchanged():
    matrix = scipy.sparse.coo_array(([1, 2, -2, 0], ([0, 1, 1, 0], [2, 1, 1, 0])), shape=(2, 3))
    assert convert.to_dense(convert.from_scipy(matrix)).tolist() == [[False, False, True], [False] * 3]
    assert matrix.nnz == 4
    unsorted = scipy.sparse.csr_array((np.ones(2, np.bool_), np.array([2, 0]), np.array([0, 2])), shape=(1, 3))
    assert convert.to_dense(convert.from_scipy(unsorted)).tolist() == [[True, False, True]]
    assert unsorted.indices.tolist() == [2, 0]


def message(kind, call, *args):
    with pytest.raises(FormatError) as info:
        call(*args)
    assert type(info.value) is kind
    return str(info.value)


def test_dense_masks_must_be_two_dimensional_and_bool():
    expected = (
        "mask must be a 2-D bool array (True = attend), got dtype float32; a mask of numbers does not say what NaN, "
        "inf and negative entries mean: pass `mask.astype(bool)` for 0/1 masks, or `mask > 0`."
    )
    for value in (0, 1, np.nan, np.inf):
        mask = np.full((2, 2), value, np.float32)
        assert message(FormatTypeError, convert.from_dense, mask) == expected
    for low in (-np.inf, -1e9, np.finfo(np.float32).min):
        assert message(FormatTypeError, convert.from_dense, np.where(np.tri(2), 0, low).astype(np.float32)) == (
            "mask must be a 2-D bool array (True = attend), got dtype float32; of an additive mask, 0 for the pairs "
            "that are kept, pass `mask == 0`."
        )
    assert "got dtype int64" in message(FormatTypeError, convert.from_dense, [[0, 1]])
    assert "got dtype object" in message(FormatTypeError, convert.from_dense, [[None, True]])
    assert message(FormatError, convert.from_dense, np.zeros((1, 2, 2), np.bool_)) == (
        "mask must be a 2-D bool array, got shape (1, 2, 2); pass one mask of shape (seq_q, seq_kv) a head."
    )


def test_csr_refusals_name_the_first_bad_row():
    def refused(indptr, indices, shape=(3, 5), kind=FormatError):
        return message(kind, convert.from_csr, np.array(indptr), np.array(indices), shape)

    assert refused([0, 1, 3, 4], [0, 4, 2, 1]) == (
        "row 1: columns must ascend strictly, got 4 then 2; sort each row and drop repeats (SciPy: "
        "`m.sum_duplicates()`)."
    )
    assert refused([0, 0, 3, 3], [0, 1, 1]).startswith("row 1: columns must ascend strictly, got 1 then 1;")
    assert refused([0, 1, 2, 3], [0, 5, 7]) == "row 1: column 5 is not in [0, 5); correct indices or the shape."
    assert refused([0, 0, 0, 1], [-1]).startswith("row 2: column -1 is not in [0, 5);")
    assert refused([0, 2, 1, 3], [0, 1, 2]) == (
        "row 1: indptr must not decrease, got 2 then 1; build it as the running sum of the row counts."
    )
    assert refused([0, 1], [0]) == (
        "indptr must have rows + 1 = 4 entries for shape (3, 5), got 2; check the order (indptr, indices, shape)."
    )
    assert refused([1, 1, 1, 1], [0]) == (
        "indptr must go from 0 to len(indices) = 1, got 1 to 1; pass the arrays of the whole matrix, not of a slice."
    )
    assert refused([0.0, 1, 1, 1], [0], kind=FormatTypeError) == (
        "indptr must be a 1-D array of integers, got dtype float64 and shape (4,); pass `indptr.astype(numpy.int64)`."
    )
    assert refused([0, 1, 1, 1], [True], kind=FormatTypeError).startswith("indices must be a 1-D array of integers")
    assert refused([0, 1, 1, 1], [[0]], kind=FormatTypeError).startswith("indices must be a 1-D array of integers")
    for shape in (3, (3,), (3.0, 5), (True, 5), "35"):
        assert refused([0, 1, 1, 1], [0], shape, FormatTypeError).startswith("shape must be two integers, got ")
    assert refused([0], [], (-1, 5)).startswith("shape must not be negative")


def test_unsigned_csr_arrays_are_read_as_numbers():
    runs = convert.from_csr(np.array([0, 2, 3], np.uint32), np.array([1, 3, 0], np.uint8), (2, 4))
    assert convert.to_dense(runs).tolist() == [[False, True, False, True], [True, False, False, False]]


def test_only_finite_sparse_matrices_are_masks():
    assert message(FormatTypeError, convert.from_scipy, np.eye(2)) == (
        "matrix must be a 2-D SciPy sparse matrix, got ndarray; pass dense masks to from_dense."
    )
    assert message(FormatTypeError, convert.from_scipy, scipy.sparse.csr_array(np.array([[np.nan]]))) == (
        "matrix must hold finite values, got NaN or inf; pass a bool matrix of the kept pairs."
    )


def test_without_scipy_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert message(FormatError, convert.to_scipy, from_triples((1, 1), [], [], [], [])) == (
        "to_scipy needs SciPy, which is not installed; run `pip install scipy`."
    )
