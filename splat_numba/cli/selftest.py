"""`splat-numba selftest`: fuzz the backends of this machine against the float64 oracle for a given time."""

from __future__ import annotations

import tempfile
import time
from importlib import import_module
from typing import Annotated, Literal, TypeAlias

from cyclopts import App, Parameter

from splat_numba.arguments.backends import BACKENDS, RUNS
from splat_numba.cli.console import output, percent, progress
from splat_numba.cli.fuzzing import Tally, executor_of, fuzz
from splat_numba.cli.options import CommandError, number, seconds
from splat_numba.errors import BackendError
from splat_numba.gen.shown.kinds import KINDS
from splat_numba.testing.problem import Problem

EPILOG = """\
Stored masks share kernels, so they give many cases a second; every new pattern in closed form compiles for some
seconds and is then run at several lengths. Exit status 1 if a case fails: the smallest one is printed.

examples:
  splat-numba selftest
  splat-numba selftest --seconds 600 --seed 7
"""
LONGEST_SHOWN = 2000  # characters of a failing case; a longer one goes to a file

Seconds: TypeAlias = Annotated[float, Parameter(metavar="N", help="how long, roughly", converter=seconds)]
Alone: TypeAlias = Literal["cpu", "cuda", "emulate"]


def run(
    *,
    time_given: Annotated[Seconds, Parameter(name="--seconds")] = 60.0,
    seed: Annotated[int, number("of the cases", 0, None)] = 0,
    backend: Annotated[Alone | None, Parameter(help="this one alone (default: all that are there)")] = None,
) -> int:
    """Fuzz, print what was found; 1 if a case fails. CommandError without Hypothesis, BackendError for a backend that
    is not here.
    """
    try:
        import_module("hypothesis")
    except ModuleNotFoundError:
        raise CommandError('selftest needs Hypothesis. Run: pip install "splat-numba[selftest]"') from None
    if backend:
        check_present(backend)
    backends = [backend] if backend else present_backends()
    share = time_given / len(backends)
    statuses = []
    for one in backends:
        begin = time.monotonic()
        tally = Tally(begin + share)
        with progress(int(share)) as track:
            fuzz(one, tally, seed, track)
        statuses.append(_report(one, tally, time.monotonic() - begin))
    return max(statuses)


def present_backends() -> list[str]:
    """The backends that this machine can run; not the emulator, which tests no machine, unless asked for."""
    return [name for name in BACKENDS[1:] if not executor_of(name).emulated and _is_present(name)]


def _is_present(backend: str) -> bool:
    try:
        check_present(backend)
    except BackendError:
        return False
    return True


def check_present(backend: str) -> None:
    """Raise BackendError, which says why, if this machine cannot run it."""
    executor_of(backend).check_present()


def _report(backend: str, tally: Tally, spent: float) -> int:
    console = output()
    fresh = sum(not cached for cached in tally.kernels.values())
    console.print(
        f"{backend}: {tally.cases} cases passed in {spent:.0f} s, with {len(tally.kernels)} kernels ({fresh} compiled "
        f"now); the worst error is {percent(tally.worst)} of what its tolerance allows.",
        soft_wrap=not console.is_terminal,
    )
    if tally.failing is None:
        console.print(kinds_text(backend, tally.kinds), soft_wrap=not console.is_terminal)
        return 0
    console.print("FAILED", style="bold red")
    console.print(tally.failure, soft_wrap=True)
    text = repeat_text(tally.failing, backend)
    if len(text) > LONGEST_SHOWN:
        with tempfile.NamedTemporaryFile("w", prefix="splat-failure-", suffix=".py", delete=False) as file:
            file.write(text)
        text = f"python {file.name}"
    console.print(f"\nThe smallest failing case; repeat it with:\n\n{text}", soft_wrap=True)
    return 1


def kinds_text(backend: str, met: set[str]) -> str:
    """Which of the kinds of pass were met, and which were not."""
    wanted = KINDS[RUNS[backend]]
    missing = [kind for kind in wanted if kind not in met]
    text = f"{backend}: {len(wanted) - len(missing)} of {len(wanted)} kinds of pass were met"
    return f"{text}; not met: {', '.join(missing)}." if missing else f"{text}."


def repeat_text(problem: Problem, backend: str) -> str:
    """A script that runs the case again."""
    return f"""\
import numpy as np
from splat_numba import *
from splat_numba.testing import Problem, check_attention

check_attention({problem!r}, {backend!r})
"""


APP = App(name="selftest", default_command=run, help_epilogue=EPILOG)
