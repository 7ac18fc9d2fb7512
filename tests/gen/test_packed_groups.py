"""Groups of rows that share loads: the table is the mask, the plan says why, and texts are Python on every machine."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern, causal, strided, window
from splat_numba.formats.sweep import expand
from splat_numba.gen.packed import groups as packed_groups
from splat_numba.gen.packed.groups import GroupTable
from splat_numba.gen.packed.problem import PackedProblem, RunTable
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.targets.cpu.packed import render_packed
from splat_numba.gen.targets.cpu.packed_plan import keys_to_share, make_packed_plan, rows_to_share
from splat_numba.testing import DTYPES, masks
from tests.ops.packed_cases import DIM, MIXED, stored


@settings(max_examples=60)
@given(masks(max_length=40), st.sampled_from([2, 4]), st.integers(1, 9))
def test_groups_and_what_rows_keep_alone_are_every_pair_once(mask, size, fewest):
    """Every row is in one group; a piece is in all rows of its group; slots are those of the packed values."""
    table = RunTable.of(ACSR.from_pattern(mask, 23, 31) if isinstance(mask, Pattern) else stored(mask, *mask.shape))
    groups = GroupTable.of(table, size, fewest)
    assert sorted(groups.rows[groups.rows >= 0]) == [*range(table.rows)]
    columns = expand(table.start, table.step, table.count)  # of every slot
    owner = np.repeat(np.arange(table.rows), np.diff(table.slot_ptr))
    seen = np.zeros(columns.size, int)

    def meet(row, start, step, count, slot):
        assert (columns[slot : slot + count] == start + step * np.arange(count)).all()
        assert (owner[slot : slot + count] == row).all()
        seen[slot : slot + count] += 1

    runs = zip(groups.start, groups.step, groups.count, groups.slot, strict=True)
    for row, run in zip(np.repeat(np.arange(table.rows), np.diff(groups.run_ptr)), runs, strict=True):
        meet(row, *run)
    members = groups.rows.reshape(-1, size)
    pieces = [*zip(groups.piece_start, groups.piece_step, groups.piece_count, strict=True)]
    for number, piece in zip(
        np.repeat(np.arange(groups.groups), np.diff(groups.piece_ptr)), range(len(pieces)), strict=True
    ):
        assert pieces[piece][2] >= fewest
        for row, slot in zip(members[number], groups.piece_slot[piece * size : (piece + 1) * size], strict=True):
            meet(row, *pieces[piece], slot)
    assert (seen == 1).all()
    assert groups.shared == size * sum(count for *_, count in pieces)
    assert groups.cost[-1] == columns.size


def test_rows_of_two_kinds_in_turns_share_every_pair():
    """Even rows have one run and odd ones two, the shortest just long enough for a piece."""
    dense = np.zeros((16, 20), bool)
    dense[::2] = True
    dense[1::2, :8] = dense[1::2, 12:] = True
    groups = GroupTable.of(RunTable.of(ACSR.from_dense(dense)), 4, 8)
    assert groups.rows.reshape(-1, 4).tolist() == [[0, 2, 4, 6], [8, 10, 12, 14], [1, 3, 5, 7], [9, 11, 13, 15]]
    assert (groups.shared, groups.share, groups.count.size) == (dense.sum(), 1.0, 0)
    assert np.diff(groups.piece_ptr).tolist() == [1, 1, 2, 2]
    assert GroupTable.of(RunTable.of(ACSR.from_dense(dense)), 4, 9).shared == dense[::2].sum()


def test_rows_of_one_number_that_differ_share_nothing(monkeypatch):
    """As if the hash of rows were the same for all: pieces are of runs that lie on one lattice nevertheless."""
    table = RunTable.of(ACSR.from_pattern(strided(3), 12, 24))
    monkeypatch.setattr(packed_groups, "_kinds", lambda table: np.zeros(table.rows, np.int64))
    assert GroupTable.of(table, 4, 1).shared == 0


@pytest.mark.parametrize(("mask", "rows"), [(window(40), 4), (strided(3), 4), (MIXED, 1), (causal(), 4)])
def test_the_plan_says_why_rows_share_loads(mask, rows):
    host, problem = Machine(64, 32), PackedProblem("spmm", "float32", 1, 1, DIM)
    table = RunTable.of(ACSR.from_pattern(mask, 90, 90))
    groups = GroupTable.of(table, rows_to_share(problem, host), keys_to_share(problem, host))
    plan = make_packed_plan(problem, table, host, groups)
    assert plan.shared_rows == rows
    shown = plan.explain()
    assert ("chosen      rows: groups of 4 rows that share loads" in shown) == (rows == 4)
    assert f"{groups.share:.0%} of the pairs" in shown
    assert rows_to_share(replace(problem, contiguous=False), host) == 1


@pytest.mark.parametrize("operator", ["sddmm", "spmm", "spmm_transposed"])
@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
def test_texts_of_groups_are_deterministic_python_for_every_machine(operator, vector_bytes):
    host = Machine(vector_bytes, 32 if vector_bytes == 64 else 16)
    table = RunTable.of(ACSR.from_pattern(strided(16), 200, 200))
    for dtype in DTYPES:
        problem = PackedProblem(operator, dtype, 1, 1, DIM)
        groups = GroupTable.of(table, rows_to_share(problem, host), keys_to_share(problem, host))
        plan = make_packed_plan(problem, table, host, groups)
        assert plan.grouped
        text = render_packed(plan)
        assert text == render_packed(plan)
        compile(text, "generated", "exec")
        assert "16 * row_stride" in text
