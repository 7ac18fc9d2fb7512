"""Texts of attention and of packed operators, for every kind of GPU, are read as tiles: short functions of few levels.

Gradients' stand in test_readable_gradients.py, flurka_numba's in tests/flurka/targets/test_readable.py, those for CPUs
in test_source.py.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.tiled_operator import FAMILIES
from splat_numba.gen.targets.packed import REAL_DIMS
from splat_numba.gen.targets.simt.attention import render_attention as render_simt
from splat_numba.gen.targets.simt.packed.texts import PAGES, render_fma_tiles, render_packed
from splat_numba.gen.targets.simt.packed.tile_traits import FmaTraits
from splat_numba.gen.targets.simt.packed.traits import HELD, PackedTraits
from splat_numba.gen.targets.simt.tile_shapes import candidates as simt_candidates
from splat_numba.gen.targets.sm80.attention import render_attention as render_sm80
from splat_numba.gen.targets.sm80.packed.texts import render_tiled
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits
from splat_numba.gen.targets.sm80.tile_shapes import candidates as sm80_candidates
from tests.gen.shape_of_text import unreadable
from tests.profiles import draws

DTYPES = ("float16", "bfloat16", "float32", "float64")
RENDERED = {
    "sm80": (render_sm80, sm80_candidates, DTYPES[:3]),
    "simt": (render_simt, simt_candidates, DTYPES),
}
DIMS = (20, 64, 256)


@pytest.mark.parametrize("target", RENDERED)
@settings(max_examples=draws(40))
@given(data=st.data())
def test_every_text_of_attention_is_readable(target, data):
    """Hopper's stand in test_sm90_source.py."""
    render, candidates, dtypes = RENDERED[target]
    dims = data.draw(st.tuples(*(st.sampled_from([1, 17, 20, 40, 64, 80, 128]),) * 2))
    traits = data.draw(
        st.sampled_from(candidates(Problem(100, 100, *dims, data.draw(st.sampled_from(dtypes)), 1, 2, 2), Gpu()))
    )
    names = ("partial", "resumes", "hands_on", "ragged", "negate")
    options = {name: data.draw(st.booleans(), name) for name in names}
    assert unreadable(render(replace(traits, skips=options["partial"], **options))) == []


def packed_texts():
    """(name, text) of every family and type, and all that a family distinguishes."""
    for dtype, dim, flags in product(DTYPES, DIMS, product((False, True), repeat=3)):
        options = dict(zip(("listed", "placed", "partial"), flags, strict=True))
        for family in PAGES.keys() - {"softmax", "softmax_backward"}:
            yield family, render_packed(PackedTraits(family, dtype, dim, **options))
    for dtype, family, placed in product(DTYPES, ("softmax", "softmax_backward"), (False, True)):
        yield family, render_packed(PackedTraits(family, dtype, placed=placed))
        for sharing, held in HELD if dtype != "float64" else ():
            yield family, render_packed(PackedTraits(family, dtype, held=held, sharing=sharing))
    for family, dim in product(FAMILIES, DIMS):
        for dtype in ("float32", "float64"):
            yield f"{family}, FMA units", render_fma_tiles(FmaTraits(family, dtype, dim))
        for dtype in DTYPES[: 3 if REAL_DIMS[0] <= dim <= REAL_DIMS[1] else 2]:
            for rows in TiledTraits(family, dtype, dim).sizes:
                yield f"{family}, tensor cores", render_tiled(TiledTraits(family, dtype, dim, rows))


def test_every_text_of_packed_operators_is_readable():
    assert [(name, one) for name, text in packed_texts() for one in unreadable(text)] == []


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("golden*/*.py")), ids=lambda path: path.stem)
def test_every_text_that_people_read_is_readable(path):
    assert unreadable(path.read_text(encoding="utf-8")) == []
