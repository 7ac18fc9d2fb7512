"""Runs of the leaves that have no closed form, for given lengths. Vectorised: no loop over rows."""

from __future__ import annotations

import itertools
import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.random_blocks import chosen_blocks
from splat_numba.formats.runs import Runs, check_runs_fit, from_columns, from_triples

Ints: TypeAlias = NDArray[np.int64]


def document_runs(leaf: nodes.Documents, seq_q: int, seq_kv: int) -> Runs:
    """One run a row: the row's document. The lengths add up to seq_q == seq_kv (`check_lengths`)."""
    check_runs_fit((seq_q, seq_kv), seq_q)
    lengths = np.array(leaf.lengths, np.int64)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return from_triples((seq_q, seq_kv), np.arange(seq_q), first, 1, np.repeat(lengths, lengths))


def neighborhood_runs(leaf: nodes.Neighborhood, seq_q: int, seq_kv: int) -> Runs:
    """A run along the last axis for every neighbour in the other axes. The grid has seq_q == seq_kv cells."""
    axes = [_offsets(*axis) for axis in zip(leaf.shape, leaf.kernel, leaf.dilation, strict=True)][:-1]
    check_runs_fit((seq_q, seq_kv), seq_q * math.prod(map(len, axes)))
    rows = np.arange(seq_q, dtype=np.int64)
    place = np.unravel_index(rows, leaf.shape)
    extent, dilation = leaf.shape[-1], leaf.dilation[-1]
    reach = leaf.kernel[-1] // 2
    before = np.minimum(reach, place[-1] // dilation)
    after = np.minimum(reach, (extent - 1 - place[-1]) // dilation)

    starts, inside = [], []
    for offsets in itertools.product(*axes):  # as many as the kernel has cells in all axes but the last
        moved = [at + offset for at, offset in zip(place, offsets, strict=False)]
        inside.append(np.logical_and.reduce([(at >= 0) & (at < n) for at, n in zip(moved, leaf.shape, strict=False)]))
        cell = [np.where(inside[-1], at, 0) for at in moved]
        starts.append(np.ravel_multi_index([*cell, place[-1] - before * dilation], leaf.shape))
    keep = np.stack(inside, axis=1)
    row, _ = np.nonzero(keep)
    return from_triples((seq_q, seq_kv), row, np.stack(starts, axis=1)[keep], dilation, (before + after + 1)[row])


def _offsets(extent: int, kernel: int, dilation: int) -> range:
    reach = min(kernel // 2, (extent - 1) // dilation) * dilation
    return range(-reach, reach + 1, dilation)


def random_runs(leaf: nodes.RandomBlocks, seq_q: int, seq_kv: int, *, aligned: bool) -> Runs:
    """Each row takes its block row's draw; adjacent blocks join to one run. Negative positions keep nothing."""
    shift = seq_kv - seq_q if aligned else 0
    first = max(0, -shift)
    if first >= seq_q or not seq_kv:
        return no_runs(seq_q, seq_kv)
    check_runs_fit((seq_q, seq_kv), (seq_q - first) * max(min(leaf.per_row, -(-seq_kv // leaf.size)), 1))
    row = np.arange(first, seq_q, dtype=np.int64)
    block_row = (row + shift) // leaf.size
    drawn = np.arange(block_row[0], block_row[-1] + 1)
    chosen = chosen_blocks(leaf.seed, drawn, -(-seq_kv // leaf.size), leaf.per_row)
    start = (chosen * leaf.size)[block_row - block_row[0]]
    count = np.minimum(leaf.size, seq_kv - start)
    return from_triples((seq_q, seq_kv), np.repeat(row, chosen.shape[1]), start.ravel(), 1, count.ravel())


def column_runs(leaf: nodes.Columns, seq_q: int, seq_kv: int) -> Runs:
    """The same in every row: stretches of columns, or the residues' lattices where those are fewer."""
    by_residue = leaf.count <= seq_kv // leaf.period
    check_runs_fit((seq_q, seq_kv), max(seq_q, 1) * (leaf.count if by_residue else -(-seq_kv // leaf.period)))
    if by_residue:
        start = np.arange(leaf.start, leaf.start + leaf.count, dtype=np.int64)
        count = -((start - seq_kv) // leaf.period)
    else:
        start = np.arange(leaf.start, seq_kv, leaf.period, dtype=np.int64)
        count = np.minimum(leaf.count, seq_kv - start)
    step = np.full(start.size, leaf.period if by_residue else 1, np.int64)
    return from_triples((seq_q, seq_kv), *_in_rows(np.arange(seq_q), start, step, count))


def global_runs(leaf: nodes.GlobalAt, seq_q: int, seq_kv: int, *, aligned: bool) -> Runs:
    """Global rows keep every column, the others the global columns, in as few runs as one such row needs."""
    check_runs_fit((seq_q, seq_kv), seq_q)
    indices = np.array(leaf.indices, np.int64)
    rows = indices - (seq_kv - seq_q if aligned else 0)
    is_global = np.zeros(seq_q, np.bool_)
    is_global[rows[(rows >= 0) & (rows < seq_q)]] = True
    kept = indices[indices < seq_kv]
    row = from_columns((1, seq_kv), np.array([0, kept.size]), kept)
    whole = _in_rows(np.flatnonzero(is_global), np.array([0]), np.array([1]), np.array([seq_kv]))
    check_runs_fit((seq_q, seq_kv), seq_q * row.start.size)
    rest = _in_rows(np.flatnonzero(~is_global), row.start, row.step, row.count)
    return from_triples((seq_q, seq_kv), *(np.concatenate(pair) for pair in zip(whole, rest, strict=True)))


def _in_rows(rows: Ints, start: Ints, step: Ints, count: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """One row's runs as triples of all the rows."""
    return np.repeat(rows, start.size), np.tile(start, rows.size), np.tile(step, rows.size), np.tile(count, rows.size)


def no_runs(seq_q: int, seq_kv: int) -> Runs:
    """Nothing kept."""
    nothing = np.zeros(0, np.int64)
    return from_triples((seq_q, seq_kv), nothing, nothing, nothing, nothing)
