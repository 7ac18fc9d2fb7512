"""Which executor runs a call, and the one that measures first."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from splat_numba.arguments.backends import choose_backend
from splat_numba.executors.executor import Executor
from splat_numba.runtime.graphs import stay_outside_graphs


def choose_executor(backend: str, target: str | None, q: Any = None) -> Executor:
    """The backend to run on: with "auto", where q is. Raises BackendError for what this version has not."""
    stay_outside_graphs("splat_numba")
    return EXECUTORS[choose_backend(backend, target, q)](target)


def tuned(executor: Executor) -> Executor:
    """The executor that measures before it chooses. Raises ArgumentError for a backend that has none."""
    return executor.measured()


# Each is imported when first wanted, and remembered: an import statement takes a microsecond at every call.


@cache
def _cpu(target: str | None) -> Executor:
    from splat_numba.executors.cpu import (
        CpuExecutor,  # imports Numba (250 ms), which a GPU's kernel from disk does without
    )

    return CpuExecutor(target)


@cache
def _cuda(target: str | None) -> Executor:
    from splat_numba.executors.gpu import CudaExecutor

    return CudaExecutor(target)


@cache
def _emulate(target: str | None) -> Executor:
    from splat_numba.executors.emulated import EmulatedExecutor

    return EmulatedExecutor(target)


EXECUTORS: dict[str, Callable[[str | None], Executor]] = {"cpu": _cpu, "cuda": _cuda, "emulate": _emulate}
"""By backend, but "auto"."""
