"""`splat-numba demo`: draw masks, make their kernels, run, check, and print one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cyclopts import App
from rich.console import Console
from rich.table import Table
from rich.text import Text

from splat_numba.cli.cases import DEFAULT_PATTERNS, Case, chosen_cases, masks_of
from splat_numba.cli.check import Checked, check_rows, sample_rows
from splat_numba.cli.console import (
    Tracker,
    break_label,
    is_narrow,
    make_table,
    milliseconds,
    output,
    percent,
    print_table,
    progress,
)
from splat_numba.cli.drawing import side_by_side
from splat_numba.cli.measure import LEAST_RUNS, Built, Shapes, build, timed
from splat_numba.cli.options import Patterns, Place, Plot, TimedSizes
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import full
from splat_numba.formats.raster import mask_picture
from splat_numba.gen.plans.machine import CPU
from splat_numba.gen.plans.plan import Plan
from splat_numba.plain import duration

EPILOG = """\
examples:
  splat-numba demo
  splat-numba demo --pattern "window(512) | sinks(4)" --pattern "causal()" --seq 8192
  splat-numba demo --plot demo.png

columns:
  density     kept pairs / all pairs
  bands       intervals on a lattice, see explain
  tiles       key tiles computed, a head
  fill        kept pairs / computed pairs
  dense time  our kernel for full(), same shapes
  error       largest one beside float64, sampled rows

Times are medians without compilation. Exit status 1 if any error exceeds its tolerance.
"""
COLUMNS = ("pattern", "density", "bands", "tiles", "fill", "time", "dense time", "speed-up", "error")
PLOT_DOTS = 256  # a side, of a picture in a file
LONG = 10.0  # seconds of a call
OTHER_COLUMNS_WIDE, OTHER_COLUMNS_NARROW = 76, 63  # characters that all but the pattern take


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table; times in seconds."""

    case: Case
    plan: Plan
    density: float
    seconds: float
    dense_seconds: float
    checked: Checked


def run(
    *, patterns: Patterns = None, sizes: TimedSizes = TimedSizes(), place: Place = Place(), plot: Plot = None
) -> int:
    """Run the command; 1 if any error exceeds its tolerance."""
    shapes = Shapes.of(sizes, place)
    if plot is not None:
        from splat_numba.cli.plotting import check_plot

        check_plot(plot)
    console = output()
    shapes.check(len(patterns or DEFAULT_PATTERNS))
    cases = chosen_cases(patterns, shapes.seq)
    masks = masks_of(cases, shapes.seq)
    console.print(Text(f"attention with {shapes}", style="bold"))
    console.print(
        side_by_side(console, [(case.label, mask_picture(mask)) for case, mask in zip(cases, masks, strict=True)]),
        soft_wrap=False,
    )
    with progress(2 * len(cases) + 2) as track:
        results, built = _measure(cases, masks, shapes, track)
    print_table(console, table_of(console, results))
    _print_notes(console, results, built)
    if plot is not None:
        from splat_numba.cli.plotting import plot_results

        shown = [
            (one.case.label, mask_picture(mask, PLOT_DOTS), one.seconds)
            for one, mask in zip(results, masks, strict=True)
        ]
        plot_results(plot, shown, results[0].dense_seconds, str(shapes))
        console.print(f"Wrote {plot}.")
    return _report_failures(results)


def _measure(
    cases: Sequence[Case], masks: Sequence[ACSR], shapes: Shapes, track: Tracker
) -> tuple[list[Result], list[Built]]:
    """Dense attention first, because every row is compared with it; then the cases."""
    dense = Case("full()", full())
    operands = shapes.operands(dense)
    track("compiling full(), to compare with", 0)
    built = [build(dense, shapes)]
    track("running full()", 1)
    _tell_long(built[0].kernel.plan)
    dense_seconds = timed(partial(built[0].kernel, *operands)).seconds
    results: list[Result] = []
    for number, (case, mask) in enumerate(zip(cases, masks, strict=True)):
        track(f"compiling {case.label}", 2 * number + 2)
        made = build(case, shapes)
        built.append(made)
        track(f"running {case.label}", 2 * number + 3)
        out, lse = made.kernel(*operands, return_lse=True)
        checked = check_rows(operands, mask, out, lse)
        seconds = timed(partial(made.kernel, *operands)).seconds
        results.append(Result(case, made.kernel.plan, mask.density, seconds, dense_seconds, checked))
    return results, built


def _tell_long(plan: Plan) -> None:
    """Say on standard error how long full() is going to take, where that is long: a file shows no progress."""
    if plan.machine.kind == CPU and plan.cost.seconds > LONG:
        sys.stderr.write(
            f"note: full(), beside which the patterns are shown, is predicted to take {duration(plan.cost.seconds)} a "
            f"call, and is called {LEAST_RUNS + 1} times. A smaller --seq is faster.\n"
        )


def table_of(console: Console, results: Sequence[Result]) -> Table:
    """One row a pattern."""
    table = make_table(console, COLUMNS)
    label_width = max(12, console.width - (OTHER_COLUMNS_NARROW if is_narrow(console) else OTHER_COLUMNS_WIDE))
    for result in results:
        cost = result.plan.cost
        bad = result.checked.failure is not None
        table.add_row(
            break_label(result.case.label, label_width),
            percent(result.density),
            f"{result.plan.bands:,}",
            f"{cost.tiles:,}",
            f"{cost.fill:.0%}",
            milliseconds(result.seconds),
            milliseconds(result.dense_seconds),
            Text(f"{result.dense_seconds / result.seconds:.1f}x", style="green"),
            Text(f"{result.checked.error:.1e}{' !' if bad else ''}", style="bold red" if bad else ""),
        )
    return table


def _print_notes(console: Console, results: Sequence[Result], built: Sequence[Built]) -> None:
    plan = results[0].plan
    rows = sample_rows(plan.problem.seq_q).size
    used = max(result.checked.used for result in results)
    emulated = built[0].kernel.executor.emulated
    place = f"the emulator of {plan.target}" if emulated else plan.target
    console.print(
        f"Ran on {place}: {plan.machine.describe()}. "
        f"{rows} rows of every head checked; the largest error is {percent(used)} of what its tolerance allows."
    )
    fresh = [one for one in built if not one.cached]
    spent = sum(one.seconds for one in built)
    source = built[-1].kernel.path
    kept = f", kept in {source.parent}" if source is not None else ""
    console.print(f"{len(built)} kernels in {spent:.1f} s, {len(fresh)} of them compiled now{kept}.", style="dim")


def _report_failures(results: Sequence[Result]) -> int:
    bad = [result for result in results if result.checked.failure is not None]
    for result in bad:
        sys.stderr.write(f"error: {result.case.label} exceeds its tolerance: {result.checked.failure}\n")
    return 1 if bad else 0


APP = App(name="demo", default_command=run, help_epilogue=EPILOG)
