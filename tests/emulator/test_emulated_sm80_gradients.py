"""Tiles of gradients by a warp's matrix products, run on NumPy, each against the oracle."""

from dataclasses import replace

import pytest

import splat_numba as splat
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.targets.gpu.gradient_kernels import ROUNDED, WHOLE
from splat_numba.gen.targets.sm80.backward import tile_shapes
from splat_numba.gen.targets.sm80.backward.shape import atoms_of
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.testing import Problem, check_gradients
from tests.gpu.device_views import forced_gradients

# Groups, columns, stages, head_dim: the wider one has sixteen rows a warp, the other one 32 where there are two groups.
SHAPES = ((1, 16, 1, 24), (1, 16, 2, 24), (1, 32, 2, 24), (1, 64, 2, 24), (2, 32, 2, 24), (2, 64, 2, 24),
          (2, 32, 2, 136), (2, 64, 2, 136))  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tile_shape(shape, monkeypatch):
    """Groups skip tiles that the other one wants, and have masks of their own."""
    groups, columns, stages, head_dim = shape
    boxes = Traits(head_dim, 24, "float16", groups, columns, stages, 1)
    for of in (QUERIES, KEYS):
        one = GradientTraits(boxes, of, WHOLE[of][0], ROUNDED, ragged=False)
        assert atoms_of(one) == (groups if head_dim == 24 else 1)
    problem = Problem(140, 135, splat.window(9), "float16", 1, 1, head_dim=boxes.head_dim, kv_lengths=(130,))
    of_queries = forced_gradients(monkeypatch, QUERIES, boxes, shapes=tile_shapes)
    with of_queries, forced_gradients(monkeypatch, KEYS, boxes, shapes=tile_shapes):
        check_gradients(replace(problem, value_dim=boxes.value_dim), backend="emulate", target="sm80")
