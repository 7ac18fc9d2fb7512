"""Which executor runs a call, and the one that measures first."""

from __future__ import annotations

from functools import cache
from typing import Any

from splat_numba.arguments.backends import choose_backend
from splat_numba.errors import ArgumentError
from splat_numba.executors.executor import Executor
from splat_numba.runtime.graphs import stay_outside_graphs


def choose_executor(backend: str, target: str | None, q: Any = None) -> Executor:
    """The backend to run on: with "auto", where q is. Raises BackendError for what this version has not."""
    stay_outside_graphs("splat_numba")
    chosen = choose_backend(backend, target, q)
    if chosen == "cuda":
        return _cuda(target)
    if chosen == "emulate":
        from splat_numba.executors.emulated import EmulatedExecutor

        return EmulatedExecutor(target)
    from splat_numba.executors.cpu import CPU  # imports Numba (250 ms), which a GPU's kernel from disk does without

    return CPU


@cache
def _cuda(target: str | None) -> Executor:
    """Imported when first wanted: an import statement takes a microsecond at every call."""
    from splat_numba.executors.gpu import CudaExecutor

    return CudaExecutor(target)


def tuned(executor: Executor) -> Executor:
    """The executor that measures before it chooses. Raises ArgumentError for a backend that has none."""
    if executor.name == "emulate":
        raise ArgumentError(
            "autotune wanted with backend 'cuda' or 'cpu', whose plans it times, got backend 'emulate', whose time "
            "tells nothing. Leave autotune out, or give another backend."
        )
    return _tuned_cpu() if executor.name == "cpu" else _tuned(executor.target)


@cache
def _tuned(target: str | None) -> Executor:
    from splat_numba.executors.gpu_tuning import TunedExecutor

    return TunedExecutor(target)


@cache
def _tuned_cpu() -> Executor:
    from splat_numba.executors.cpu import CpuExecutor
    from splat_numba.executors.cpu_tuning import least_seconds

    return CpuExecutor(least_seconds)
