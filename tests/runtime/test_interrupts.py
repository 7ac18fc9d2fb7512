"""Ctrl-C in the first second of a process, as in a notebook, leaves a process that still compiles."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from splat_numba.runtime.cuda import build
from splat_numba.runtime.interrupts import uninterrupted
from tests.import_layers import REPOSITORY


@pytest.fixture(autouse=True)
def usual():
    """Python's own handler: a shell starts what it puts into the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# Modules in whose import Ctrl-C comes: the first of Numba itself, the second of its declarations.
INTERRUPTED = """
import importlib.abc, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)

class CtrlC(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name in waiting:
            waiting.remove(name)
            signal.raise_signal(signal.SIGINT)

waiting = ["numba.core.typing.typeof", "numba.np.arraymath"]
sys.meta_path.insert(0, CtrlC())
import numpy as np
import splat_numba as splat

x = np.ones((4, 8), np.float32)
while waiting:
    left = len(waiting)
    try:
        splat.attention(x, x, x, splat.causal())
    except KeyboardInterrupt:
        print("interrupted")
    assert len(waiting) < left
print(splat.attention(x, x, x, splat.causal()).sum())
"""


def test_what_is_interrupted_in_numba_s_first_second_compiles_afterwards():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPTED], capture_output=True, text=True, check=False,
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert (done.stdout.split(), done.returncode) == (["interrupted", "interrupted", "32.0"], 0), done.stderr[-2000:]


def test_ctrl_c_is_raised_when_all_is_done_and_the_handler_is_back():
    before, done = signal.getsignal(signal.SIGINT), []

    def work():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is before
    with uninterrupted():
        pass


def test_a_gpu_s_compiler_is_loaded_whole_too():
    done = []

    class Compiler:
        def check(self):
            signal.raise_signal(signal.SIGINT)

        def dialect(self):
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        build._intermediate(None, None, None, Compiler(), "ltoir")
    assert done == ["all"]


def test_other_threads_are_let_alone():
    found, before = [], signal.getsignal(signal.SIGINT)

    def work():
        with uninterrupted():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
