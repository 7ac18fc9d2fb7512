"""Blocks of 128 queries by a warp's matrix products, run on NumPy: with two sixteens of rows a warp, or more warps."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import splat_numba as splat
from splat_numba import reference
from splat_numba.gen.plans.machine import gpu_of
from splat_numba.gen.plans.problem import Problem as Sizes
from splat_numba.gen.targets.sm80 import tile_shapes
from splat_numba.gen.targets.sm80.shape import atoms_of
from splat_numba.gen.targets.sm80.tile_shapes import candidates
from splat_numba.testing import Problem, check_attention
from tests.gpu.device_views import forced


def shapes():
    """The tiles of 128 queries, whose warps have two sixteens of rows, or are twice as many."""
    for dims in ((24, 24), (24, 200)):
        found = candidates(Sizes(64, 64, *dims, "float16"), gpu_of((8, 0)))
        for one in [one for one in found if one.groups == 2][:2]:
            yield pytest.param(one, id=f"{dims[1]}-{one.tile_kv}-{atoms_of(one)}")


@pytest.mark.parametrize("traits", list(shapes()))
def test_blocks_of_128_queries(traits, monkeypatch):
    """Groups skip tiles that the other one wants, and have masks of their own."""
    problem = Problem(150, 150, splat.window(20), "float16", 2, 1, head_dim=24, kv_lengths=(150, 70))
    for one in (problem, replace(problem, mask=splat.full(), seq_kv=2 * traits.tile_kv, batch=1, kv_lengths=None)):
        with forced(monkeypatch, traits, shapes=tile_shapes):
            check_attention(replace(one, value_dim=traits.value_dim), backend="emulate", target="sm80")


def test_both_numbers_of_sixteens_are_tried():
    assert {atoms_of(shape.values[0]) for shape in shapes()} == {1, 2}


@pytest.mark.parametrize(("spread", "minus_inf"), [(30.0, 0.0), (30.0, 0.9)])
def test_peaks_that_rise_in_tiles_without_a_mask(spread, minus_inf):
    """Their weights would not be finite relative to the peaks that stand, of which the first is none."""
    problem = Problem(70, 270, splat.full(), "float16", 1, 1, head_dim=16, spread=spread, minus_inf=minus_inf)
    check_attention(problem, backend="emulate", target="sm80")


def test_a_row_of_nan_leaves_its_neighbours_alone():
    q, k, v = Problem(70, 270, splat.full(), "float16", 1, 1, head_dim=16).arrays()
    q[0, 0, 3] = np.nan
    out = splat.attention(q, k, v, splat.full(), backend="emulate", target="sm80")
    wanted = reference.attention(q, k, v, np.ones((70, 270), np.bool_))
    assert np.isnan(out[0, 0, 3]).all()
    others = np.arange(70) != 3
    assert_allclose(out[0, 0, others].astype(np.float32), wanted[0, 0, others], atol=2e-3)
