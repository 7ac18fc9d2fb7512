"""Which backend a call means."""

from __future__ import annotations

from typing import Any, NoReturn

from splat_numba.errors import BackendError
from splat_numba.plain import shown
from splat_numba.runtime.arrays import on_gpu
from splat_numba.settings import current

BACKENDS = ("auto", "cpu", "cuda", "emulate")
CUDA_TARGETS = ("sm_90a", "sm_80", "simt")


def choose_backend(backend: str, target: str | None, q: Any = None) -> str:
    """ "cpu", "cuda" or "emulate": with "auto", where q is. Raises BackendError for what this version has not."""
    if not isinstance(backend, str) or backend not in BACKENDS:  # a list is not comparable with some, and not hashable
        raise BackendError(
            f"backend wanted as one of {', '.join(BACKENDS)}, got {shown(backend)}. Leave it out to choose for you."
        )
    if not (target is None or isinstance(target, str)):
        _refuse(backend, target, "cpu")
    if backend == "emulate" or (backend == "cuda" and not on_gpu(q) and current().emulate):
        _check_target(backend, target, "sm_90a")
        return "emulate"
    if backend == "cuda" or (backend == "auto" and (on_gpu(q) or target in CUDA_TARGETS)):
        _check_target(backend, target, "sm_90a")
        return "cuda"
    _check_target(backend, target, "cpu")
    return "cpu"


def _check_target(backend: str, target: str | None, only: str) -> None:
    if target in (None, only):
        return
    if only != "cpu" and target in CUDA_TARGETS:
        raise BackendError(
            f"target {target!r} is not in this version, which has 'sm_90a' (Hopper) alone. "
            "Leave target out, or give backend='cpu'."
        )
    _refuse(backend, target, only)


def _refuse(backend: str, target: object, only: str) -> NoReturn:
    raise BackendError(f"target wanted as None or {only!r} for backend {backend!r}, got {shown(target)}. Leave it out.")
