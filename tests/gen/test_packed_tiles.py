"""Rows in blocks of tiles: every pair of a covered row once, in its place; blocks as few and as full as may be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern, blocked, causal, strided, window
from splat_numba.gen.packed import tiles as packed_tiles
from splat_numba.gen.packed.lists import PackedLists
from splat_numba.gen.packed.problem import RunTable
from splat_numba.gen.packed.tiles import NO_ROW, TILE_PLACES, TILE_ROWS, PackedTiles
from splat_numba.testing import masks


def tiles_of(mask, seq_q, seq_kv):
    acsr = mask if isinstance(mask, ACSR) else None
    if acsr is None:
        acsr = ACSR.from_pattern(mask, seq_q, seq_kv) if isinstance(mask, Pattern) else ACSR.from_dense(mask)
    return acsr, PackedTiles.of(RunTable.of(acsr))


def pairs_of(tiles):
    """(row, column, place of its packed value) of every pair that a tile has and its row keeps."""
    found = []
    for number, (residue, step, low, count) in enumerate(tiles.blocks.astype(np.int64).tolist()):
        places = low + np.arange(count * TILE_PLACES)
        for row, base, begin, kept in tiles.rows[number * TILE_ROWS :][:TILE_ROWS].tolist():
            here = places[(places >= begin) & (places < begin + kept)]
            found += [(row, residue + step * place, (base + place) % 2**32) for place in here.tolist()]
    return found


@given(masks(90, 77), st.sampled_from([0.0, packed_tiles.LEAST_KEPT]))
def test_every_pair_of_a_covered_row_is_in_one_tile(mask, least):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_tiles, "LEAST_KEPT", least)
        acsr, tiles = tiles_of(mask, 90, 77)
    rows = np.repeat(np.arange(90), np.diff(RunTable.of(acsr).slot_ptr))
    wanted = zip(rows.tolist(), acsr.columns().tolist(), range(acsr.nnz), strict=True)
    assert sorted(pairs_of(tiles)) == [one for one in wanted if tiles.covered[one[0]]]
    assert tiles.pairs == tiles.covered[rows].sum()
    assert tiles.area == tiles.blocks[:, 3].sum() * TILE_ROWS * TILE_PLACES
    assert (np.diff(tiles.blocks[:, 3].astype(np.int64)) <= 0).all()
    listed = tiles.rows[:, 0]
    assert_array_equal(np.sort(listed[listed != NO_ROW]), np.flatnonzero(tiles.covered))
    single = np.diff(RunTable.of(acsr).run_ptr) == 1
    assert single[tiles.covered].all()
    if not least:
        assert tiles.covered[single].all()


@pytest.mark.parametrize(
    ("mask", "blocks", "kept"),
    [
        (strided(4), 4, 1.0),
        (causal(), 4, 0.8),
        (window(20), 4, 0.3),
        (blocked(64, 1), 4, 1.0),
        (blocked(30, 1), 5, 0.3),
    ],
    ids=str,
)
def test_rows_that_share_columns_share_tiles(mask, blocks, kept):
    """A residue class of strided(4) is one full block, where tiles of the mask as it stands keep a quarter."""
    _, tiles = tiles_of(mask, 256, 256)
    assert len(tiles.blocks) <= blocks
    assert tiles.pairs / tiles.area >= kept
    assert tiles.covered.all()


def test_rows_that_share_little_stay_by_themselves():
    """Rows of a few pairs far apart, and rows of several runs."""
    rng = np.random.default_rng(3)
    far = np.zeros((70, 4096), bool)
    far[np.arange(70), rng.integers(0, 4096, 70)] = True
    for mask in (far, strided(7) | window(3)):
        acsr, tiles = tiles_of(mask, *(far.shape if mask is far else (70, 70)))
        assert tiles.covered.sum() <= (0 if mask is far else 12)
        lists = PackedLists.of(RunTable.of(acsr))
        outside = lists.rows_outside(lists.tiles(TILE_ROWS))[:, 0]
        assert_array_equal(np.sort(outside), np.flatnonzero(~tiles.covered))


def test_the_transposed_mask_has_tiles_of_values_in_its_own_order():
    acsr = ACSR.from_pattern(causal(), 64, 64)
    lists = PackedLists.of(RunTable.transposed(acsr))
    tiles = lists.tiles(TILE_ROWS)
    assert lists.places is not None
    assert tiles.pairs == acsr.nnz
    assert_array_equal(tiles.rows[:, 3].astype(int), np.arange(64, 0, -1))
