"""The generated texts of a plan, whatever it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splat_numba.gen.plan import Plan
    from splat_numba.runtime.source import KernelSource


def sources(plan: Plan) -> tuple[KernelSource, ...]:
    """In the order of the passes, equal ones once; none where a GPU's plan launches nothing. Nothing is compiled."""
    if plan.target == "cpu":
        from splat_numba.gen.targets.cpu.attention import attention_text
        from splat_numba.runtime.cpu import code

        return (code.source_of(attention_text(plan)),)
    from splat_numba.executors.gpu_parts import texts_of
    from splat_numba.runtime.cuda.code import source_of

    return tuple(dict.fromkeys(source_of(text) for text in texts_of(plan)))
