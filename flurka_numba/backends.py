"""Which backend a call means."""

from __future__ import annotations

from functools import cache
from typing import NoReturn

from flurka_numba.executor import Executor
from flurka_numba.problem import Call
from splat_numba.errors import BackendError
from splat_numba.runtime.arrays import on_gpu
from splat_numba.settings import current

BACKENDS = ("auto", "cpu", "cuda", "emulate")
CUDA_TARGETS = ("sm_90a", "sm_80", "simt")


def choose_executor(call: Call) -> Executor:
    """The backend of a call: with "auto", where q is. Raises BackendError for what this version has not."""
    backend, target = call.backend, call.target
    if backend not in BACKENDS:
        raise BackendError(
            f"backend wanted as one of {', '.join(BACKENDS)}, got {backend!r}. Leave it out to choose for you."
        )
    if backend == "emulate" or (backend == "cuda" and not on_gpu(call.q) and current().emulate):
        _check_cuda_target(backend, target)
        from flurka_numba.emulated.kernel import EMULATED

        return EMULATED
    if backend == "cuda" or (backend == "auto" and (on_gpu(call.q) or target in CUDA_TARGETS)):
        _check_cuda_target(backend, target)
        return _cuda()
    if target not in (None, "cpu"):
        raise BackendError(f"target wanted as None or 'cpu' for backend {backend!r}, got {target!r}. Leave it out.")
    from flurka_numba.cpu.kernel import CPU

    return CPU


@cache
def _cuda() -> Executor:
    """Imported when first wanted: an import statement takes half a microsecond at every call."""
    from flurka_numba.gpu.kernel import CUDA

    return CUDA


def _check_cuda_target(backend: str, target: str | None) -> None:
    if target not in (None, "sm_90a"):
        _refuse_target(backend, target)


def _refuse_target(backend: str, target: str | None) -> NoReturn:
    if target in CUDA_TARGETS:
        raise BackendError(
            f"target {target!r} is not in this version, which has 'sm_90a' (Hopper) alone. "
            "Leave target out, or give backend='cpu'."
        )
    raise BackendError(f"target wanted as None or 'sm_90a' for backend {backend!r}, got {target!r}. Leave it out.")
