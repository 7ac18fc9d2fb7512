"""Golden sources of kernels for FMA units: texts that are kept in files that people read.

After a change of the generator `python -m pytest tests/gen/test_simt_golden.py --update-golden` writes them anew; read
the difference before it is committed. A golden that is missing is a failure. tests/emulator runs texts like them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.targets.gpu.copying import CopyTraits, render_copy
from splat_numba.gen.targets.simt.attention import render_attention
from splat_numba.gen.targets.simt.backward.levels import LevelTraits, render_levels
from splat_numba.gen.targets.simt.backward.text import render_gradients
from splat_numba.gen.targets.simt.backward.traits import shared_bytes as gradient_bytes
from splat_numba.gen.targets.simt.packed.texts import render_fma_tiles, render_packed
from splat_numba.gen.targets.simt.shape import shared_bytes
from tests.gen.golden_text import ADVICE, golden
from tests.gen.simt_traits import GOLDEN, GOLDEN_GRADIENTS, GOLDEN_PACKED, GOLDEN_TILES

FOLDER = Path(__file__).parent / "golden_simt"

TEXTS = {name: partial(render_attention, one) for name, one in GOLDEN.items()}
TEXTS |= {name: partial(render_gradients, one) for name, one in GOLDEN_GRADIENTS.items()}
TEXTS |= {name: partial(render_packed, one) for name, one in GOLDEN_PACKED.items()}
TEXTS |= {name: partial(render_fma_tiles, one) for name, one in GOLDEN_TILES.items()}
TEXTS["copy"] = partial(render_copy, CopyTraits.of("int64", "int32"))
TEXTS["levels"] = partial(render_levels, LevelTraits(20, "float64"))


@pytest.mark.parametrize("name", TEXTS)
def test_the_source_is_the_golden_one(name, update_golden):
    text = TEXTS[name]()
    path = FOLDER / f"{name}.py"
    assert text == golden(path, text, update=update_golden), f"{path} differs. {ADVICE}"


def test_every_golden_file_has_its_traits():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(TEXTS)


def test_golden_kernels_fit_the_smallest_shared_memory():
    sizes = [shared_bytes(one) for one in GOLDEN.values()] + [gradient_bytes(one) for one in GOLDEN_GRADIENTS.values()]
    assert max(sizes) <= 64 << 10 < Gpu().shared_bytes
