"""Columns in blocks of tiles: every pair of a covered column once, where its row's packed values have it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern, blocked, causal, dilated, strided, window
from splat_numba.gen.packed import columns as packed_columns
from splat_numba.gen.packed.lists import PackedLists
from splat_numba.gen.packed.problem import RunTable
from splat_numba.gen.packed.tiles import NO_ROW, TILE_ROWS
from splat_numba.testing import masks
from tests.profiles import draws


def tiles_of(mask, seq_q, seq_kv, size=64):
    acsr = mask if isinstance(mask, ACSR) else None
    if acsr is None:
        acsr = ACSR.from_pattern(mask, seq_q, seq_kv) if isinstance(mask, Pattern) else ACSR.from_dense(mask)
    return acsr, PackedLists.of(RunTable.transposed(acsr)).column_tiles(size)


def pairs_of(tiles):
    """(row, column, place of its packed value) of every pair that a tile has and its row keeps."""
    found = []
    for residue, step, first, count, at, *_ in tiles.blocks.tolist():
        places = first + np.arange(tiles.size)
        for row, base, begin, kept in tiles.rows[at : at + TILE_ROWS * count].tolist():
            here = places[(places >= begin) & (places < begin + kept)]
            found += [(row, residue + step * place, (base + place) % 2**32) for place in here.tolist()]
            assert row != NO_ROW or not kept
    return found


@settings(max_examples=draws(40))
@given(st.data())
def test_every_pair_of_a_covered_column_is_in_one_tile(data):
    """Whatever stands in the list behind a lattice's rows is nobody's."""
    mask, size = data.draw(masks(90, 77)), data.draw(st.sampled_from([8, 64]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_columns, "LEAST_KEPT", data.draw(st.sampled_from([0.0, packed_columns.LEAST_KEPT])))
        acsr, tiles = tiles_of(mask, 90, 77, size)
    rows = np.repeat(np.arange(90), np.diff(RunTable.of(acsr).slot_ptr))
    wanted = zip(rows.tolist(), acsr.columns().tolist(), range(acsr.nnz), strict=True)
    assert sorted(pairs_of(tiles)) == [one for one in wanted if tiles.covered[one[1]]]
    assert tiles.pairs == tiles.covered[acsr.columns()].sum()
    assert (np.diff(tiles.blocks[:, 3].astype(np.int64)) <= 0).all()
    for least in (0.2, 0.9):
        denser = tiles.denser(least)
        assert set(pairs_of(denser)) <= set(pairs_of(tiles))
        assert denser.pairs >= least * denser.area
        assert denser.covered[[column for _, column, _ in pairs_of(denser)]].all()


@pytest.mark.parametrize(
    ("mask", "tiles", "kept"),
    [
        (strided(4), 4, 1.0), (causal(), 10, 0.8), (blocked(64, 1), 7, 1.0), (dilated(20, 4), 8, 0.35),
        (window(40), 10, 0.4),
    ],
    ids=str,
)  # fmt: skip
def test_rows_that_share_columns_share_tiles(mask, tiles, kept):
    _, found = tiles_of(mask, 256, 256)
    assert found.covered.all()
    assert found.tiles <= tiles
    assert found.pairs / found.area >= kept


def test_columns_that_other_rows_keep_too_are_in_no_block():
    """A row of two runs keeps the first columns; a row on another lattice one of the last."""
    mask = abs(np.arange(192)[:, None] - np.arange(192)) <= 30
    mask[0, 60], mask[191] = True, np.arange(192) % 50 == 0
    _, tiles = tiles_of(mask, 192, 192)
    assert tiles.covered.nonzero()[0].tolist() == []
    mask[191] = np.arange(192) == 191
    _, tiles = tiles_of(mask, 192, 192)
    assert tiles.covered.nonzero()[0].tolist() == list(range(64, 192))
