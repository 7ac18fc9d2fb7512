"""Run tables against dense masks: every result is compared pair by pair, nothing has a tolerance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat_numba.errors import FormatError
from splat_numba.formats import crt, run_algebra, run_table, sweep
from splat_numba.formats.runs import (
    Runs,
    columns,
    csr_order,
    equal,
    from_columns,
    from_triples,
    intersect,
    rows_of,
    take_rows,
    to_csr,
    union,
)


@st.composite
def mask_pairs(draw, steps=5):
    """Two masks of one shape, each painted from a few runs: lattices, intervals, single columns, empty rows."""
    rows, cols = draw(st.integers(0, 6)), draw(st.integers(0, 30))
    masks = np.zeros((2, rows, cols), np.bool_)
    if rows and cols:
        run = st.tuples(
            st.integers(0, 1),
            st.integers(0, rows - 1),
            st.integers(0, cols - 1),
            st.integers(1, steps),
            st.integers(1, 12),
        )
        for which, row, start, step, count in draw(st.lists(run, max_size=16)):
            masks[which, row, start : start + step * count : step] = True
    return masks


def table(mask):
    return from_columns(mask.shape, np.append(0, np.cumsum(mask.sum(axis=1))), np.nonzero(mask)[1])


def dense(runs):
    mask = np.zeros(runs.shape, np.bool_)
    mask[np.repeat(np.arange(runs.shape[0]), runs.row_nnz), columns(runs)] = True
    assert mask.sum() == runs.nnz  # the runs of a row are disjoint
    return mask


def row_runs(*kept):
    """The runs of one row as (start, step, count)."""
    runs = from_columns((1, 200), np.array([0, len(kept)]), np.array(kept, dtype=np.int64))
    return triples(runs)


def triples(runs):
    return [tuple(map(int, run)) for run in zip(runs.start, runs.step, runs.count, strict=True)]


def assert_canonical(runs):
    rows = rows_of(runs)
    assert runs.row_ptr[0] == 0
    assert runs.row_ptr[-1] == runs.start.size
    assert (runs.count >= 1).all()
    assert (runs.step[runs.count == 1] == 1).all()
    same = rows[1:] == rows[:-1]
    assert (runs.start[1:] > runs.start[:-1])[same].all()
    continues = (runs.step[1:] == runs.step[:-1]) & (runs.start[1:] == runs.last[:-1] + runs.step[:-1])
    assert not (same & continues).any()
    for row in dense(runs)[runs.runs_per_row > 1]:
        assert len(set(np.diff(np.flatnonzero(row)).tolist())) > 1, "an affine row is one run"
    for array in (runs.row_ptr, runs.start, runs.step, runs.count):
        assert array.dtype == np.int64
        assert not array.flags.writeable


@given(mask_pairs())
def test_columns_to_runs_and_back_is_the_identity(masks):
    runs = table(masks[0])
    assert_canonical(runs)
    assert np.array_equal(dense(runs), masks[0])
    indptr, indices = to_csr(runs)
    assert np.array_equal(indices, np.nonzero(masks[0])[1])
    assert np.array_equal(np.diff(indptr), masks[0].sum(axis=1))


@given(mask_pairs(), st.randoms(use_true_random=False))
def test_runs_cut_and_shuffled_at_will_are_put_together_again(masks, random):
    whole = table(masks[0])
    pieces = []
    for row, start, step, count in zip(rows_of(whole), whole.start, whole.step, whole.count, strict=True):
        cut = random.randint(0, int(count))
        pieces += [(row, start, step, cut), (row, start + step * cut, step, count - cut)]
    random.shuffle(pieces)
    row, start, step, count = np.array(pieces, dtype=np.int64).reshape(-1, 4).T
    again = from_triples(whole.shape, row, start, step, count)
    assert_canonical(again)
    assert np.array_equal(dense(again), masks[0])
    assert equal(again, whole)


@given(mask_pairs())
def test_union_and_intersection_are_those_of_the_masks(masks):
    a, b = table(masks[0]), table(masks[1])
    for result, expected in ((union(a, b), masks[0] | masks[1]), (intersect(a, b), masks[0] & masks[1])):
        assert_canonical(result)
        assert np.array_equal(dense(result), expected)
    assert equal(a, b) == np.array_equal(masks[0], masks[1])


@given(mask_pairs())
def test_laws_of_the_algebra_hold_up_to_the_cutting_of_runs(masks):
    a, b = table(masks[0]), table(masks[1])
    assert equal(union(a, b), union(b, a))
    assert equal(intersect(a, b), intersect(b, a))
    assert equal(union(a, intersect(a, b)), a)
    assert equal(intersect(a, union(a, b)), a)
    assert equal(union(a, a), a)


@given(mask_pairs())
def test_results_do_not_depend_on_the_chunk_size(masks):
    with pytest.MonkeyPatch.context() as patch:
        small = lambda weight, budget=0: sweep.chunks(weight, 3)  # noqa: ARG005, E731
        patch.setattr(run_table, "chunks", small)
        patch.setattr(run_algebra, "chunks", small)
        a, b = table(masks[0]), table(masks[1])
        assert np.array_equal(dense(union(a, b)), masks[0] | masks[1])
        assert np.array_equal(dense(intersect(a, b)), masks[0] & masks[1])
        assert np.array_equal(to_csr(a)[1], np.nonzero(masks[0])[1])


@given(mask_pairs())
def test_expanding_gives_the_same_as_pairing(masks):
    """Columns beyond 31 bits take the expanding way for every row with a lattice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_algebra, "PAIR_COLUMNS", 1)
        a, b = table(masks[0]), table(masks[1])
        assert np.array_equal(dense(union(a, b)), masks[0] | masks[1])
        assert np.array_equal(dense(intersect(a, b)), masks[0] & masks[1])


@given(mask_pairs(), st.lists(st.integers(0, 5), max_size=8))
def test_rows_are_taken_in_any_order_and_number(masks, picked):
    picked = np.array([i for i in picked if i < masks.shape[1]], dtype=np.int64)
    assert np.array_equal(dense(take_rows(table(masks[0]), picked)), masks[0][picked])


@given(mask_pairs())
def test_csr_order_sorts_every_row_and_is_none_where_nothing_moves(masks):
    runs = union(table(masks[0]), table(masks[1]))
    order, packed = csr_order(runs), columns(runs)
    expected = np.nonzero(dense(runs))[1]
    assert np.array_equal(packed if order is None else packed[order], expected)
    assert (order is None) == np.array_equal(packed, expected)


progressions = st.tuples(st.integers(0, 60), st.integers(1, 24), st.integers(1, 20))


@given(st.lists(st.tuples(progressions, progressions), min_size=1, max_size=5))
def test_two_progressions_meet_in_a_progression(pairs):
    a, b = (tuple(np.array(part, dtype=np.int64).T) for part in zip(*pairs, strict=True))
    for (one, two), start, step, count in zip(pairs, *crt.meet(a, b), strict=True):
        sets = [set(range(s, s + p * n, p)) for s, p, n in (one, two)]
        assert set(range(start, start + step * count, step)) == sets[0] & sets[1]


def test_progressions_with_steps_of_31_bits_meet_exactly():
    p, q = 2**31 - 1, 2**31 - 19  # both prime
    start, step, count = crt.meet(
        (np.array([5]), np.array([p]), np.array([3])), (np.array([5 + p - q]), np.array([q]), np.array([2]))
    )
    assert (start[0], step[0], count[0]) == (5 + p, p * q, 1)


def test_a_row_that_is_one_progression_is_one_run_however_it_came():
    runs = from_triples((1, 17), [0, 0], [0, 4], [8, 8], [3, 2])
    assert triples(runs) == [(0, 4, 5)]
    assert triples(from_triples((1, 99), 0, [7, 90], 1, 1)) == [(7, 83, 2)]
    assert triples(from_triples((1, 99), 0, [3, 4, 9], 1, [1, 5, 2])) == [(3, 1, 8)]


def test_stretches_become_runs_and_a_shared_column_goes_to_the_finer_one():
    assert row_runs(0, 5, 10, 15, 16, 17, 18) == [(0, 5, 3), (15, 1, 4)]
    assert row_runs(0, 1, 2, 7, 12, 17) == [(0, 1, 3), (7, 5, 3)]
    assert row_runs(0, 2, 4, 7, 10, 13) == [(0, 2, 3), (7, 3, 3)]


def test_leftover_columns_are_single_runs_of_step_one():
    assert row_runs(0, 7, 100, 101, 102) == [(0, 1, 1), (7, 1, 1), (100, 1, 3)]
    assert row_runs(11) == [(11, 1, 1)]
    assert row_runs() == []


def test_pieces_of_one_lattice_join_across_runs_that_start_between_them():
    runs = from_triples((1, 60), 0, [0, 9, 12], [4, 1, 4], [3, 2, 3])
    assert triples(runs) == [(0, 4, 6), (9, 1, 2)]


def test_window_with_stride_stays_a_short_list_of_runs():
    """The union of an interval and a lattice costs runs, not columns: nothing of the lattice is written out."""
    cols = 1 << 30
    stride = from_triples((1, cols), 0, 0, 64, cols // 64)
    local = from_triples((1, cols), 0, 1000, 1, 500)
    both = union(local, stride)
    assert both.nnz == cols // 64 + 500 - 8  # 1024, 1088, ..., 1472 are in both
    assert both.start.size <= 9 + 1
    assert intersect(both, stride).nnz == cols // 64
    assert triples(intersect(local, stride)) == [(1024, 64, 8)]


def test_a_million_rows_of_intervals_are_joined_without_expanding_them():
    n = 1 << 20
    row = np.arange(n)
    causal = from_triples((n, n), row, 0, 1, row + 1)
    tail = from_triples((n, n), row, row, 1, n - row)
    assert union(causal, tail).nnz == n * n
    assert intersect(causal, tail).nnz == n


def test_empty_shapes():
    for shape in ((0, 0), (0, 5), (3, 0)):
        runs = from_triples(shape, [], [], [], [])
        assert runs.nnz == 0
        assert equal(union(runs, runs), intersect(runs, runs))
        assert to_csr(runs)[0].size == shape[0] + 1


def test_empty_runs_are_dropped_wherever_they_point():
    assert triples(from_triples((1, 9), [0, 5], [2, 100], [1, 0], [3, 0])) == [(2, 1, 3)]


def message(call, *args):
    with pytest.raises(FormatError) as info:
        call(*args)
    return str(info.value)


def test_refusals_name_the_row():
    assert message(from_triples, (2, 9), 1, 4, 3, 3) == (
        "row 1: the run start=4, step=3, count=3 does not lie inside the shape (2, 9); a run needs step >= 1, "
        "count >= 1 and columns in [0, 9). Clip it first."
    )
    assert message(from_triples, (1, 9), 0, [0, 2], 1, 3) == (
        "row 0: the runs from columns 0 and 2 overlap; the runs of a row must be disjoint. Build each part alone and "
        "join them with `|`."
    )
    for row, start, step, count in ((2, 0, 1, 1), (-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 2), (0, 0, 1, 2**62)):
        assert "does not lie inside" in message(from_triples, (2, 9), row, start, step, count)


def test_sizes_that_int64_cannot_count_are_refused():
    assert message(from_triples, (2**32, 2**31), [], [], [], []) == (
        "shape (4294967296, 2147483648) is a run overflow: its pairs do not fit in int64. "
        "Split the rows into several masks."
    )
    assert message(from_triples, (-1, 4), [], [], [], []) == (
        "shape must not be negative, got (-1, 4); give (rows, columns) >= 0."
    )


def test_columns_beyond_int32_are_exact():
    cols = 1 << 40
    a = from_triples((2, cols), [0, 1], cols - 5, [1, 2], [5, 3])
    b = from_triples((2, cols), [0, 1], cols - 4, [1, 1], [1, 2])
    assert triples(intersect(a, b)) == [(cols - 4, 1, 1), (cols - 3, 1, 1)]
    assert triples(union(a, b)) == [(cols - 5, 1, 5), (cols - 5, 1, 3), (cols - 1, 1, 1)]


def test_tables_of_different_shapes_do_not_combine():
    a, b = from_triples((1, 2), [], [], [], []), from_triples((2, 1), [], [], [], [])
    assert message(union, a, b) == "masks to combine must have equal shapes, got (1, 2) and (2, 1); pad or cut one."
    assert not equal(a, b)


def test_pairs_of_very_distant_rows_sort_without_overflow():
    major, minor = np.array([2**40, 0, 2**40]), np.array([2**40, 2**41, 3])
    assert sweep.order_of(major, minor).tolist() == [1, 2, 0]


def test_runs_are_read_only_but_leave_the_arrays_they_came_from_alone():
    start = np.array([3])
    runs = Runs((1, 5), np.array([0, 1]), start, np.array([1]), np.array([2]))
    start[0] = 2
    with pytest.raises(ValueError, match="read-only"):
        runs.start[0] = 1
