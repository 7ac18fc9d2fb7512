"""Statements that every packed kernel has: its entry function, the item's row and head, and the walk over runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.targets.cpu.packed_schedule import packed_entry
from splat_numba.gen.targets.cpu.prelude import FUNCTION, emit_strides

RUNS = "start, step, count"
PIECES = "piece_start, piece_step, piece_count, piece_slot"


@contextmanager
def entry_function(out: SourceWriter, plan: PackedPlan, axes: Mapping[str, int]) -> Iterator[None]:
    """The entry function, which has a ``scratch`` array. axes: of each array as many as its strides are wanted of,
    which are ``NAME_at`` inside, in elements.
    """
    with out.function(FUNCTION, packed_entry(plan).header):
        for name, count in axes.items():
            emit_strides(out, name, plan.dtype, count)
        yield
        out.line("return scratch.size  # the pointers above are good until here")


def emit_run_pointers(out: SourceWriter) -> None:
    """Pointers into the run table."""
    out.line("start, step, count = address(run_start, 0), address(run_step, 0), address(run_count, 0)")


@contextmanager
def each_item(out: SourceWriter, plan: PackedPlan) -> Iterator[None]:
    """A suite for every item: its row or group, batch and head; ``heads`` and ``rows`` or ``groups`` are known."""
    one, many = ("number", "groups") if plan.grouped else ("row", "rows")
    with out.block("for item in range(first, last)"):
        out.line(f"{one}, slot = item % {many}, item // {many}")
        out.line("batch, head = slot // heads, slot % heads")
        yield


@contextmanager
def each_run(out: SourceWriter, plan: PackedPlan, source: str) -> Iterator[None]:
    """A suite for every run, run_lo <= run < run_hi.

    In it ``here`` points to the run's first row of ``source``, ``apart`` is the distance of its rows in elements, and
    ``keys`` their number.
    """
    if plan.regular:
        out.line("run = run_lo  # a row is at most one run")
    with out.block("if run_lo < run_hi" if plan.regular else "for run in range(run_lo, run_hi)"):
        _emit_columns(out, plan, source, "run", RUNS)
        yield


def _emit_columns(out: SourceWriter, plan: PackedPlan, source: str, number: str, table: str) -> None:
    """``here``, ``apart`` and ``keys`` of a run or piece. table: its first column, step and count, by their names."""
    start, step, count = (f"element({name}, {number})" for name in table.split(", ")[:3])
    apart = {None: f"{step} * ", 1: ""}.get(plan.step, f"{plan.step} * ")
    out.line(f"here = advance({source}, {start} * row_stride)")
    out.line(f"apart, keys = {apart}row_stride, {count}")


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
        _emit_columns(out, plan, source, "piece", PIECES)
        yield


def emit_group_pointers(out: SourceWriter) -> None:
    """Pointers into the group table."""
    out.lines(
        """
        run_slot = address(slot_of_run, 0)
        piece_start, piece_step = address(start_of_piece, 0), address(step_of_piece, 0)
        piece_count, piece_slot = address(count_of_piece, 0), address(slot_of_piece, 0)
        """
    )
