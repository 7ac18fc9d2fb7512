"""Three whole texts of the GPU's stages, kept in files that people read. test_build compiles their like.

After a change of the emitters `python -m pytest tests/flurka/targets/sm90/test_golden.py --update-golden` writes
them anew.
"""

from pathlib import Path

import pytest

from flurka_numba.gpu.gradient_plan import gradient_plan
from flurka_numba.gpu.plan import forward_plan
from splat_numba.gen.plans.machine import Gpu
from tests.flurka.targets.sm90.test_build import problem
from tests.gen.golden_text import golden

FOLDER = Path(__file__).parent / "golden"
PLANS = {
    "slot_state": forward_plan(problem(rank=128), Gpu().multiprocessors),
    "apply": forward_plan(problem(), Gpu().multiprocessors),
    "gradients": gradient_plan(problem("kernel"), Gpu().multiprocessors),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_source_is_the_golden_one(name, update_golden):
    text = next(stage for stage in PLANS[name].stages if stage.text.entry.name == name).text.render()
    path = FOLDER / f"{name}.txt"
    assert text == golden(path, text, update=update_golden), (
        f"{path} differs: read the difference, then --update-golden"
    )


def test_every_golden_file_has_its_plan():
    assert {path.stem for path in FOLDER.glob("*")} == set(PLANS)
