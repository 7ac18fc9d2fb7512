"""A plan carried out in plain NumPy, pair by pair, without any of the code that made it or that renders kernels' text.

It follows the kernels: a pass takes row blocks, a block walks the tiles of its segments or pieces, and a tile that is
called full is taken without asking which of its pairs are kept. What comes out is how often every pair was visited.
Expressions of closed forms are evaluated from the text that kernels hold, so that text is tested too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from splat_numba.gen.plans.plan import Pass, Plan
from splat_numba.gen.rows.passes import ClosedPass, Segment, TablePass
from splat_numba.gen.targets.cpu.bounds_text import render_base, render_column, render_edge


@dataclass
class Visits:
    """What one pass does. pairs: (seq_q, seq_kv) times visited; rows: (seq_q,) times written; resumes: as the pass."""

    pairs: np.ndarray
    rows: np.ndarray
    resumes: bool


def interpret(plan: Plan, seq_q: int, seq_kv: int, limit: int | None = None) -> list[Visits]:
    """The visits of every pass, in order. limit: keys from there on are left out, as kv_lengths asks."""
    return [_interpret_pass(one, seq_q, seq_kv, seq_kv if limit is None else limit) for one in plan.passes]


def _interpret_pass(one: Pass, seq_q: int, seq_kv: int, limit: int) -> Visits:
    visits = Visits(np.zeros((seq_q, seq_kv), int), np.zeros(seq_q, int), one.resumes)
    classes, blocks = one.grid(seq_q, seq_kv)
    for residue in range(classes):
        for block in range(blocks):
            if isinstance(one, ClosedPass):
                rows, tiles = _closed_block(one, residue, block, seq_q, seq_kv, limit)
            else:
                rows, tiles = _table_block(one, block, limit)
            np.add.at(visits.rows, rows[rows >= 0], 1)
            for cols, keeps in tiles:
                assert len(cols) <= one.tile_kv
                for lane, row in enumerate(rows):
                    if row >= 0:
                        np.add.at(visits.pairs[row], cols[keeps[:, lane]], 1)
    return visits


Tiles = Iterator[tuple[np.ndarray, np.ndarray]]
"""(columns, (columns, lanes) bool: which lanes keep them) of each tile."""


def _closed_block(
    one: ClosedPass, residue: int, block: int, seq_q: int, seq_kv: int, limit: int
) -> tuple[np.ndarray, Tiles]:
    lengths = {"seq_q": seq_q, "seq_kv": seq_kv, "delta": seq_kv - seq_q, **one.numbers}
    row_lo, row_hi = (_value(render_edge(edge), lengths) for edge in (one.row_lo, one.row_hi))
    row = row_lo + residue + block * one.tile_q * one.row_step
    count = max(0, min(one.tile_q, -(-(row_hi - row) // one.row_step)))
    rows = np.full(one.tile_q, -1)
    rows[:count] = row + np.arange(count) * one.row_step
    return rows, (tile for s in one.segments for tile in _segment_tiles(s, rows, one.tile_kv, lengths, limit))


def _segment_tiles(segment: Segment, rows: np.ndarray, tile_kv: int, lengths: dict[str, int], limit: int) -> Tiles:
    step, present = segment.lattice.step, rows[rows >= 0]
    if not present.size:
        return
    base = _value(render_base(segment.lattice), lengths | {"row": int(present[0])})
    ends = []
    for row in present:
        here = lengths | {"row": int(row), "limit": limit}
        below, above = (_value(render_column(bound), here) for bound in (segment.lo, segment.hi))
        ends.append((-((base - below) // step), -((base - above) // step)))
    low, high = np.zeros(rows.size, int), np.zeros(rows.size, int)
    low[: present.size], high[: present.size] = np.array(ends).T
    filled = low < high
    if not filled.any():
        return
    start, stop = low[filled].min(), high[filled].max()
    while start < stop:
        count = min(tile_kv, stop - start)
        place = np.arange(start, start + count)
        keeps = (low <= place[:, None]) & (place[:, None] < high)
        if low[: present.size].max() <= start and start + count <= high[: present.size].min():
            keeps = np.ones_like(keeps)  # a full tile: the kernel does not ask
        yield base + step * place, keeps
        start += count


def _value(text: str, names: dict[str, int]) -> int:
    return int(eval(text, {"__builtins__": {}, "min": min, "max": max, "quotient": int.__floordiv__}, names))  # noqa: S307 - text of our own plans


def _table_block(one: TablePass, block: int, limit: int) -> tuple[np.ndarray, Tiles]:
    rows = one.table.rows[block * one.tile_q : (block + 1) * one.tile_q]
    return rows, _piece_tiles(one, block, limit)


def _piece_tiles(one: TablePass, block: int, limit: int) -> Tiles:
    table = one.table
    for number in range(table.block_ptr[block], table.block_ptr[block + 1]):
        start, step, count, mask = (int(value) for value in table.piece[number])
        cols = table.cols[start : start + count] if step == 0 else start + step * np.arange(count)
        assert len(cols) == count > 0
        assert (np.diff(cols) > 0).all()  # or leaving out keys from a limit on would leave out others
        keeps = np.ones((count, one.tile_q), bool)
        if mask >= 0:
            words = table.lane_bits[mask : mask + count]
            assert len(words) == count
            keeps = (words[:, None] >> np.arange(one.tile_q, dtype=np.uint64)) & np.uint64(1) == 1
        below = cols < limit
        cols, keeps = cols[below], keeps[below]
        for done in range(0, len(cols), one.tile_kv):
            yield cols[done : done + one.tile_kv], keeps[done : done + one.tile_kv]


def check(plan: Plan, mask: np.ndarray, limit: int | None = None) -> None:
    """Assert that the plan visits the pairs of ``mask`` below ``limit`` once, and writes rows in a safe order."""
    seq_q, seq_kv = mask.shape
    passes = interpret(plan, seq_q, seq_kv, limit)
    wanted = mask.astype(int)
    if limit is not None:
        wanted[:, limit:] = 0
    got = sum((one.pairs for one in passes), np.zeros_like(wanted))
    assert np.array_equal(got, wanted), f"pairs (row, col, visits - wanted): {_differences(got - wanted)}"
    written = np.full(seq_q, not plan.covered or not passes)  # the launcher fills out and lse first
    for number, one in enumerate(passes):
        here = one.rows > 0
        assert (one.rows <= 1).all(), f"pass {number} has rows in two blocks: {np.flatnonzero(one.rows > 1)}"
        if one.resumes:
            assert written[here].all(), f"pass {number} resumes rows nobody wrote: {np.flatnonzero(here & ~written)}"
        else:
            assert not written[here].any(), f"pass {number} overwrites rows: {np.flatnonzero(here & written)}"
        written |= here
    assert written.all(), f"rows that no pass writes: {np.flatnonzero(~written)}"


def _differences(difference: np.ndarray) -> list[tuple[int, int, int]]:
    at = np.argwhere(difference)[:10]
    return [(int(row), int(col), int(difference[row, col])) for row, col in at]
