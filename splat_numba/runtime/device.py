"""Facts of the machine that kernels run on."""

from __future__ import annotations

import os
from functools import lru_cache

from splat_numba.gen.machine import Machine


@lru_cache(maxsize=1)
def _vectors() -> tuple[int, int]:
    """(bytes of a vector register, number of them) of the host, as LLVM sees it."""
    from llvmlite import binding

    features = dict(binding.get_host_cpu_features())
    triple = binding.get_process_triple()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx"):
        return 32, 16
    return 16, 16 if triple.startswith(("x86_64", "i686")) else 32


def cores() -> int:
    """Threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return os.cpu_count() or 1


def machine(threads: int | None = None) -> Machine:
    """The host as the planner sees it; ``threads`` limits the cores."""
    vector_bytes, registers = _vectors()
    return Machine(vector_bytes, registers, threads or cores())
