"""Which backend a call means."""

from __future__ import annotations

from typing import Any

from splat_numba.errors import BackendError
from splat_numba.runtime.arrays import on_gpu
from splat_numba.settings import current

BACKENDS = ("auto", "cpu", "cuda", "emulate")
CUDA_TARGETS = ("sm_90a", "sm_80", "simt")


def choose_backend(backend: str, target: str | None, q: Any = None) -> str:
    """ "cpu", "cuda" or "emulate": with "auto", where q is. Raises BackendError for what this version has not."""
    if backend not in BACKENDS:
        raise BackendError(
            f"backend wanted as one of {', '.join(BACKENDS)}, got {backend!r}. Leave it out to choose for you."
        )
    if backend == "emulate" or (backend == "cuda" and not on_gpu(q) and current().emulate):
        _check_cuda_target(backend, target)
        return "emulate"
    if backend == "cuda" or (backend == "auto" and (on_gpu(q) or target in CUDA_TARGETS)):
        _check_cuda_target(backend, target)
        return "cuda"
    if target not in (None, "cpu"):
        raise BackendError(f"target wanted as None or 'cpu' for backend {backend!r}, got {target!r}. Leave it out.")
    return "cpu"


def _check_cuda_target(backend: str, target: str | None) -> None:
    if target in (None, "sm_90a"):
        return
    if target in CUDA_TARGETS:
        raise BackendError(
            f"target {target!r} is not in this version, which has 'sm_90a' (Hopper) alone. "
            "Leave target out, or give backend='cpu'."
        )
    raise BackendError(f"target wanted as None or 'sm_90a' for backend {backend!r}, got {target!r}. Leave it out.")
