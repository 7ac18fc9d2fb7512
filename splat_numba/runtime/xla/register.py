"""Programs under names that XLA finds them by. A name has the hash of what the program does.

JAX's persistent compilation cache keeps names, and another process must find the same program under one.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from splat_numba.runtime.xla.program import LoadedProgram, Program
from splat_numba.settings import Settings


class Loaded(Protocol):
    """A program in memory."""

    address: int
    """Of the C function that XLA calls."""


_registered: dict[str, Loaded] = {}
_lock = threading.Lock()


def target_of(label: str, program: Program, settings: Settings, threads: int) -> str:
    """The name under which XLA's CPU calls the program, from now on. label: what it is, for profiles and messages.

    Raises CompileError where the handler cannot be compiled.
    """
    return named(label, program.digest(), "cpu", lambda: LoadedProgram(program, settings, threads))


def named(label: str, digest: str, platform: str, load: Callable[[], Loaded]) -> str:
    """The name of a program with this hash on one of XLA's platforms; loaded where the name is new."""
    name = f"{label}_{digest}"
    with _lock:
        if name not in _registered:
            loaded = load()
            _keep_for_good(loaded)
            sys.modules["jax"].ffi.register_ffi_target(name, _capsule(loaded.address), platform=platform)
            _registered[name] = loaded
    return name


def _keep_for_good(loaded: Loaded) -> None:
    """XLA never forgets a name, and its own threads may be within a call while Python ends and empties our modules: a
    program whose memory was given away might wait there for ever, and XLA for it.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(loaded))


def _capsule(address: int) -> object:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    found: object = new(address, None, None)
    return found
