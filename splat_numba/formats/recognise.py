"""The pattern behind a run table: guesses whose numbers are read off the runs, each of them verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np

from splat_numba.formats import patterns
from splat_numba.formats.combinations import Combination
from splat_numba.formats.importers import sides
from splat_numba.formats.pattern_runs import pattern_runs
from splat_numba.formats.patterns import Pattern
from splat_numba.formats.run_algebra import equal
from splat_numba.formats.run_table import Runs, rows_of
from splat_numba.formats.sweep import Ints

UNLIMITED = -1  # side of a window
MOST_DOCUMENTS = 1024  # named one by one; beyond, and of tokens alone, runs are as short


def recognise(runs: Runs) -> Pattern | None:
    """A pattern that keeps the pairs of the table at its lengths; None where no guess does.

    Guesses are the tightest window, stride and blocks around all pairs, or around those that first keys and queries
    leave, in positions counted from the first token, then from the last. Linear in the runs, about twenty times.
    """
    if runs.nnz == 0:
        return patterns.sinks(0)
    found = [_recognised(runs, aligned=False)]
    if runs.shape[0] != runs.shape[1]:
        found.append(_recognised(runs, aligned=True))
    return min((one for one in found if one is not None), key=_leaves, default=None)


def _recognised(runs: Runs, *, aligned: bool) -> Pattern | None:
    for guess in _guesses(_Part.of(runs, aligned=aligned)):
        if _holds(guess.pattern(), runs):
            return _simplest(guess, runs).pattern()
    return None


def _leaves(pattern: Pattern) -> int:
    return pattern.leaves if isinstance(pattern, Combination) else 1


def _holds(pattern: Pattern, runs: Runs) -> bool:
    found = pattern_runs(pattern, *runs.shape)
    return found.nnz == runs.nnz and equal(found, runs)


@dataclass(frozen=True, slots=True)
class _Guess:
    """What pairs have in common, and what is kept beside them.

    left, right: reach of a window in tokens, -1 for none. step: i - j is a multiple of it. blocks: documents or blocks.
    columns: a lattice of keys. sinks, tokens: first keys, first tokens that are kept; alone: nothing else is; cut: all
    of it is causal. aligned: counted from the end.
    """

    left: int = UNLIMITED
    right: int = UNLIMITED
    step: int = 1
    blocks: Pattern | None = None
    columns: Pattern | None = None
    sinks: int = 0
    tokens: int = 0
    alone: bool = False
    cut: bool = False
    aligned: bool = False

    def pattern(self) -> Pattern:
        """The pattern that is meant."""
        parts = [] if self.alone else [self._core()]
        if parts == [patterns.causal()] and self.sinks and not self.cut:
            parts = [patterns.prefix(self.sinks)]
        elif self.sinks:
            parts.append(patterns.sinks(self.sinks))
        if self.tokens:
            parts.append(patterns.global_tokens(self.tokens))
        found = reduce(or_, parts)
        if self.cut:
            found = found & patterns.causal()
        return found.align_end() if self.aligned else found

    def _core(self) -> Pattern:
        kept = [] if self.blocks is None else [self.blocks]
        reach, odd = divmod(self.left, self.step)
        if self.step > 1 and self.left == self.right > 0 and not odd:
            kept.append(patterns.dilated(reach, self.step))
        else:
            if (self.left, self.right) != (UNLIMITED, UNLIMITED):
                kept.append(sides(self.left, self.right))
            if self.step > 1:
                kept.append(patterns.strided(self.step))
        if self.columns is not None:
            kept.append(self.columns)
        return reduce(and_, kept) if kept else patterns.full()


def _simplest(guess: _Guess, runs: Runs) -> _Guess:
    """The guess without what is not needed at these lengths, one thing after the other."""
    fewer: tuple[dict[str, Any], ...] = (
        {"left": UNLIMITED, "right": UNLIMITED}, {"left": UNLIMITED}, {"columns": None}, {"blocks": None}, {"step": 1},
    )  # fmt: skip
    for less in fewer:
        simpler = replace(guess, **less)
        if simpler != guess and _holds(simpler.pattern(), runs):
            guess = simpler
    return guess


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Runs of some rows: q is the query's position, lead how many keys from the first on a row keeps without a gap."""

    shape: tuple[int, int]
    q: Ints
    start: Ints
    step: Ints
    count: Ints
    lead: Ints
    aligned: bool

    @classmethod
    def of(cls, runs: Runs, *, aligned: bool) -> _Part:
        """All rows. lead: (rows,)."""
        rows, cols = runs.shape
        filled = np.flatnonzero(runs.runs_per_row)
        first = runs.row_ptr[filled]
        lead = np.zeros(rows, np.int64)
        solid = np.where(runs.step[first] == 1, runs.count[first], 1)
        lead[filled] = np.where(runs.start[first] == 0, solid, 0)
        q = rows_of(runs) + (cols - rows if aligned else 0)
        return cls(runs.shape, q, runs.start, runs.step, runs.count, lead, aligned)

    @property
    def position(self) -> Ints:
        """Of every row, those without a run too."""
        rows, cols = self.shape
        return np.arange(rows) + (cols - rows if self.aligned else 0)

    @property
    def last(self) -> Ints:
        return self.start + self.step * (self.count - 1)

    def without(self, keys: int, queries: int) -> _Part:
        """The part of the runs beyond the first keys and queries."""
        skipped = np.maximum(-((self.start - keys) // self.step), 0)  # of a run, rounded up
        start, count = self.start + skipped * self.step, self.count - skipped
        kept = (count > 0) & (self.q >= queries)
        return replace(self, q=self.q[kept], start=start[kept], step=self.step[kept], count=count[kept])


def _guesses(part: _Part) -> Iterator[_Guess]:
    """From the simplest on."""
    yield from _around(part)
    keys = int(part.lead.min())
    if keys:
        for guess in _around(part.without(keys, 0)):
            yield replace(guess, sinks=keys)
    position = part.position
    if int((part.last - part.q).max()) <= 0:  # causal: keys that are kept by all that come after them
        cut = part.lead <= position
        keys = int(part.lead[cut].min()) if cut.any() else 0
        for guess in _around(part.without(keys, 0)) if keys else ():
            yield replace(guess, sinks=keys, cut=True)
    partial = part.lead < part.shape[1]
    tokens = min(int(position[partial].min()), int(part.lead.min())) if partial.any() else 0
    if tokens > 0:
        for guess in _around(part.without(tokens, tokens)):
            yield replace(guess, tokens=tokens)


def _around(part: _Part) -> Iterator[_Guess]:
    """The tightest window, stride and blocks that hold all of a part; blocks of two kinds, or none."""
    guess = _Guess(aligned=part.aligned)
    if not part.q.size:
        yield replace(guess, alone=True)
        return
    before, last = part.q - part.start, part.last
    step = int(np.gcd.reduce(np.concatenate([np.abs(before), part.step[part.count > 1]])))
    left, right = max(int(before.max()), 0), max(int((last - part.q).max()), 0)
    guess = replace(guess, left=left, right=right, step=max(step, 1), columns=_columns(part))
    yield guess
    for blocks in (_chunks(part), _documents(part)):
        if blocks is not None:
            yield replace(guess, blocks=blocks)


def _columns(part: _Part) -> Pattern | None:
    """Every so many keys, where all that are kept are of those."""
    first = int(part.start[0])
    period = int(np.gcd.reduce(np.concatenate([np.abs(part.start - first), part.step[part.count > 1]])))
    return patterns.columns(period, first % period) if period > 1 else None


def _documents(part: _Part) -> Pattern | None:
    """The finest documents that keep every pair within one, as blocks where they are of one size; None for one."""
    rows, cols = part.shape
    if rows != cols:
        return None
    crossing = np.bincount(np.minimum(part.q, part.start), minlength=cols + 1)
    crossing -= np.bincount(np.maximum(part.q, part.last), minlength=cols + 1)
    ends = np.flatnonzero(np.cumsum(crossing)[:cols] == 0) + 1
    if ends[-1] != cols:
        ends = np.append(ends, cols)
    lengths = np.diff(ends, prepend=0)
    if not 1 < lengths.size <= MOST_DOCUMENTS:
        return None
    size = int(lengths[0])
    if (lengths[:-1] == size).all() and lengths[-1] <= size:
        return patterns.blocked(size)
    return patterns.documents(lengths)


def _chunks(part: _Part) -> Pattern | None:
    """Blocks of rows that keep the same keys, with as many before and after as are reached; None for rows alone."""
    first = np.flatnonzero(np.concatenate(([True], part.q[1:] != part.q[:-1])))
    low, high = part.start[first], np.maximum.reduceat(part.last, first)
    q = part.q[first]
    fresh = (low[1:] != low[:-1]) | (high[1:] != high[:-1]) | (q[1:] != q[:-1] + 1)
    end = q[-1:] + 1 if q[-1] < part.position[-1] else q[:0]  # where the rows end, a block may be cut
    size = int(np.gcd.reduce(np.concatenate([q[:1], q[1:][fresh], q[:-1][fresh] + 1, end])))
    if size < 2:
        return None
    before, after = int((q // size - low // size).max()), int((high // size - q // size).max())
    return patterns.blocked(size, max(before, 0), max(after, 0))


__all__ = ["recognise"]
