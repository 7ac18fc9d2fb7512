"""The draws of random_blocks: distinct key blocks for every block row, by a counter-based generator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the increment and the finaliser of SplitMix64 (Steele et al., 2014)


def chosen_blocks(seed: int, block_rows: NDArray[np.int64], blocks: int, per_row: int) -> NDArray[np.int64]:
    """For each block row min(per_row, blocks) distinct block numbers below `blocks`, ascending and uniformly drawn.

    block_rows: (rows,) int64, >= 0. Returns (rows, min(per_row, blocks)) int64. A row's choice depends on (seed, block
    row, blocks, per_row) alone. O(rows * per_row * log(per_row)).
    """
    wanted = min(per_row, blocks)
    if 2 * wanted <= blocks:
        return _first_distinct(seed, block_rows, blocks, wanted)
    # Above one half, drawing the blocks to leave out needs fewer draws; the subset is as uniform.
    kept = np.ones((block_rows.size, blocks), np.bool_)
    np.put_along_axis(kept, _first_distinct(seed, block_rows, blocks, blocks - wanted), False, axis=1)
    return np.nonzero(kept)[1].reshape(block_rows.size, wanted)


def _first_distinct(seed: int, block_rows: NDArray[np.int64], blocks: int, wanted: int) -> NDArray[np.int64]:
    """The first `wanted` distinct values of each block row's endless stream of draws, sorted; 2 * wanted <= blocks."""
    chosen = np.zeros((block_rows.size, wanted), np.int64)
    open_rows = np.arange(block_rows.size)
    draws = 2 * wanted + 8  # at most 2 a value are expected; the few rows that need more go round again
    while open_rows.size and wanted:
        values = _draws(seed, block_rows[open_rows], draws, blocks)
        order = np.argsort(values, axis=1, kind="stable")
        ordered = np.take_along_axis(values, order, axis=1)
        repeated = np.zeros(values.shape, np.bool_)
        np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        rank = np.cumsum(~repeated, axis=1)
        done = rank[:, -1] >= wanted
        taken = values[done][(~repeated & (rank <= wanted))[done]].reshape(-1, wanted)
        chosen[open_rows[done]] = np.sort(taken, axis=1)
        open_rows, draws = open_rows[~done], 2 * draws
    return chosen


def _draws(seed: int, block_rows: NDArray[np.int64], draws: int, blocks: int) -> NDArray[np.int64]:
    """Draw t of block row r: SplitMix64 started at a hash of (seed, r). The bias of % is below blocks / 2**64."""
    start = mixed(mixed(np.array([seed], np.uint64) + GOLDEN) + block_rows.astype(np.uint64) * GOLDEN)
    counter = np.arange(1, draws + 1, dtype=np.uint64) * GOLDEN
    return (mixed(start[:, None] + counter) % np.uint64(blocks)).astype(np.int64)


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: counters times GOLDEN become independent numbers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
