"""How a CPU text begins: what it says of itself, in the same words for all masks that share it; what passes use."""

from __future__ import annotations

import re

from splat_numba.formats.named import is_named
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.rows.passes import ClosedPass
from splat_numba.gen.targets.cpu.prelude import emit_exp2, emit_imports, emit_quotient, emit_row_of
from splat_numba.gen.targets.cpu.schedule import numbers_of
from splat_numba.gen.targets.cpu.shape import vector_width


def emit_head(out: SourceWriter, plan: Plan, subject: str, more: tuple[str, ...] = ()) -> None:
    """Docstring, imports, ``more`` of them, and small functions."""
    compute_dtype = plan.problem.compute_dtype
    _emit_docstring(out, plan, subject)
    emit_imports(out, compute_dtype, vector_width(plan.cpu, compute_dtype), more)
    emit_exp2(out, compute_dtype)
    emit_row_of(out)
    closed = [one for one in plan.passes if isinstance(one, ClosedPass)]
    if any(is_named(divisor) for one in closed for divisor in one.divisors):
        emit_quotient(out)


def _emit_docstring(out: SourceWriter, plan: Plan, subject: str) -> None:
    """What the kernel is for. Masks of one form differ in numbers, which are arguments, or in tables."""
    problem, quotes = plan.problem, '"' * 3
    sizes = f"head_dim {problem.head_dim}, value_dim {problem.value_dim}, {problem.dtype}"
    out.lines(
        f"""
        {quotes}{subject}, generated for {_form(plan)}.

        {_numbers(plan)}{sizes}; any length; target {plan.target}.
        Call each pass in turn, with ranges first .. last - 1 of its work items; ranges are independent of each other.
        {quotes}
        """
    )
    out.line()


def _form(plan: Plan) -> str:
    """The mask without its numbers."""
    return re.sub(r"\([^()]*\)", "", plan.mask) if plan.closed else "a mask given by tables"


def _numbers(plan: Plan) -> str:
    names = dict.fromkeys(name for one in plan.passes for name in numbers_of(one))
    return (
        f"The mask's numbers are arguments, whose values explain() shows: {', '.join(names)}.\n        "
        if names
        else ""
    )
