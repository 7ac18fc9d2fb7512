"""SPLAT_TEST_EMULATED=1 runs the GPU tests on the emulated GPU: slow, so choose small ones with -k."""

import os

import pytest

from tests.emulator.emulated_gpu import emulated, forget_emulated


@pytest.fixture(autouse=True)
def _emulated_if_asked(monkeypatch):
    if os.environ.get("SPLAT_TEST_EMULATED") != "1":
        yield
        return
    emulated(monkeypatch)
    yield
    forget_emulated()
