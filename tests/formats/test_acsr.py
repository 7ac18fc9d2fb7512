"""The ACSR class against dense masks."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat_numba.errors import ArgumentError, ArgumentTypeError, FormatError, FormatTypeError, SplatError
from splat_numba.formats import acsr as acsr_module
from splat_numba.formats import patterns
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.runs import Runs, from_triples


@st.composite
def mask_pairs(draw):
    """Two masks of one shape, each painted from a few runs."""
    rows, cols = draw(st.integers(0, 6)), draw(st.integers(0, 24))
    masks = np.zeros((2, rows, cols), np.bool_)
    if rows and cols:
        place = st.tuples(st.integers(0, 1), st.integers(0, rows - 1), st.integers(0, cols - 1))
        for (which, row, start), step, count in draw(
            st.lists(st.tuples(place, st.integers(1, 5), st.integers(1, 9)), max_size=16)
        ):
            masks[which, row, start : start + step * count : step] = True
    return masks


masks = mask_pairs().map(lambda pair: pair[0])
SMALL = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]], np.bool_)


@given(masks)
def test_every_route_in_and_out_is_exact(mask):
    acsr = ACSR.from_dense(mask)
    assert np.array_equal(acsr.to_dense(), mask)
    indptr, indices = acsr.to_csr()
    assert indptr.dtype == indices.dtype == np.int32
    assert np.array_equal(indices, np.nonzero(mask)[1])
    assert acsr == ACSR.from_csr(indptr, indices, mask.shape) == ACSR.from_scipy(acsr.to_scipy())
    assert acsr.shape == mask.shape
    assert acsr.nnz == mask.sum()
    assert type(acsr.nnz) is int
    assert acsr.density == (mask.mean() if mask.size else 0.0)


@given(masks)
def test_is_regular_exactly_if_every_row_is_one_progression(mask):
    affine = all(len(set(np.diff(np.flatnonzero(row)).tolist())) <= 1 for row in mask)
    acsr = ACSR.from_dense(mask)
    assert acsr.is_regular == affine
    assert acsr.is_regular == bool((np.diff(acsr.run_ptr) <= 1).all())


@given(masks, st.slices(6))
def test_transpose_and_rows_are_those_of_the_mask(mask, which):
    acsr = ACSR.from_dense(mask)
    assert np.array_equal(acsr.transpose().to_dense(), mask.T)
    assert acsr.transpose().transpose() == acsr
    assert np.array_equal(acsr.rows(which).to_dense(), mask[which])


@given(mask_pairs())
def test_or_and_eq_are_those_of_the_masks(pair):
    a, b = ACSR.from_dense(pair[0]), ACSR.from_dense(pair[1])
    assert np.array_equal((a | b).to_dense(), pair[0] | pair[1])
    assert np.array_equal((a & b).to_dense(), pair[0] & pair[1])
    assert (a == b) == np.array_equal(pair[0], pair[1])
    assert (a != b) != (a == b)


@given(mask_pairs())
def test_equal_masks_built_by_different_routes_are_equal_and_hash_equal(pair):
    a, b = ACSR.from_dense(pair[0]), ACSR.from_dense(pair[1])
    joined, direct = a | b, ACSR.from_dense(pair[0] | pair[1])
    assert joined == direct
    assert hash(joined) == hash(direct)
    assert hash(joined) == hash(joined.transpose().transpose())
    again = ACSR(direct.runs)
    assert again.digest == direct.digest


def test_masks_cut_into_other_runs_are_equal_but_have_their_own_digest():
    cut = ACSR(Runs((1, 9), np.array([0, 2]), np.array([0, 4]), np.array([1, 1]), np.array([4, 3])))
    whole = ACSR(from_triples((1, 9), 0, 0, 1, 7))
    assert cut == whole
    assert hash(cut) == hash(whole)
    assert cut.digest != whole.digest


@given(mask_pairs())
def test_slot_is_the_place_in_packed_order_for_every_pair(pair):
    acsr = ACSR.from_dense(pair[0]) | ACSR.from_dense(pair[1])
    rows, cols = acsr.shape
    expected = np.full((rows + 2, cols + 2), -1)  # one row and column beyond each edge
    owner = np.repeat(np.arange(rows), np.diff(acsr.to_csr()[0]))
    expected[owner + 1, acsr.columns() + 1] = np.arange(acsr.nnz)
    slots = acsr.slot(np.arange(-1, rows + 1)[:, None], np.arange(-1, cols + 1))
    assert slots.dtype == np.int64
    assert np.array_equal(slots, expected)


@given(mask_pairs())
def test_packed_columns_and_values_follow_the_runs(pair):
    acsr = ACSR.from_dense(pair[0]) | ACSR.from_dense(pair[1])
    rows = [acsr.row_columns(i) for i in range(acsr.shape[0])]
    assert np.array_equal(np.concatenate([np.zeros(0, np.int64), *rows]), acsr.columns())
    packed = np.stack((acsr.columns(), -acsr.columns()))[:, None]
    ordered = acsr.values_to_csr(packed)
    indices = acsr.to_csr()[1]
    assert np.array_equal(ordered, np.stack((indices, -indices))[:, None])
    assert not np.shares_memory(ordered, packed)


def test_slot_in_rows_whose_runs_interleave():
    acsr = ACSR(from_triples((1, 40), 0, [0, 1, 2, 30], [9, 5, 1, 1], [4, 4, 3, 2]))
    assert acsr.columns().tolist() == [0, 9, 18, 27, 1, 6, 11, 16, 2, 3, 4, 30, 31]
    assert acsr.slot(0, acsr.columns()).tolist() == list(range(13))
    assert acsr.slot(0, [5, 26, 28, 36]).tolist() == [-1] * 4


def test_slot_of_scalars_is_an_int():
    acsr = ACSR.from_dense(SMALL)
    assert acsr.slot(2, 3) == 4
    assert type(acsr.slot(np.int32(0), 2)) is int
    assert acsr.slot([], []).shape == (0,)


def test_arrays_are_int32_read_only_and_nothing_can_be_set():
    acsr = ACSR.from_dense(SMALL)
    arrays = (acsr.run_ptr, acsr.run_start, acsr.run_step, acsr.run_count)
    assert [array.tolist() for array in arrays] == [[0, 2, 2, 3], [0, 3, 1], [1, 1, 2], [2, 1, 2]]
    assert acsr.nbytes == sum(array.nbytes for array in arrays) == 4 * (4 + 9)
    for array in arrays:
        assert array.dtype == np.int32
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    for name in ("shape", "run_ptr", "other"):
        with pytest.raises(AttributeError, match=f"{name} of an ACSR cannot be set"):
            setattr(acsr, name, None)
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del acsr.shape


def test_sizes_beyond_int32_take_int64_and_stay_exact():
    acsr = ACSR(from_triples((2, 2**40), [0, 1], [2**39, 5], [1, 2**35], [2**38, 3]))
    assert acsr.run_start.dtype == np.int64
    assert acsr.nnz == 2**38 + 3
    assert acsr.slot(0, 2**39 + 7) == 7
    assert acsr.slot(1, [5 + 2**36, 6]).tolist() == [2**38 + 2, -1]
    assert acsr.row_columns(1).tolist() == [5, 5 + 2**35, 5 + 2**36]
    assert not acsr.runs.start.flags.writeable


def test_copies_and_pickles_are_equal_and_read_only():
    acsr = ACSR.from_dense(SMALL)
    assert acsr.slot(0, 0) == 0  # fills a cache, which must not travel
    for twin in (copy.copy(acsr), copy.deepcopy(acsr), pickle.loads(pickle.dumps(acsr))):  # noqa: S301  # our own bytes
        assert twin == acsr
        assert twin.digest == acsr.digest
        assert not twin.run_start.flags.writeable


def test_repr_is_one_short_line():
    assert repr(ACSR.from_dense(SMALL)) == "<ACSR 3 x 4, nnz 5, density 0.417, 3 runs>"
    assert repr(ACSR.from_dense(SMALL[1:])) == "<ACSR 2 x 4, nnz 2, density 0.25, regular>"


def test_patterns_convert_and_combine_from_either_side():
    window, causal = patterns.window(1), patterns.causal()
    i, j = np.arange(5)[:, None], np.arange(7)
    near, past = abs(i - j) <= 1, j <= i
    acsr = ACSR.from_pattern(window, 5, 7)
    assert np.array_equal(acsr.to_dense(), near)
    for joined in (acsr | causal, causal | acsr):
        assert np.array_equal(joined.to_dense(), near | past)
    for common in (acsr & causal, causal & acsr):
        assert np.array_equal(common.to_dense(), near & past)


def message(kind, call, *args):
    with pytest.raises(SplatError) as info:
        call(*args)
    assert type(info.value) is kind
    return str(info.value)


def test_refusals_say_what_is_wanted_and_the_next_step():
    acsr = ACSR.from_dense(SMALL)
    assert message(FormatError, acsr.__or__, acsr.transpose()) == (
        "mask of shape (4, 3) does not combine with one of shape (3, 4); both must keep the same queries and keys: "
        "rebuild one for the other's lengths."
    )
    assert message(FormatTypeError, ACSR, SMALL) == (
        "runs must be a run table, got ndarray; use ACSR.from_dense, from_csr, from_scipy or from_pattern."
    )
    assert message(FormatTypeError, ACSR.from_pattern, SMALL, 3, 4) == (
        "pattern must be a Pattern such as splat_numba.window(512), got ndarray; pass dense masks to from_dense."
    )
    assert message(FormatTypeError, acsr.rows, 1) == (
        "which must be a slice of rows, got 1; write slice(i, i + 1) for row i."
    )
    assert message(ArgumentError, acsr.row_columns, 3) == "i must be a row in [0, 3), got 3; count rows from 0."
    assert message(ArgumentError, acsr.row_columns, -1) == "i must be a row in [0, 3), got -1; count rows from 0."
    assert message(ArgumentTypeError, acsr.row_columns, True) == (
        "i must be one integer, got True; use columns() for all rows."
    )
    assert message(ArgumentTypeError, acsr.slot, 0, 1.0) == (
        "j must be integers, got dtype float64; round and cast it first."
    )
    assert message(ArgumentError, acsr.slot, [0, 1], [0, 1, 2]) == (
        "i and j must broadcast, got shapes (2,) and (3,); add axes, as in i[:, None]."
    )
    assert message(ArgumentError, acsr.values_to_csr, np.zeros((2, 4))) == (
        "values must have shape (..., nnz) with nnz = 5, got (2, 4); pass what sddmm gave for this mask."
    )


@pytest.mark.parametrize("other", [3, None, "causal()", np.ones((2, 2), bool)], ids=str)
def test_other_operands_are_refused(other):
    mask = ACSR.from_dense(np.ones((2, 2), bool))
    for combine in (lambda: mask | other, lambda: mask & other, lambda: other | mask, lambda: other & mask):
        with pytest.raises(FormatTypeError, match=r"^mask must be combined with an ACSR or a Pattern, got "):
            combine()


def test_large_nnz_gives_int64_csr(monkeypatch):
    monkeypatch.setattr(acsr_module, "_INT32_PAIRS", 4)
    assert ACSR.from_dense(SMALL).to_csr()[1].dtype == np.int64


@pytest.mark.parametrize(("cols", "dtype"), [(2**30, np.int32), (2**30 + 1, np.int64)])
def test_runs_are_int32_where_their_ends_are(cols, dtype):
    """start + step * count, below 2 * cols, must not wrap around either."""
    mask = ACSR.from_pattern(patterns.columns(cols - 1, 0), 1, cols)
    assert {mask.run_start.dtype, mask.run_step.dtype, mask.run_count.dtype} == {np.dtype(dtype)}
    indptr, indices = mask.to_csr()
    assert (indptr.tolist(), indices.tolist()) == ([0, 2], [0, cols - 1])


@pytest.mark.parametrize(("cols", "dtype"), [(2**31 - 1, np.int32), (2**31, np.int64)])
def test_csr_is_int32_where_columns_fit(cols, dtype):
    indptr, indices = ACSR.from_pattern(patterns.columns(cols - 1, 0), 1, cols).to_csr()
    assert (indptr.dtype, indices.dtype) == (dtype, dtype)
    assert indices.tolist() == [0, cols - 1]
