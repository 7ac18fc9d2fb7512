"""Facts of the machine that kernels run on."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

from splat_numba.gen.plans.machine import Machine
from splat_numba.runtime.threads import MOST_THREADS


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


def name() -> str:
    """The processor as LLVM calls it."""
    from llvmlite import binding

    return str(binding.get_host_cpu_name())


def cores() -> int:
    """Threads that are worth running here: the processors that this process may use, or the share of them that its
    control groups grant, rounded up.

    Limits that other libraries keep for themselves (OMP_NUM_THREADS, threadpoolctl's) are theirs: SPLAT_NUM_THREADS is
    the one for ours.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = quota()
    return max(allowed if granted is None else min(allowed, math.ceil(granted)), 1)


@lru_cache(maxsize=8)  # files are read once: a launch is not worth a dozen system calls
def quota(root: Path = Path("/")) -> float | None:
    """Processors that the control groups of this process grant, the least of all groups up to the root; None: any.

    root: where /proc and /sys are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None  # not Linux
    granted = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" or "cpu" in controllers.split(","):
            base = root / "sys/fs/cgroup" / controllers  # version 2 has no controllers there, and no folder of theirs
            group = Path(name.lstrip("/"))  # a container may see its host's name: then only the root is there
            granted += [share for one in (group, *group.parents) if (share := _share(base / one)) is not None]
    return min(granted, default=None)


def _share(group: Path) -> float | None:
    """What one control group grants: cpu.max of version 2, or the two files of version 1; None: no limit."""
    try:
        if (file := group / "cpu.max").exists():
            limit, period = file.read_text(encoding="utf-8").split()
        else:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        share = int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such file
        return None
    return share if share > 0 else None  # -1 is no limit in version 1


def machine(threads: int | None = None) -> Machine:
    """The host as the planner sees it; ``threads`` limits the cores."""
    vector_bytes, registers = _vectors()
    return Machine(vector_bytes, registers, min(threads, MOST_THREADS) if threads else cores())
