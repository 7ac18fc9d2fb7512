"""GroupTable: rows of a mask in groups whose runs lie on the same lattices, and the columns that whole groups keep.

A key or value that several rows want is then loaded once for all of them. What a row keeps beside its group, the ends
of its runs, stays a run of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sealed import Sealed
from splat_numba.formats.sweep import exclusive_sum
from splat_numba.gen.packed.problem import RunTable

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GroupTable(Sealed):
    """What a kernel reads of a mask whose rows share columns, all int64.

    rows: (groups * size,), -1 where a group has fewer. Piece p of a group, piece_ptr: (groups + 1,), is the columns
    piece_start[p] + piece_step[p] * t, t < piece_count[p], that every row of the group keeps; piece_slot[p * size + r]
    is where row r has the first of them among the packed values. run_ptr: (mask's rows + 1,); start, step, count, slot:
    (runs,), what a row keeps besides. cost: (groups + 1,), pairs of all groups before. shared: pairs in pieces.
    place, one_step: as in RunTable.
    """

    size: int
    rows: Ints
    piece_ptr: Ints
    piece_start: Ints
    piece_step: Ints
    piece_count: Ints
    piece_slot: Ints
    run_ptr: Ints
    start: Ints
    step: Ints
    count: Ints
    slot: Ints
    cost: Ints
    shared: int
    one_step: int | None
    place: Ints | None = None

    @classmethod
    def of(cls, table: RunTable, size: int, fewest: int) -> GroupTable:
        """Rows of one kind, in their order, ``size`` at a time. fewest: columns of a piece, below which there is none.

        Its cost is that of the runs, not of the pairs.
        """
        rows = _grouped_rows(table, size)
        first = exclusive_sum(table.count)[:-1]  # of every run: where its packed values start
        run, piece_ptr = _runs_of_groups(table, rows, size)
        start, step, count = (array[run] for array in (table.start, table.step, table.count))
        low, stop = start.max(axis=1), (start + step * count).min(axis=1)
        common = (stop - low) // step[:, 0]
        alike = (step == step[:, :1]).all(axis=1) & ((start - low[:, None]) % step == 0).all(axis=1)
        taken = alike & (common >= fewest)
        piece_ptr = exclusive_sum(taken)[piece_ptr]
        run, low, common, start, step = (array[taken] for array in (run, low, common, start, step))
        skipped = (low[:, None] - start) // step
        rest = _rest(table, first, run, skipped, common)
        pairs = np.where(rows >= 0, np.diff(table.slot_ptr)[np.maximum(rows, 0)], 0) if rows.size else rows
        return cls(
            size, rows, piece_ptr, low, np.ascontiguousarray(step[:, 0]), common, (first[run] + skipped).ravel(), *rest,
            exclusive_sum(pairs.reshape(-1, size).sum(axis=1)), int(common.sum()) * size, table.one_step, table.place,
        )  # fmt: skip

    @property
    def groups(self) -> int:
        """How many."""
        return self.cost.size - 1

    @property
    def share(self) -> float:
        """Of the pairs, those whose columns a whole group keeps."""
        return self.shared / max(int(self.cost[-1]), 1)


def _kinds(table: RunTable) -> Ints:
    """A number a row, equal where rows have equally many runs on the same lattices in the same order. It is a hash:
    when pieces are made, it shows which other rows have it by chance.
    """
    runs = np.diff(table.run_ptr)
    place = np.arange(table.start.size) - np.repeat(table.run_ptr[:-1], runs)
    mixed = np.zeros(table.start.size, np.uint64)
    for part in (table.step, table.start % table.step, place):
        mixed = (mixed + part.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    kinds: Ints = (total[table.run_ptr[1:]] - total[table.run_ptr[:-1]]).view(np.int64)
    return kinds


def _grouped_rows(table: RunTable, size: int) -> Ints:
    """Rows of one kind after the other, kinds in the order of their first row, each filled up with -1."""
    _, first, kind = np.unique(_kinds(table), return_index=True, return_inverse=True)
    order = np.argsort(first[kind], kind="stable")
    members = np.bincount(first[kind], minlength=table.rows)
    members = members[members > 0]
    padded = -(-members // size) * size
    rows = np.full(int(padded.sum()), -1, np.int64)
    begin = np.repeat(exclusive_sum(padded)[:-1] - exclusive_sum(members)[:-1], members)
    rows[np.arange(order.size) + begin] = order
    return rows


def _runs_of_groups(table: RunTable, rows: Ints, size: int) -> tuple[Ints, Ints]:
    """The runs, (pieces, size), that whole groups may share, and where each group's begin."""
    members = rows.reshape(-1, size)
    runs = np.diff(table.run_ptr)[np.maximum(members, 0)] if members.size else members
    whole = (members >= 0).all(axis=1) & (runs == runs[:, :1]).all(axis=1)
    count = np.where(whole, runs[:, 0], 0)
    owner = np.repeat(np.arange(len(members)), count)
    place = np.arange(owner.size) - np.repeat(exclusive_sum(count)[:-1], count)
    return table.run_ptr[members[owner]] + place[:, None], exclusive_sum(count)


def _rest(table: RunTable, first: Ints, run: Ints, skipped: Ints, common: Ints) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """(run_ptr, start, step, count, slot) of what is left of every run before and after its group's piece."""
    before, after = table.count.copy(), np.zeros_like(table.count)
    before[run] = skipped
    begin = table.count.copy()
    begin[run] = skipped + common[:, None]
    after[run] = table.count[run] - begin[run]
    counts = np.stack([before, after], axis=1)
    offset = np.stack([np.zeros_like(begin), begin], axis=1)
    kept = counts > 0
    start = (table.start[:, None] + table.step[:, None] * offset)[kept]
    step, slot = np.repeat(table.step, 2).reshape(-1, 2)[kept], (first[:, None] + offset)[kept]
    run_ptr = exclusive_sum(kept.sum(axis=1))[table.run_ptr]
    return run_ptr, start, step, counts[kept], slot
