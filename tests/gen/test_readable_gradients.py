"""Texts of gradients, of every target for GPUs, are read as tiles: short functions of few levels."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kernels import ADDED, FINISHED, NOWHERE, READ, ROUNDED, STAGED, WRITTEN
from splat_numba.gen.targets.simt.backward import text as simt
from splat_numba.gen.targets.simt.backward.tile_shapes import candidates as simt_candidates
from splat_numba.gen.targets.simt.backward.traits import GradientTraits as SimtTraits
from splat_numba.gen.targets.sm80.backward import reading as sm80_reading
from splat_numba.gen.targets.sm80.backward import text as sm80
from splat_numba.gen.targets.sm80.backward.tile_shapes import candidates as sm80_candidates
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits as Sm80Traits
from splat_numba.gen.targets.sm90.backward import text as sm90
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates as sm90_candidates
from splat_numba.gen.targets.sm90.backward.traits import BackwardTraits
from tests.gen.shape_of_text import unreadable
from tests.profiles import draws

HALVES = ("float16", "bfloat16")
DTYPES = {"sm90": HALVES, "sm80": (*HALVES, "float32"), "simt": (*HALVES, "float32", "float64")}
CANDIDATES = {"sm90": sm90_candidates, "sm80": sm80_candidates, "simt": simt_candidates}
STORED = st.sampled_from([ROUNDED, STAGED, ADDED, FINISHED])


@st.composite
def texts(draw, target):
    """A text of gradients of this target, with tiles that it would try."""
    head_dim, value_dim = (draw(st.sampled_from([1, 17, 20, 40, 64, 80, 128, 160])) for _ in range(2))
    problem = Problem(100, 100, head_dim, value_dim, draw(st.sampled_from(DTYPES[target])), 1, 2, 2)
    of = draw(st.sampled_from([QUERIES, KEYS]))
    tiles, kernels = CANDIDATES[target](problem, of, Gpu())
    wanted, ragged = draw(st.sampled_from([*kernels, *((name,) for name in kernels[0])])), draw(st.booleans())
    partial, skips, negate = (draw(st.booleans()) for _ in range(3))
    boxes = replace(draw(st.sampled_from(tiles)), partial=partial, skips=partial and skips, negate=negate)
    if target == "simt":
        added, clears = (draw(st.booleans()) for _ in range(2))
        return simt.render_gradients(SimtTraits(boxes, of, wanted, problem.dtype, added, ragged, clears))
    kept = draw(st.sampled_from([NOWHERE, READ if of == QUERIES else WRITTEN])) if boxes.tile_kv == 64 else NOWHERE
    kept = NOWHERE if problem.dtype == "float32" else kept
    padded = kept == WRITTEN and draw(st.booleans())
    if target == "sm80":
        traits = Sm80Traits(boxes, of, wanted, draw(STORED), ragged and not kept, kept, padded)
        return sm80_reading.render_reading(traits) if kept == READ else sm80.render_gradients(traits)
    return sm90.render_gradients(BackwardTraits(boxes, of, wanted, draw(STORED), ragged and not kept, kept, padded))


@pytest.mark.parametrize("target", CANDIDATES)
@settings(max_examples=draws(40))
@given(data=st.data())
def test_every_text_of_gradients_is_readable(target, data):
    assert unreadable(data.draw(texts(target))) == []
