"""Golden sources of Hopper's kernels, forward and of gradients: texts that are kept in files that people read.

After a change of the generator `python -m pytest tests/gen/test_sm90_golden.py --update-golden` writes them anew; read
the difference before it is committed. A golden that is missing is a failure. Whether they are right is for the tests of
tests/gpu to say, and whether they compile for test_sm90_build.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.targets.gpu.levels import LevelTraits, render_levels
from splat_numba.gen.targets.gpu.rounding import RoundTraits, render_rounding
from splat_numba.gen.targets.sm90.attention import render_attention
from splat_numba.gen.targets.sm90.backward import tile_shapes
from splat_numba.gen.targets.sm90.backward.text import render_gradients
from splat_numba.gen.targets.sm90.tile_shapes import feasible
from tests.gen.golden_text import ADVICE, golden
from tests.gen.sm90_traits import GOLDEN, GOLDEN_GRADIENTS

FOLDER = Path(__file__).parent / "golden_sm90"


TEXTS = {name: partial(render_attention, one) for name, one in GOLDEN.items()}
TEXTS |= {name: partial(render_gradients, one) for name, one in GOLDEN_GRADIENTS.items()}
TEXTS["levels"] = partial(render_levels, LevelTraits(80, "bfloat16", clears=True))
TEXTS["rounding"] = partial(render_rounding, RoundTraits(72, "float16"))


@pytest.mark.parametrize("name", TEXTS)
def test_the_source_is_the_golden_one(name, update_golden):
    text = TEXTS[name]()
    path = FOLDER / f"{name}.py"
    assert text == golden(path, text, update=update_golden), f"{path} differs. {ADVICE}"


def test_every_golden_file_has_its_traits():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(TEXTS)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_kernel_fits_the_gpu(name):
    assert feasible(GOLDEN[name], Gpu())


@pytest.mark.parametrize("name", GOLDEN_GRADIENTS)
def test_a_golden_kernel_of_gradients_fits_the_gpu(name):
    assert tile_shapes.feasible(GOLDEN_GRADIENTS[name], Gpu())
