"""The targets that there are, and which of them a call gets. A new one is a folder and a line in TARGETS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, overload

from splat_numba.errors import ArgumentTypeError, BackendError
from splat_numba.gen.plans.machine import CPU, GPU, Gpu, Machine
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.cpu.target import NUMBA_CPU
from splat_numba.gen.targets.simt.target import SIMT
from splat_numba.gen.targets.sm80.target import SM80
from splat_numba.gen.targets.sm90.target import SM90

if TYPE_CHECKING:
    from splat_numba.gen.targets.target import CpuTarget, GpuTarget, Target

# Of those of a machine's kind the first that takes a problem is the one that gets it.
TARGETS: dict[str, Target[Any]] = {NUMBA_CPU.name: NUMBA_CPU, SM90.name: SM90, SM80.name: SM80, SIMT.name: SIMT}


def targets_of(kind: str) -> dict[str, Target[Any]]:
    """Those of a kind, gen.plans.machine's CPU or GPU, by name, in the order in which they are asked."""
    return {name: one for name, one in TARGETS.items() if one.kind == kind}


def gpu_target(name: str) -> GpuTarget:
    """A GPU's target by name. Raises BackendError for one that this version has not."""
    return cast("GpuTarget", target_named(name, GPU))


def cpu_target(name: str) -> CpuTarget:
    """A CPU's target by name. Raises BackendError for one that this version has not."""
    return cast("CpuTarget", target_named(name, CPU))


def target_named(name: str, kind: str) -> Target[Any]:
    """A target of a kind by name. Raises BackendError for one that this version has not."""
    there = targets_of(kind)
    if name in there:
        return there[name]
    known = " and ".join(f"{one.name!r} ({one.generation})" for one in there.values())
    raise BackendError(
        f"target {name!r} is not in this version, which has {known}. Leave target out, or give backend='cpu'."
    )


def _asked(request: str | None, kind: str) -> tuple[Target[Any], ...]:
    return tuple(targets_of(kind).values()) if request is None else (target_named(request, kind),)


@overload
def choose_target(request: str | None, problem: Problem, machine: Gpu) -> tuple[GpuTarget, Choice]: ...
@overload
def choose_target(request: str | None, problem: Problem, machine: Machine) -> tuple[CpuTarget, Choice]: ...
@overload
def choose_target(request: str | None, problem: Problem, machine: Machine | Gpu) -> tuple[Target[Any], Choice]: ...
def choose_target(request: str | None, problem: Problem, machine: Machine | Gpu) -> tuple[Any, Choice]:
    """The target of a call and why. request: the argument ``target``; machine: that it is planned for.

    Raises ArgumentTypeError where no target takes the problem, BackendError where none runs on the machine.
    """
    check_taken("dtype", problem, request, machine.kind)
    asked = {one.name: one for one in _asked(request, machine.kind)}
    reasons = {name: one.refusal(problem) or machine.refusal(one.runs_on(problem)) for name, one in asked.items()}
    if request is None:
        reasons = {name: why or asked[name].gives_way(problem, machine) for name, why in reasons.items()}
    chosen = first_without_reason(reasons, machine, requested=request is not None)
    return asked[chosen.chosen], chosen


def first_without_reason(reasons: Mapping[str, str | None], machine: Machine | Gpu, *, requested: bool) -> Choice:
    """The first target that nothing speaks against. reasons: those against each, in the order in which they are asked.

    Raises BackendError where there is none.
    """
    refused = [(name, why) for name, why in reasons.items() if why is not None]
    for name, why in reasons.items():
        if why is None:
            before = tuple(refused[: [*reasons].index(name)])
            first = f"the first that takes this {machine.kind}, dtype and dims"
            return Choice("target", name, "the one that was asked for" if requested else first, before)
    raise BackendError(
        f"target wanted for {machine.words}, got "
        f"{', '.join(name for name, _ in refused)}. Leave target out, or copy the arrays and give backend='cpu'."
    )


def check_taken(argument: str, problem: Problem, request: str | None, kind: str = GPU) -> None:
    """Raise ArgumentTypeError, naming the argument, unless some target of the kind takes the problem's dtype."""
    reasons = [one.refusal(problem) for one in _asked(request, kind)]
    if None not in reasons:
        raise ArgumentTypeError(f"{argument} {reasons[0]}")


def capabilities() -> dict[tuple[int, int], str]:
    """Compute capabilities that some target runs on, and what people call those GPUs."""
    return {capability: one.generation for one in reversed(TARGETS.values()) for capability in one.capabilities}
