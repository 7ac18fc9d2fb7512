"""Poset tiling of a mask that has no closed form: row blocks, and for each the pieces of columns that its rows need.

Order the pairs of a row block by (row, column), componentwise. The least uncovered pair anchors the next tile, and so
on: for one row block this is the greedy cover of the union of its rows' columns, which is optimal. SPLAT (Gupta et al.,
2025) names the technique; its definition was not available to us, and this one is ours.

The union comes from one sweep: every run [lo, hi) of a lane toggles the lane's bit of a 64-bit word at lo and at hi, so
between two events of a block the word says which lanes keep the columns there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.geometry import BandTable
from splat_numba.formats.sweep import exclusive_sum, expand
from splat_numba.gen.rows.passes import TileTable

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

# Shorter ranges of columns are gathered into one tile: copying a key costs 2 d of the 2 d tile_q operations that it
# takes part in, while a tile of a few keys leaves most of the register tile empty.
GATHER_BELOW = 32


@dataclass(frozen=True, slots=True)
class BlockLanes:
    """Which block and lane every row has. block, lane: (rows,) int64, -1 where the row is in no block; rows: as in
    TileTable; step, residue: lattice of every block's columns, (blocks,) int64.
    """

    block: Ints
    lane: Ints
    rows: Ints
    step: Ints
    residue: Ints


def arrange(residue: Ints, step: int, tile_q: int) -> BlockLanes:
    """Blocks of at most ``tile_q`` rows of one residue class each. residue: (rows,), -1 leaves the row out."""
    taken = np.flatnonzero(residue >= 0)
    taken = taken[np.argsort(residue[taken], kind="stable")]
    classes, first, size = np.unique(residue[taken], return_index=True, return_counts=True)
    per_class = -(-size // tile_q)
    place = np.arange(taken.size) - np.repeat(first, size)
    block_of = np.repeat(exclusive_sum(per_class)[:-1], size) + place // tile_q
    block, lane = np.full(residue.size, -1), np.full(residue.size, -1)
    block[taken], lane[taken] = block_of, place % tile_q
    blocks = int(per_class.sum())
    rows = np.full(blocks * tile_q, -1)
    rows[block_of * tile_q + place % tile_q] = taken
    return BlockLanes(block, lane, rows, np.full(blocks, step), np.repeat(classes, per_class))


def cover(lanes: BlockLanes, row: Ints, lo: Ints, hi: Ints, tile_q: int, tile_kv: int) -> TileTable:
    """The tile table of ``lanes`` whose rows keep places lo <= c < hi of their block's lattice; arrays (runs,)."""
    blocks = lanes.step.size
    present = lanes.rows.reshape(blocks, tile_q) >= 0
    held = (present.astype(np.uint64) << np.arange(tile_q, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    block, start, stop, word = _sweep(lanes.block[row], lo, hi, lanes.lane[row])
    block, start, stop, word = _cut_full(block, start, stop, word, held, tile_kv)
    return _tabulate(lanes, held, block, start, stop, word, tile_kv)


def _sweep(block: Ints, lo: Ints, hi: Ints, lane: Ints) -> tuple[Ints, Ints, Ints, Words]:
    """Stretches (block, start, stop, word) on which the same lanes keep every column, in order."""
    owner, place = np.concatenate([block, block]), np.concatenate([lo, hi])
    bit = np.uint64(1) << np.concatenate([lane, lane]).astype(np.uint64)
    order = np.lexsort((place, owner))
    owner, place, bit = owner[order], place[order], bit[order]
    word = np.bitwise_xor.accumulate(bit) if bit.size else bit  # a block's toggles cancel, so none reaches the next
    kept = np.flatnonzero((word[:-1] != 0) & (place[1:] > place[:-1]))
    return owner[kept], place[kept], place[kept + 1], word[kept]


def _cut_full(
    block: Ints, start: Ints, stop: Ints, word: Words, held: Words, tile_kv: int
) -> tuple[Ints, Ints, Ints, Words]:
    """Cut the whole tiles off every stretch that all lanes keep, so that they become pieces without a mask."""
    full = word == held[block]
    whole = np.where(full, (stop - start) // tile_kv * tile_kv, 0)
    cut = np.flatnonzero((whole > 0) & (whole < stop - start))
    middle = start.copy()
    middle[cut] += whole[cut]
    twice = np.ones(block.size, np.int64)
    twice[cut] = 2
    source = np.repeat(np.arange(block.size), twice)
    second = np.zeros(source.size, np.bool_)
    second[exclusive_sum(twice)[cut] + 1] = True
    new_start = np.where(second, middle[source], start[source])
    new_stop = np.where(~second & (twice[source] == 2), middle[source], stop[source])
    return block[source], new_start, new_stop, word[source]


def _tabulate(
    lanes: BlockLanes, held: Words, block: Ints, start: Ints, stop: Ints, word: Words, tile_kv: int
) -> TileTable:
    """Join neighbouring stretches into pieces; gather the short ones of a block into one."""
    plain = (word == held[block]) & (stop - start >= tile_kv)
    head = np.ones(block.size, np.bool_)
    head[1:] = (block[1:] != block[:-1]) | (start[1:] != stop[:-1]) | plain[1:] | plain[:-1]
    heads = np.flatnonzero(head)
    piece_of = np.cumsum(head) - 1
    piece_block, first = block[heads], start[heads]
    length = np.bincount(piece_of, stop - start, heads.size).astype(np.int64)
    partial = np.bincount(piece_of, word != held[block], heads.size) > 0
    short = (length < GATHER_BELOW) & ~plain[heads]
    short &= np.bincount(piece_block, short, lanes.step.size)[piece_block] > 1  # one alone needs no gathering
    return _assemble(lanes, held, (block, start, stop, word), piece_of, piece_block, first, length, partial, short)


def _assemble(
    lanes: BlockLanes,
    held: Words,
    stretch: tuple[Ints, Ints, Ints, Words],
    piece_of: Ints,
    piece_block: Ints,
    first: Ints,
    length: Ints,
    partial: NDArray[np.bool_],
    short: NDArray[np.bool_],
) -> TileTable:
    """Tables from pieces: affine ones as they are, then for every block one gathered piece of all its short ones."""
    block, start, stop, word = stretch
    step, residue = lanes.step, lanes.residue
    in_short = short[piece_of]
    spread = np.flatnonzero(in_short)
    cols = expand(
        residue[block[spread]] + step[block[spread]] * start[spread], step[block[spread]], (stop - start)[spread]
    )
    gathered = np.unique(block[spread])
    keys = np.bincount(block[spread], (stop - start)[spread], step.size).astype(np.int64)[gathered]
    whole = np.bincount(block[spread], word[spread] != held[block[spread]], step.size)[gathered] == 0
    masked = np.flatnonzero(partial[piece_of] & ~in_short)
    bits = np.concatenate([np.repeat(word[s], (stop - start)[s]) for s in (masked, spread)])
    affine = np.flatnonzero(~short)
    place = exclusive_sum(np.where(partial[affine], length[affine], 0))
    mask = np.where(partial[affine], place[:-1], -1)
    begin = exclusive_sum(keys)
    piece = np.concatenate([
        np.stack([residue[piece_block[affine]] + step[piece_block[affine]] * first[affine],
                  step[piece_block[affine]], length[affine], mask], axis=1),
        np.stack([begin[:-1], np.zeros_like(keys), keys, np.where(whole, -1, place[-1] + begin[:-1])], axis=1),
    ])  # fmt: skip
    owner = np.concatenate([piece_block[affine], gathered])
    order = np.argsort(owner, kind="stable")
    block_ptr = exclusive_sum(np.bincount(owner, minlength=step.size))
    return TileTable(lanes.rows, block_ptr, np.ascontiguousarray(piece[order]), bits, cols)


def natural_cover(table: BandTable, chosen: NDArray[np.bool_], tile_q: int, tile_kv: int) -> TileTable:
    """Rows in their order; of ``table``'s runs the ``chosen`` ones, those with a step taken column by column."""
    lanes = arrange(np.zeros(table.shape[0], np.int64), 1, tile_q)
    per_band = np.diff(table.band_ptr)
    step, residue = np.repeat(table.step, per_band), np.repeat(table.residue, per_band)
    dense, strided = np.flatnonzero(chosen & (step == 1)), np.flatnonzero(chosen & (step > 1))
    count = (table.hi - table.lo)[strided]
    single = expand(residue[strided] + step[strided] * table.lo[strided], step[strided], count)
    row = np.concatenate([table.row[dense], np.repeat(table.row[strided], count)])
    return cover(
        lanes,
        row,
        np.concatenate([table.lo[dense], single]),
        np.concatenate([table.hi[dense], single + 1]),
        tile_q,
        tile_kv,
    )


def lattice_cover(table: BandTable, chosen: NDArray[np.bool_], step: int, tile_q: int, tile_kv: int) -> TileTable:
    """Rows in residue classes; the ``chosen`` runs have this ``step``, and every row at most one residue."""
    per_band = np.diff(table.band_ptr)
    residue_of_run = np.repeat(table.residue, per_band)
    taken = np.flatnonzero(chosen)
    residue = np.full(table.shape[0], -1)
    residue[table.row[taken]] = residue_of_run[taken]
    lanes = arrange(residue, step, tile_q)
    return cover(lanes, table.row[taken], table.lo[taken], table.hi[taken], tile_q, tile_kv)
