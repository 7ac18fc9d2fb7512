"""Statements that every packed kernel has: strides, the item's row and head, and the walk over a row's runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from splat_numba.gen.problem import ITEMSIZE
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.writer import SourceWriter

RUNS = "start, step, count"


def emit_strides(out: SourceWriter, plan: PackedPlan, name: str, axes: int) -> None:
    """Strides of an array, in elements."""
    size = ITEMSIZE[plan.dtype]
    strides = ", ".join(f"{name}.strides[{axis}] // {size}" for axis in range(axes))
    out.line(f"{name}_at = ({strides})")


def emit_run_pointers(out: SourceWriter) -> None:
    """Pointers into the run table."""
    out.line("start, step, count = address(run_start, 0), address(run_step, 0), address(run_count, 0)")


def emit_item(out: SourceWriter) -> None:
    """Row, batch and head of an item; ``heads`` and ``rows`` are known."""
    out.line("row, slot = item % rows, item // rows")
    out.line("batch, head = slot // heads, slot % heads")


@contextmanager
def each_run(out: SourceWriter, plan: PackedPlan, source: str) -> Iterator[None]:
    """A suite for every run, run_lo <= run < run_hi.

    In it ``here`` points to the run's first row of ``source``, ``apart`` is the distance of its rows in elements, and
    ``keys`` their number.
    """
    if plan.regular:
        out.line("run = run_lo  # a row is at most one run")
    with out.block("if run_lo < run_hi" if plan.regular else "for run in range(run_lo, run_hi)"):
        out.line(f"here = advance({source}, element(start, run) * row_stride)")
        step = {None: "element(step, run) * ", 1: ""}.get(plan.step, f"{plan.step} * ")
        out.line(f"apart, keys = {step}row_stride, element(count, run)")
        yield


def emit_header(out: SourceWriter, text: str) -> None:
    """Two blank lines and a decorator."""
    out.line()
    out.line()
    out.line(text)


def vector_places(plan: PackedPlan) -> list[tuple[str, str]]:
    """(offset, reading function) of every vector of a row of ``dim`` numbers."""
    whole = plan.dim // plan.width
    places = [(f"{place} * WIDTH" if place else "0", "read") for place in range(whole)]
    return places + ([(f"{whole} * WIDTH" if whole else "0", "read_rest")] if plan.dim % plan.width else [])
