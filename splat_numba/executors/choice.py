"""Which executor runs a call."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from splat_numba.arguments.backends import choose_backend, named
from splat_numba.arguments.precision import check_precision
from splat_numba.executors.executor import Executor
from splat_numba.executors.packed.machine import HostExecutor, HostMachine, PackedMachine
from splat_numba.gen.language.dtypes import IEEE
from splat_numba.runtime.graphs import stay_outside_graphs


def choose_executor(backend: str, target: str | None, q: Any = None, precision: str = IEEE) -> Executor:
    """The backend to run on: with "auto", where q is. Raises BackendError for what this version has not, ArgumentError
    for a precision that none has, or not this one.
    """
    stay_outside_graphs("splat_numba")
    found = EXECUTORS[choose_backend(backend, target, q)](named(target))
    return found if precision == IEEE else found.with_precision(check_precision(precision))


# Each is imported when first wanted, and remembered: an import statement takes a microsecond at every call.


@cache
def _cpu(target: str | None) -> Executor:
    from splat_numba.executors.cpu.executor import (
        CpuExecutor,  # imports Numba (250 ms), which planning for a GPU does without
    )

    return CpuExecutor(target)


@cache
def _cuda(target: str | None) -> Executor:
    from splat_numba.executors.gpu.executor import CudaExecutor

    return CudaExecutor(target)


@cache
def _emulate(target: str | None) -> Executor:
    from splat_numba.executors.emulated.executor import EmulatedExecutor

    return EmulatedExecutor(target)


EXECUTORS: dict[str, Callable[[str | None], Executor]] = {"cpu": _cpu, "cuda": _cuda, "emulate": _emulate}
"""By backend, but "auto"."""


def choose_packed(backend: str, name: str, first: Any) -> PackedMachine:
    """Where a packed operator runs whose first argument, of this name, is ``first``: with "auto", where that is.

    Raises BackendError, and what the argument is refused with where it is on a GPU.
    """
    stay_outside_graphs("splat_numba")
    chosen = choose_backend(backend, None, first)
    if chosen != "cuda" or isinstance(first, np.ndarray):
        return HostMachine(PACKED[chosen]())
    from splat_numba.executors.gpu.packed import GpuMachine

    return GpuMachine.of(name, first)


# Imported when first wanted, as the executors of attention are.


@cache
def _cpu_packed() -> HostExecutor:
    from splat_numba.executors.cpu.packed import CPU_PACKED

    return CPU_PACKED


@cache
def _cuda_packed() -> HostExecutor:
    from splat_numba.executors.gpu.packed import UPLOADING

    return UPLOADING


@cache
def _emulate_packed() -> HostExecutor:
    from splat_numba.executors.emulated.packed import EMULATED_PACKED

    return EMULATED_PACKED


PACKED: dict[str, Callable[[], HostExecutor]] = {
    "cpu": _cpu_packed, "cuda": _cuda_packed, "emulate": _emulate_packed,
}  # fmt: skip
"""What runs packed operators over NumPy's arrays, likewise."""
