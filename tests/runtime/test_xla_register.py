"""Programs that XLA knows by name stay in memory, whatever becomes of our modules."""

import gc
import sys
import weakref
from types import SimpleNamespace

import pytest

from splat_numba.runtime.xla import register


class Loaded:
    address = 4096


@pytest.fixture
def registered(monkeypatch):
    """The names that XLA was told."""
    found = []
    ffi = SimpleNamespace(register_ffi_target=lambda name, _capsule, platform: found.append((name, platform)))
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(ffi=ffi))
    monkeypatch.setattr(register, "_registered", {})
    return found


def test_a_program_is_loaded_once_and_never_given_away(registered):
    one = Loaded()
    seen = weakref.ref(one)
    assert register.named("call", "123", "CUDA", lambda: one) == "call_123"
    assert register.named("call", "123", "CUDA", Loaded) == "call_123"
    assert registered == [("call_123", "CUDA")]
    one = None
    register._registered.clear()  # as when Python ends
    gc.collect()
    assert seen() is not None
