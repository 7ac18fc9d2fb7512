"""The generated texts of a plan, whatever it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splat_numba.formats.patterns import Pattern
    from splat_numba.gen.plans.plan import Plan
    from splat_numba.runtime.source import KernelSource


def backward_sources(mask: Pattern, plan: Plan, backend: str, target: str | None) -> tuple[KernelSource, ...]:
    """The texts of a plan's gradients. Nothing is compiled."""
    from splat_numba.executors.choice import choose_executor
    from splat_numba.executors.given import Given
    from splat_numba.settings import current

    executor = choose_executor(backend, target)
    recipe = Given(mask, executor, "bhsd", None)
    return executor.backward_sources(recipe, plan.problem, 1.0, current())


def sources(plan: Plan, backend: str, target: str | None) -> tuple[KernelSource, ...]:
    """In the order of the passes, equal ones once; none where a GPU's plan launches nothing. Nothing is compiled."""
    from splat_numba.executors.choice import choose_executor

    return choose_executor(backend, target).sources(plan)
