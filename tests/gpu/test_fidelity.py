"""Every instruction on the GPU against the emulator; tests/emulator/test_fidelity.py does it with recorded answers."""

import os

import pytest

from tests.emulator.fidelity import emulate
from tests.emulator.fidelity_cases import CASES
from tests.gpu.fidelity_run import on_gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(os.environ.get("SPLAT_TEST_EMULATED") == "1", reason="the emulator against itself"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_emulator_does_what_the_hardware_does(case):
    case.agree(case, emulate(case), on_gpu(case))
