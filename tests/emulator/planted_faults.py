"""A fault planted in the texts that a call runs: it must be found by a wrong number or by the emulator itself."""

import re
import traceback

import pytest

from splat_numba.errors import EmulationError
from tests.emulator.emulated_gpu import emulated, forget_emulated


def run(monkeypatch, check, change, late):
    """check() twice on the emulated GPU, every text changed. The second call finds what the first leaves behind."""
    with monkeypatch.context() as patch:
        emulated(patch, late=late, change=change)
        try:
            for _ in range(2):
                check()
        except (AssertionError, EmulationError) as error:
            traceback.clear_frames(error.__traceback__)  # whose arrays are given back while the driver is there
            raise
        finally:
            forget_emulated()


def check_found(monkeypatch, check, pattern, replacement):
    """The fault is found, with copies that land late or at once; some text must have what it changes."""
    met = set()

    def change(text):
        changed = re.sub(pattern, replacement, text)
        met.add(changed != text)
        return changed

    with pytest.raises((AssertionError, EmulationError)):  # noqa: PT012 - by either of the two
        run(monkeypatch, check, change, late=True)
        run(monkeypatch, check, change, late=False)
    assert True in met, "no text has what this test changes"
