"""The generated texts of a plan, whatever it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splat_numba.gen.plan import Plan
    from splat_numba.runtime.source import KernelSource


def sources(plan: Plan) -> tuple[KernelSource, ...]:
    """In the order of the passes, equal ones once; none where a GPU's plan launches nothing. Nothing is compiled."""
    if plan.target == "cpu":
        from splat_numba.runtime.launch import render

        return (render(plan),)
    from splat_numba.gpu_kernel import passes_of
    from splat_numba.gpu_kernel import render as render_traits

    return tuple(dict.fromkeys(render_traits(one.traits) for one in passes_of(plan)))
