"""Which backend a call means."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from flurka_numba.executor import Executor
from flurka_numba.problem import Call
from splat_numba.arguments.backends import choose_backend
from splat_numba.runtime.graphs import stay_outside_graphs


def choose_executor(call: Call) -> Executor:
    """The backend of a call: with "auto", where q is. Raises BackendError for what this version has not."""
    stay_outside_graphs("flurka_numba")
    return EXECUTORS[choose_backend(call.backend, call.target, call.q)]()


# Each is imported when first wanted: an import statement takes half a microsecond at every call.


@cache
def _cpu() -> Executor:
    from flurka_numba.cpu.executor import CPU

    return CPU


@cache
def _cuda() -> Executor:
    from flurka_numba.gpu.executor import CUDA

    return CUDA


@cache
def _emulate() -> Executor:
    from flurka_numba.emulated.executor import EMULATED

    return EMULATED


EXECUTORS: dict[str, Callable[[], Executor]] = {"cpu": _cpu, "cuda": _cuda, "emulate": _emulate}
"""By backend, but "auto"."""
