"""PackedParts: long rows of a mask in parts of a bounded number of pairs: no warp has a graph's hub by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sealed import Sealed
from splat_numba.formats.sweep import exclusive_sum

# Pairs of a part. A warp takes some 500 cycles for 32 pairs of a key each, so 8192 are 0.07 ms, about as long as the
# launches that splitting adds.
PART_PAIRS = 4096
LONGEST = 2 * PART_PAIRS  # pairs of a row that stays whole
MOST_LONG = 1024  # long rows: more of them keep a GPU busy as they are

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PackedParts(Sealed):
    """whole: of the rows of a PackedLists those that are short enough. parts: (parts, 4): row, first packed value,
    pairs, first run of ``runs``, a long row's after each other. long: (rows, 4): row, first part, parts, 0.
    """

    whole: Words
    parts: Words
    runs: Words
    long: Words

    @property
    def numbered(self) -> Words:
        """The parts, each by its number in place of its row."""
        return np.concatenate([np.arange(len(self.parts), dtype=np.uint32)[:, None], self.parts[:, 1:]], axis=1)

    @classmethod
    def of(cls, rows: Words, runs: Words, run_ptr: Ints, *, listed: bool) -> PackedParts | None:
        """Of rows as PackedLists has them; None where none is long, or too many are. listed: runs are not read."""
        too_long = rows[:, 2] > LONGEST
        if not 0 < too_long.sum() <= MOST_LONG:
            return None
        row, slot, pairs, _ = rows[too_long].astype(np.int64).T
        number = -(-pairs // PART_PAIRS)
        first = exclusive_sum(number)[:-1]
        owner = np.repeat(np.arange(row.size), number)
        before = PART_PAIRS * (np.arange(owner.size) - first[owner])
        cut, run = (runs, np.zeros_like(owner)) if listed else _cut(runs.astype(np.int64), run_ptr, row, first)
        each = [row[owner], slot[owner] + before, np.minimum(pairs[owner] - before, PART_PAIRS), run]
        long = np.stack([row, first, number, np.zeros_like(row)], axis=1).astype(np.uint32)
        return cls(rows[~too_long], np.stack(each, axis=1).astype(np.uint32), cut, long)


def _cut(runs: Ints, run_ptr: Ints, row: Ints, first: Ints) -> tuple[Words, Ints]:
    """(the runs of these rows, cut where parts begin, the first one of each part). first: part of each row."""
    many = run_ptr[row + 1] - run_ptr[row]
    owner = np.repeat(np.arange(row.size), many)
    start, step, count = runs[run_ptr[row][owner] + np.arange(owner.size) - exclusive_sum(many)[:-1][owner], :3].T
    begin = exclusive_sum(count)[:-1]
    begin = begin - begin[exclusive_sum(many)[:-1]][owner]
    low, high = begin // PART_PAIRS, (begin + count - 1) // PART_PAIRS
    piece = np.repeat(np.arange(owner.size), high - low + 1)
    part = low[piece] + np.arange(piece.size) - exclusive_sum(high - low + 1)[:-1][piece]
    lower = np.maximum(begin[piece], PART_PAIRS * part)
    upper = np.minimum((begin + count)[piece], PART_PAIRS * (part + 1))
    found = [start[piece] + step[piece] * (lower - begin[piece]), step[piece], upper - lower, np.zeros_like(piece)]
    of_part = first[owner[piece]] + part
    return np.stack(found, axis=1).astype(np.uint32), np.searchsorted(of_part, np.arange(int(of_part[-1]) + 1))
