"""A process forked while another thread compiles can compile, or is told why not; it never waits for ever."""

import os
import subprocess
import sys

import pytest

from tests.import_layers import REPOSITORY

CHILD = """
import os, sys, threading, time
from numba.core.compiler_lock import global_compiler_lock
from splat_numba.errors import CompileError
from splat_numba.runtime import fork
from splat_numba.runtime.compile import compile_source
from splat_numba.settings import Settings
from tests.runtime.kernel_texts import SIGNATURES, times

def run(factor):
    return compile_source(times(factor), SIGNATURES, Settings(cache=False)).functions["run"](5)

assert run(2) == 10

def in_child(work):
    child = os.fork()
    if child == 0:
        os._exit(work())
    status = None
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(child, 9)
    return "it waits for ever"

started, stop = threading.Event(), threading.Event()
def compiling():
    with global_compiler_lock:
        started.set()
        stop.wait(30)

threading.Thread(target=compiling).start()
started.wait()
fork.PATIENCE = 0.1  # the other thread is slow
def told():
    try:
        run(3)
    except CompileError as error:
        return 0 if "it was forked while another thread compiled" in str(error) else 2
    return 3
print(in_child(told))
fork.PATIENCE = 60.0
threading.Timer(0.2, stop.set).start()
print(in_child(lambda: 0 if run(4) == 20 else 4))
assert run(6) == 30  # the parent has its locks back
print(in_child(lambda: 0 if run(7) == 35 else 5))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_compiles_or_is_told_why_it_cannot():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD], capture_output=True, text=True, check=False, cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert (done.stdout.split(), done.returncode) == (["0", "0", "0"], 0), done.stderr
