"""Golden sources of the Hopper kernel: three texts, kept in files that people read.

After a change of the generator `python -m pytest tests/gen/test_sm90_golden.py --update-golden` writes them anew; read
the difference before it is committed. A golden that is missing is a failure. Whether they are right is for the tests of
tests/gpu to say, and whether they compile for test_sm90_build.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from splat_numba.gen.machine import Gpu
from splat_numba.gen.targets.sm90.attention import render_attention
from splat_numba.gen.targets.sm90.tile_shapes import feasible
from tests.gen.golden_text import ADVICE, golden
from tests.gen.sm90_traits import GOLDEN

FOLDER = Path(__file__).parent / "golden_sm90"


@pytest.mark.parametrize("name", GOLDEN)
def test_the_source_is_the_golden_one(name, update_golden):
    text = render_attention(GOLDEN[name])
    path = FOLDER / f"{name}.py"
    assert text == golden(path, text, update=update_golden), f"{path} differs. {ADVICE}"


def test_every_golden_file_has_its_traits():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_kernel_fits_the_gpu(name):
    assert feasible(GOLDEN[name], Gpu())
