"""Which backend a call means."""

from __future__ import annotations

from typing import Any, NoReturn

from splat_numba.errors import BackendError
from splat_numba.plain import shown
from splat_numba.runtime.arrays import on_gpu
from splat_numba.settings import current

BACKENDS = ("auto", "cpu", "cuda", "emulate")
PLANNED = ("sm_80",)  # targets of GPUs that a later version has


def choose_backend(backend: str, target: str | None, q: Any = None) -> str:
    """ "cpu", "cuda" or "emulate": with "auto", where q is. Raises BackendError for what this version has not."""
    if not isinstance(backend, str) or backend not in BACKENDS:  # a list is not comparable with some, and not hashable
        raise BackendError(
            f"backend wanted as one of {', '.join(BACKENDS)}, got {shown(backend)}. Leave it out to choose for you."
        )
    if not (target is None or isinstance(target, str)):
        _refuse(backend, target, ("cpu",))
    if backend == "emulate" or (backend == "cuda" and not on_gpu(q) and current().emulate):
        _check_gpu_target(backend, target)
        return "emulate"
    if backend == "cuda" or (backend == "auto" and (on_gpu(q) or _is_gpu_target(target))):
        _check_gpu_target(backend, target)
        return "cuda"
    if target not in (None, "cpu"):
        _refuse(backend, target, ("cpu",))
    return "cpu"


def _is_gpu_target(target: str | None) -> bool:
    if target is None:
        return False
    from splat_numba.gen.targets.registry import GPU_TARGETS  # 77 ms of planners, which few calls want this early

    return target in PLANNED or target in GPU_TARGETS


def _check_gpu_target(backend: str, target: str | None) -> None:
    if target is None:
        return
    from splat_numba.gen.targets.registry import GPU_TARGETS, gpu_target

    if not _is_gpu_target(target):
        _refuse(backend, target, tuple(GPU_TARGETS))
    gpu_target(target)


def _refuse(backend: str, target: object, names: tuple[str, ...]) -> NoReturn:
    *first, last = ("None", *map(repr, names))
    wanted = f"{', '.join(first)} or {last}"
    raise BackendError(f"target wanted as {wanted} for backend {backend!r}, got {shown(target)}. Leave it out.")
