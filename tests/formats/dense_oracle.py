"""Every pattern as a dense boolean mask, pair by pair from the documented definitions. Slow and obviously right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.bounds import evaluate
from splat_numba.formats.closed_form import Edge, Term
from splat_numba.formats.patterns import Pattern
from splat_numba.formats.random_blocks import chosen_blocks
from splat_numba.formats.runs import Runs


def dense(pattern: Pattern, seq_q: int, seq_kv: int) -> NDArray[np.bool_]:
    """(seq_q, seq_kv) bool, True where the pattern keeps the pair."""
    return _dense(pattern, seq_q, seq_kv, 0)


def _dense(pattern: Pattern, seq_q: int, seq_kv: int, shift: int) -> NDArray[np.bool_]:
    if isinstance(pattern, nodes.AlignEnd):
        return _dense(pattern.pattern, seq_q, seq_kv, seq_kv - seq_q)
    if isinstance(pattern, nodes.Union):
        return np.asarray(np.stack([_dense(part, seq_q, seq_kv, shift) for part in pattern.parts]).any(axis=0))
    if isinstance(pattern, nodes.Intersection):
        return np.asarray(np.stack([_dense(part, seq_q, seq_kv, shift) for part in pattern.parts]).all(axis=0))
    keeps = predicate(pattern, seq_kv)
    cells = [[keeps(i + shift, j) for j in range(seq_kv)] for i in range(seq_q)]
    return np.array(cells, np.bool_).reshape(seq_q, seq_kv)


def predicate(leaf: Pattern, seq_kv: int) -> Callable[[int, int], bool]:  # one definition per leaf
    """The leaf's definition: whether (i, j) is kept."""
    match leaf:
        case nodes.Full():
            return lambda _i, _j: True
        case nodes.Causal():
            return lambda i, j: j <= i
        case nodes.Window(left, right):
            return lambda i, j: i - left <= j <= i + right
        case nodes.Dilated(window, step):
            return lambda i, j: (i - j) % step == 0 and abs(i - j) <= window * step
        case nodes.Strided(step):
            return lambda i, j: (i - j) % step == 0
        case nodes.Columns(period, start, count):
            return lambda _, j: start <= j % period < start + count
        case nodes.Blocked(size, before, after):
            return lambda i, j: i // size - before <= j // size <= i // size + after
        case nodes.GlobalFirst(n):
            return lambda i, j: 0 <= i < n or 0 <= j < n
        case nodes.GlobalAt(indices):
            return lambda i, j: i in indices or j in indices
        case nodes.Sinks(n):
            return lambda _, j: j < n
        case nodes.Prefix(n):
            return lambda i, j: j < n or j <= i
    return _sized_predicate(leaf, seq_kv)


def _sized_predicate(leaf: Pattern, seq_kv: int) -> Callable[[int, int], bool]:
    match leaf:
        case nodes.Documents(lengths):
            document = [number for number, length in enumerate(lengths) for _ in range(length)]
            return lambda i, j: document[i] == document[j]
        case nodes.Neighborhood(shape, kernel, dilation):
            return lambda i, j: all(
                abs(a - b) <= (k // 2) * d and (a - b) % d == 0
                for a, b, k, d in zip(_place(i, shape), _place(j, shape), kernel, dilation, strict=True)
            )
        case nodes.RandomBlocks(size, per_row, seed):
            return lambda i, j: i >= 0 and j // size in _choice(seed, i // size, -(-seq_kv // size), per_row)
    raise AssertionError(f"no definition for {leaf!r}")


def _place(cell: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    place = []
    for extent in reversed(shape):
        place.append(cell % extent)
        cell //= extent
    return tuple(reversed(place))


def _choice(seed: int, block_row: int, blocks: int, per_row: int) -> set[int]:
    """One block row alone; that the draw itself is right is tested in test_pattern_runs."""
    return {int(block) for block in chosen_blocks(seed, np.array([block_row]), blocks, per_row)[0]}


def dense_runs(runs: Runs) -> NDArray[np.int64]:
    """How often the runs keep each pair."""
    times = np.zeros(runs.shape, np.int64)
    for row in range(runs.shape[0]):
        for at in range(int(runs.row_ptr[row]), int(runs.row_ptr[row + 1])):
            times[row, [runs.start[at] + runs.step[at] * t for t in range(runs.count[at])]] += 1
    return times


def dense_terms(terms: tuple[Term, ...], seq_q: int, seq_kv: int) -> NDArray[np.int64]:
    """How often the terms keep each pair: 0 or 1 if they are disjoint."""
    times = np.zeros((seq_q, seq_kv), np.int64)
    for term in terms:
        times += _dense_term(term, seq_q, seq_kv)
    return times


def _dense_term(term: Term, seq_q: int, seq_kv: int) -> NDArray[np.bool_]:
    i, j = np.ogrid[:seq_q, :seq_kv]
    delta = seq_kv - seq_q

    def row(edge: Edge | None) -> int:
        return seq_q if edge is None else edge.value - (delta if edge.aligned else 0)

    lo, hi = (evaluate(bound, i[:, 0], seq_q, seq_kv)[:, None] for bound in (term.lo, term.hi))
    lattice = term.lattice
    origin = lattice.shift + (i + (delta if lattice.aligned else 0) if lattice.diagonal else 0)
    kept = (row(term.row_lo) <= i) & (i < row(term.row_hi)) & (lo <= j) & (j < hi) & ((j - origin) % lattice.step == 0)
    return np.asarray(kept, np.bool_)
