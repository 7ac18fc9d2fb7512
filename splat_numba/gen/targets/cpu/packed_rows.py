"""Statements that every packed kernel has: strides, the item's row and head, and the walk over a row's runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan

RUNS = "start, step, count"


def emit_strides(out: SourceWriter, plan: PackedPlan, name: str, axes: int) -> None:
    """Strides of an array, in elements."""
    size = ITEMSIZE[plan.dtype]
    strides = ", ".join(f"{name}.strides[{axis}] // {size}" for axis in range(axes))
    out.line(f"{name}_at = ({strides})")


def emit_run_pointers(out: SourceWriter) -> None:
    """Pointers into the run table."""
    out.line("start, step, count = address(run_start, 0), address(run_step, 0), address(run_count, 0)")


def emit_item(out: SourceWriter, plan: PackedPlan) -> None:
    """Row or group, batch and head of an item; ``heads`` and ``rows`` or ``groups`` are known."""
    one, many = ("number", "groups") if plan.grouped else ("row", "rows")
    out.line(f"{one}, slot = item % {many}, item // {many}")
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


@contextmanager
def each_row(out: SourceWriter, plan: PackedPlan) -> Iterator[None]:
    """A suite for every ``row`` of a group, of which ``member`` is the number within it."""
    with out.block(f"for member in range({plan.shared_rows})"):
        out.line(f"row = group_rows[number * {plan.shared_rows} + member]")
        with out.block("if row >= 0"):
            yield


@contextmanager
def each_piece(out: SourceWriter, plan: PackedPlan, source: str) -> Iterator[None]:
    """A suite for every piece of a group; ``here``, ``apart`` and ``keys`` are as in each_run()."""
    with out.block("for piece in range(piece_lo, piece_hi)"):
        out.line(f"here = advance({source}, element(piece_start, piece) * row_stride)")
        step = {None: "element(piece_step, piece) * ", 1: ""}.get(plan.step, f"{plan.step} * ")
        out.line(f"apart, keys = {step}row_stride, element(piece_count, piece)")
        yield


PIECES = "piece_start, piece_step, piece_count, piece_slot"


def emit_group_pointers(out: SourceWriter) -> None:
    """Pointers into the group table."""
    out.lines(
        """
        run_slot = address(slot_of_run, 0)
        piece_start, piece_step = address(start_of_piece, 0), address(step_of_piece, 0)
        piece_count, piece_slot = address(count_of_piece, 0), address(slot_of_piece, 0)
        """
    )
