"""What GPUs read of a mask: every pair once, in its place; rows in the order of their work."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern, causal, dilated, strided, window
from splat_numba.gen.packed.lists import PackedLists
from splat_numba.gen.packed.problem import RunTable
from splat_numba.testing import masks


def as_acsr(mask, seq_q, seq_kv):
    if isinstance(mask, Pattern):
        return ACSR.from_pattern(mask, seq_q, seq_kv)
    return mask if isinstance(mask, ACSR) else ACSR.from_dense(mask)


def places_of(lists):
    """(row, column, place of its packed value) of every pair, as a kernel walks them."""
    found = []
    for row, slot, pairs, first in lists.rows.tolist():
        done, run = 0, first
        while done < pairs:
            if lists.columns is None:
                start, step, count, _ = lists.runs[run].tolist()
                columns = [start + step * place for place in range(count)]
            else:
                columns = lists.columns[slot : slot + pairs].tolist()
            places = range(slot + done, slot + done + len(columns))
            found += [(row, column, place) for column, place in zip(columns, places, strict=True)]
            done, run = done + len(columns), run + 1
    return found


@given(masks(23, 37))
def test_every_pair_is_met_once(mask):
    acsr = as_acsr(mask, 23, 37)
    lists = PackedLists.of(RunTable.of(acsr))
    rows = np.repeat(np.arange(23), np.diff(RunTable.of(acsr).slot_ptr))
    wanted = zip(rows.tolist(), acsr.columns().tolist(), range(acsr.nnz), strict=True)
    assert sorted(places_of(lists)) == sorted(wanted)
    assert_array_equal(np.sort(lists.rows[:, 0]), np.arange(23))


@given(masks(23, 37))
def test_pairs_of_the_transposed_mask_find_the_same_values(mask):
    acsr = as_acsr(mask, 23, 37)
    lists = PackedLists.of(RunTable.transposed(acsr))
    turned = {(column, row): int(lists.places[place]) for row, column, place in places_of(lists)}
    wanted = {(row, column): place for row, column, place in places_of(PackedLists.of(RunTable.of(acsr)))}
    assert turned == wanted


@pytest.mark.parametrize(("mask", "listed"), [(window(40), False), (dilated(30, 3), False), (strided(9), True)])
def test_columns_are_listed_where_runs_would_leave_lanes_idle(mask, listed):
    """strided(9) and a window: in rows of a few runs each, a run of 128 columns takes four steps of a warp."""
    acsr = ACSR.from_pattern(mask | window(2) if listed else mask, 128, 128)
    assert (PackedLists.of(RunTable.of(acsr)).columns is not None) == listed


def test_rows_of_similar_length_follow_each_other():
    pairs = PackedLists.of(RunTable.of(ACSR.from_pattern(causal(), 100, 100))).rows[:, 2]
    reached = np.frexp(pairs.astype(np.float64))[1]
    assert (np.diff(reached) <= 0).all()
    assert pairs.tolist() == [*range(64, 101), *range(32, 64), *range(16, 32), *range(8, 16), *range(4, 8), 2, 3, 1]


def test_rows_on_one_lattice_follow_each_other():
    rows = PackedLists.of(RunTable.of(ACSR.from_pattern(strided(4), 64, 64))).rows[:, 0]
    assert_array_equal(rows % 4, np.repeat(np.arange(4), 16))
