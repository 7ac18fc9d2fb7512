"""Long rows in parts: every pair once, in its order; who is not long, or where many are, stays whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.packed import parts as packed_parts
from splat_numba.gen.packed.lists import PackedLists
from splat_numba.gen.packed.parts import PackedParts
from splat_numba.gen.packed.problem import RunTable
from splat_numba.testing import masks


def parts_of(lists, part, longest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_parts, "PART_PAIRS", part)
        patch.setattr(packed_parts, "LONGEST", longest)
        return PackedParts.of(lists.rows, lists.runs, lists.run_ptr, listed=False)


@given(masks(11, 61), st.integers(1, 9), st.integers(0, 20))
def test_the_parts_of_a_row_have_its_columns_in_order(mask, part, longest):
    acsr = mask if isinstance(mask, ACSR) else None
    if acsr is None:
        acsr = ACSR.from_pattern(mask, 11, 61) if isinstance(mask, Pattern) else ACSR.from_dense(mask)
    table = RunTable.of(acsr)
    lists, pairs = PackedLists.of(table), np.diff(table.slot_ptr)
    found = parts_of(lists, part, longest)
    long = np.flatnonzero(pairs > longest)
    if not long.size:
        assert found is None
        return
    assert_array_equal(np.sort(found.long[:, 0]), long)
    assert_array_equal(np.sort(found.whole[:, 0]), np.flatnonzero(pairs <= longest))
    for row, first, count, _ in found.long.tolist():
        columns, slot = [], int(table.slot_ptr[row])
        for owner, begin, some, first_run in found.parts[first : first + count].tolist():
            assert (owner, begin, 0 < some <= part) == (row, slot + len(columns), True)
            here, run = [], first_run
            while len(here) < some:
                start, step, length, _ = found.runs[run].tolist()
                here += [start + step * x for x in range(length)]
                run += 1
            assert len(here) == some
            columns += here
        assert_array_equal(columns, acsr.row_columns(row))
    assert_array_equal(found.numbered[:, 0], np.arange(len(found.parts)))


def test_many_long_rows_stay_whole(monkeypatch):
    lists = PackedLists.of(RunTable.of(ACSR.from_dense(np.ones((5, 40), bool))))
    assert len(parts_of(lists, 8, 16).long) == 5
    monkeypatch.setattr(packed_parts, "MOST_LONG", 4)
    assert parts_of(lists, 8, 16) is None
