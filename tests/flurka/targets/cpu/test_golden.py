"""Two whole texts, kept in files that people read: one forward, one of gradients. test_api_* run their like.

After a change of the emitters `python -m pytest tests/flurka/targets/cpu/test_golden.py --update-golden` writes
them anew.
"""

from pathlib import Path

import pytest

from flurka_numba.targets.cpu.text import render
from tests.flurka.targets.cpu.plans import plan_of
from tests.gen.golden_text import golden

FOLDER = Path(__file__).parent / "golden"
GOLDEN = {
    "flurka_elu": plan_of("flurka", "elu"),
    "kernel_favor_gradient": plan_of("kernel", "favor", "float16", ("q", "keys", "values")),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_source_is_the_golden_one(name, update_golden):
    text = render(GOLDEN[name])
    path = FOLDER / f"{name}.txt"
    assert text == golden(path, text, update=update_golden), (
        f"{path} differs: read the difference, then --update-golden"
    )


def test_every_golden_file_has_its_plan():
    assert {path.stem for path in FOLDER.glob("*")} == set(GOLDEN)
