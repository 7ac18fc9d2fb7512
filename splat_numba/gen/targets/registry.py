"""The targets that there are, and which of them a call gets. A new one is a folder and a line in GPU_TARGETS."""

from __future__ import annotations

from splat_numba.errors import ArgumentTypeError, BackendError
from splat_numba.gen.plan import Choice
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.simt.target import SIMT
from splat_numba.gen.targets.sm90.target import SM90
from splat_numba.gen.targets.target import GpuTarget

GPU_TARGETS: dict[str, GpuTarget] = {
    SM90.name: SM90,
    SIMT.name: SIMT,
}  # the first that takes a problem is the one that gets it


def gpu_target(name: str) -> GpuTarget:
    """A target by name. Raises BackendError for one that this version has not."""
    found = GPU_TARGETS.get(name)
    if found is None:
        known = " and ".join(f"{one.name!r} ({one.generation})" for one in GPU_TARGETS.values())
        raise BackendError(
            f"target {name!r} is not in this version, which has {known}. Leave target out, or give backend='cpu'."
        )
    return found


def _asked(request: str | None) -> tuple[GpuTarget, ...]:
    return tuple(GPU_TARGETS.values()) if request is None else (gpu_target(request),)


def choose_gpu_target(request: str | None, problem: Problem, capability: tuple[int, int]) -> tuple[GpuTarget, Choice]:
    """The target of a call and why. request: the argument ``target``; capability: of the GPU.

    Raises ArgumentTypeError where no target takes the problem, BackendError where none runs on the GPU.
    """
    check_taken("dtype", problem, request)
    refused: list[tuple[str, str]] = []
    for one in _asked(request):
        why = one.refusal(problem)
        if why is None and capability in one.capabilities:
            reason = "the one that was asked for" if request else "the first that takes this GPU, dtype and dims"
            return one, Choice("target", one.name, reason, tuple(refused))
        refused.append((one.name, why or f"does not run on compute capability {capability[0]}.{capability[1]}"))
    raise BackendError(
        f"target wanted for a GPU of compute capability {capability[0]}.{capability[1]}, got "
        f"{', '.join(name for name, _ in refused)}. Leave target out, or copy the arrays and give backend='cpu'."
    )


def check_taken(argument: str, problem: Problem, request: str | None) -> None:
    """Raise ArgumentTypeError, naming the argument, unless some target takes the problem's dtype."""
    reasons = [one.refusal(problem) for one in _asked(request)]
    if None not in reasons:
        raise ArgumentTypeError(f"{argument} {reasons[0]}")


def capabilities() -> frozenset[tuple[int, int]]:
    """Compute capabilities that some target runs on."""
    return frozenset().union(*(one.capabilities for one in GPU_TARGETS.values()))
