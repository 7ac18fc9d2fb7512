"""Forking while another thread compiles: the child would wait for ever on a lock whose holder it does not have.

So a fork waits for the compilers: a child begins with their locks free and their state whole. Where one takes too long
the fork goes on, and a child that wants to compile is told why it cannot.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

from splat_numba.errors import CompileError

PATIENCE = 60.0  # seconds that a fork waits for a compiler: few kernels take ten
# Of Numba for CPUs, of the CUDA compiler, and of LLVM, which both call, in the order in which compiling takes them.
LOCKS = (
    ("numba.core.compiler_lock", "global_compiler_lock._lock"),
    ("numba.cuda.core.compiler_lock", "_numba_cuda_compiler_lock._lock"),
    ("numba_cuda_mlir.numba_cuda.core.compiler_lock", "_numba_cuda_compiler_lock._lock"),
    ("llvmlite.binding.ffi", "lib._lock._lock"),
)

_held: list[Any] = []
_missed: list[str] = []  # at this fork
_stuck: list[str] = []  # of this process, for good


@cache
def prepare() -> None:
    """Have every later fork of this process wait for the compilers."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_release, after_in_child=_after_in_child)


def check_compiler() -> None:
    """Raise CompileError in a process that was forked in the middle of a compilation."""
    if _stuck:
        raise CompileError(
            "kernel cannot be compiled in this process: it was forked while another thread compiled, and has that "
            "thread's lock but not the thread. Compile before forking, or start processes by 'spawn' or 'forkserver'."
        )


def _before() -> None:
    if _stuck:  # the locks will never be free again
        return
    for module, path in LOCKS:
        lock: Any = sys.modules.get(module)
        for name in path.split("."):
            lock = getattr(lock, name, None)
        if lock is not None:
            if lock.acquire(timeout=PATIENCE):
                _held.append(lock)
            else:
                _missed.append(module)


def _release() -> None:
    while _held:
        _held.pop().release()
    _missed.clear()


def _after_in_child() -> None:
    _stuck.extend(_missed)
    _release()
