"""Golden sources of kernels for a warp's matrix products: texts that are kept in files that people read.

After a change of the generator `python -m pytest tests/gen/test_sm80_golden.py --update-golden` writes them anew; read
the difference before it is committed. A golden that is missing is a failure. tests/emulator runs texts like them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from splat_numba.gen.plans.machine import SHARED_BYTES
from splat_numba.gen.targets.sm80.attention import render_attention
from splat_numba.gen.targets.sm80.backward.reading import render_reading
from splat_numba.gen.targets.sm80.backward.shape import shared_bytes as gradient_bytes
from splat_numba.gen.targets.sm80.backward.text import render_gradients
from splat_numba.gen.targets.sm80.packed.texts import render_tiled
from splat_numba.gen.targets.sm80.shape import shared_bytes
from splat_numba.gen.targets.sm80.target import SM80
from tests.gen.golden_text import ADVICE, golden
from tests.gen.sm80_traits import GOLDEN, GOLDEN_GRADIENTS, GOLDEN_READING, GOLDEN_TILED

FOLDER = Path(__file__).parent / "golden_sm80"
TEXTS = {name: partial(render_attention, one) for name, one in GOLDEN.items()}
TEXTS |= {name: partial(render_gradients, one) for name, one in GOLDEN_GRADIENTS.items()}
TEXTS |= {name: partial(render_reading, one) for name, one in GOLDEN_READING.items()}
TEXTS |= {name: partial(render_tiled, one) for name, one in GOLDEN_TILED.items()}


@pytest.mark.parametrize("name", TEXTS)
def test_the_source_is_the_golden_one(name, update_golden):
    text = TEXTS[name]()
    path = FOLDER / f"{name}.py"
    assert text == golden(path, text, update=update_golden), f"{path} differs. {ADVICE}"


def test_every_golden_file_has_its_traits():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(TEXTS)


def test_golden_kernels_fit_every_chip():
    smallest = min(SHARED_BYTES[one] for one in SM80.capabilities)
    sizes = [shared_bytes(one) for one in GOLDEN.values()] + [one.shared_bytes for one in GOLDEN_TILED.values()]
    sizes += [gradient_bytes(one) for one in GOLDEN_GRADIENTS.values()]
    assert max(sizes) <= smallest
