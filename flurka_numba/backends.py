"""Which backend a call means."""

from __future__ import annotations

from functools import cache

from flurka_numba.executor import Executor
from flurka_numba.problem import Call
from splat_numba.arguments.backends import choose_backend
from splat_numba.errors import BackendError
from splat_numba.runtime.graphs import stay_outside_graphs

TARGET = "sm_90a"  # what its GPU texts are written for


def choose_executor(call: Call) -> Executor:
    """The backend of a call: with "auto", where q is. Raises BackendError for what this version has not."""
    stay_outside_graphs("flurka_numba")
    chosen = choose_backend(call.backend, call.target, call.q)
    if chosen != "cpu" and call.target not in (None, TARGET):  # another that splat_numba has
        raise BackendError(f"target wanted as None or {TARGET!r} in flurka_numba, got {call.target!r}. Leave it out.")
    if chosen == "cuda":
        return _cuda()
    if chosen == "emulate":
        from flurka_numba.emulated.executor import EMULATED

        return EMULATED
    from flurka_numba.cpu.executor import CPU

    return CPU


@cache
def _cuda() -> Executor:
    """Imported when first wanted: an import statement takes half a microsecond at every call."""
    from flurka_numba.gpu.executor import CUDA

    return CUDA
