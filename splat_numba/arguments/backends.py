"""Which backend a call means."""

from __future__ import annotations

from typing import Any, NoReturn

from splat_numba.errors import BackendError
from splat_numba.gen.plans.machine import CPU, GPU
from splat_numba.plain import shown
from splat_numba.runtime.arrays import on_gpu
from splat_numba.settings import current

BACKENDS = ("auto", "cpu", "cuda", "emulate")
SPELLINGS = {"sm_80": "sm80"}  # targets by the names of the least GPUs that they run on, as "sm_90a" is one
RUNS = {"cpu": CPU, "cuda": GPU, "emulate": GPU}  # of which kind of processor the texts are that a backend runs


def choose_backend(backend: str, target: str | None, q: Any = None) -> str:
    """ "cpu", "cuda" or "emulate": with "auto", where q is. Raises BackendError for what this version has not."""
    if not isinstance(backend, str) or backend not in BACKENDS:  # a list is not comparable with some, and not hashable
        raise BackendError(
            f"backend wanted as one of {', '.join(BACKENDS)}, got {shown(backend)}. Leave it out to choose for you."
        )
    if not (target is None or isinstance(target, str)):
        _refuse(backend, target, ("cpu",))
    target = named(target)
    chosen = _meant(backend, target, q)
    if target is not None:
        _check_target(backend, target, RUNS[chosen])
    return chosen


def named(target: str | None) -> str | None:
    """A target's own name, for one that may be spelled in another way."""
    return None if target is None else SPELLINGS.get(target, target)


def _meant(backend: str, target: str | None, q: Any) -> str:
    if backend == "auto":
        return "cuda" if on_gpu(q) or (target is not None and _is_of(GPU, target)) else "cpu"
    return "emulate" if backend == "cuda" and not on_gpu(q) and current().emulate else backend


def _is_of(kind: str, target: str) -> bool:
    from splat_numba.gen.targets.registry import targets_of  # few calls name one, and want this so early

    return target in targets_of(kind)


def _check_target(backend: str, target: str, kind: str) -> None:
    from splat_numba.gen.targets.registry import target_named, targets_of

    if not _is_of(kind, target):
        _refuse(backend, target, tuple(targets_of(kind)))
    target_named(target, kind)


def _refuse(backend: str, target: object, names: tuple[str, ...]) -> NoReturn:
    *first, last = ("None", *map(repr, names))
    wanted = f"{', '.join(first)} or {last}"
    raise BackendError(f"target wanted as {wanted} for backend {backend!r}, got {shown(target)}. Leave it out.")
