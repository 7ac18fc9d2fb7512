"""Options that commands share, and how numbers and patterns are read from text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

from cyclopts import Parameter, Token

from splat_numba.arguments.backends import RUNS, named
from splat_numba.arguments.sizes import LARGEST_DIM, LARGEST_LENGTH
from splat_numba.arguments.typed import Backend, DtypeName, Target
from splat_numba.errors import PatternError
from splat_numba.formats.parse import parse
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.plans.machine import GPU
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.registry import TARGETS, targets_of
from splat_numba.plain import cause

DTYPES: tuple[DtypeName, ...] = ("float16", "bfloat16", "float32", "float64")
OF_BACKEND = {"auto": tuple(TARGETS), **{backend: tuple(targets_of(kind)) for backend, kind in RUNS.items()}}
LONGEST_SHOWN = 60  # characters of what was typed, in a message or beside a picture
# What the package calls an argument, and its option; the words that mean other things too, only before a value.
OPTIONS = {"seq_q": "--seq", "seq_kv": "--seq-kv", "head_dim": "--head-dim", "value_dim": "--value-dim",
           "heads_q": "--heads", "heads_kv": "--heads-kv"}  # fmt: skip
VALUED = re.compile(r"\b(backend|target|dtype)(?: |=)'(\w+)'")


class CommandError(Exception):
    """What a command was asked cannot be done: shown as one line, exit status 2."""


def whole_number(low: int, high: int | None = None) -> Callable[[Any, Sequence[Token]], int]:
    """A converter of cyclopts': whole numbers from low to high."""
    read = _whole_number(low, high)
    return lambda _, tokens: read(tokens[0].value)


def whole_numbers(low: int, high: int) -> Callable[[Any, Sequence[Token]], tuple[int, ...]]:
    """The same for an option that takes several."""
    read = _whole_number(low, high)
    return lambda _, tokens: tuple(read(one.value) for one in tokens)


def _whole_number(low: int, high: int | None) -> Callable[[str], int]:
    limits = f">= {low}" if high is None else f"from {low} to {high}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise ValueError(f"wanted as a whole number {limits}, got {shortened(text)!r}")
        return value

    return read


def seconds(_: Any, tokens: Sequence[Token]) -> float:
    """A converter of cyclopts': a time in seconds, more than none and at most a day."""
    text = tokens[0].value
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise ValueError(f"wanted as a number of seconds > 0 and <= 86400, got {shortened(text)!r}")
    return value


def number(text: str, low: int, high: int | None = LARGEST_LENGTH) -> Parameter:
    """An option that takes one whole number."""
    return Parameter(help=text, metavar="N", converter=whole_number(low, high))


SUCH_AS = 'such as "window(512) | sinks(4)"'


def flag(text: str) -> Parameter:
    """An option that takes no value."""
    return Parameter(help=text, show_default=False)


Text: TypeAlias = Annotated[str, Parameter(help=SUCH_AS)]
Patterns: TypeAlias = Annotated[
    list[str] | None,
    Parameter(
        name="--pattern",
        metavar="TEXT",
        help=f"a pattern {SUCH_AS}; again for more (default: those that the command has)",
    ),
]
Plot: TypeAlias = Annotated[Path | None, Parameter(metavar="FILE.png", help="draw them into a picture file")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a call."""

    seq: Annotated[int, number("tokens", 1)] = 4096
    head_dim: Annotated[int, number("elements a head", 1, LARGEST_DIM)] = 64
    heads: Annotated[int, number("query heads", 1)] = 1


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class TimedSizes(Sizes):
    """Those of a call that is timed: enough heads for all cores of a small machine."""

    heads: Annotated[int, number("query heads", 1)] = 8


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Place:
    """Where a call runs, and in which dtype, which depends on it."""

    dtype: Annotated[
        DtypeName | None, Parameter(help="of the arrays (default: float32, for a GPU but --target simt float16)")
    ] = None
    backend: Annotated[Backend, Parameter(help="where to run; auto: the best that is there")] = "auto"
    target: Annotated[Target | None, Parameter(help="the backend's target (default: chosen for you)")] = None

    def needs_gpu_plan(self) -> bool:
        """Whether backend and target mean a GPU, or its emulator."""
        return TARGETS[named(self.target) or OF_BACKEND[self.backend][0]].kind == GPU

    def chosen_dtype(self) -> DtypeName:
        """The dtype that was asked for, or that suits the backend. Raises CommandError for options that do not go
        together.
        """
        wanted, target = OF_BACKEND[self.backend], named(self.target)
        if target is not None and target not in wanted:
            raise CommandError(f"--target wanted as {' or '.join(wanted)} for --backend {self.backend}, got "
                               f"{self.target}. Leave one of them out.")  # fmt: skip
        if not self.needs_gpu_plan():
            return self.dtype or "float32"
        taken = _taken(wanted if target is None else (target,))
        if self.dtype not in (None, *taken):
            place = f"--target {self.target}" if self.backend == "auto" else f"--backend {self.backend}"
            raise CommandError(f"--dtype wanted as {' or '.join(taken)} for {place}, got {self.dtype}. Leave it out.")
        return self.dtype or ("float32" if self.target and "float32" in taken else taken[0])


def _taken(targets: Sequence[str]) -> list[DtypeName]:
    """The dtypes that some of these targets takes."""
    problems = (Problem(1, 1, 1, 1, dtype) for dtype in DTYPES)
    found = (one.dtype for one in problems if None in [TARGETS[name].refusal(one) for name in targets])
    return [cast("DtypeName", dtype) for dtype in found]


def one_line(text: str) -> str:
    """Text of whatever characters on one line that can be printed."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def shortened(text: str) -> str:
    """What was typed, on one line, cut where it is long."""
    line = one_line(text)
    return line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 3] + "..."


def read_pattern(text: str, option: str = "pattern") -> Pattern:
    """The pattern that a text describes. Raises CommandError, with a suggestion for typos."""
    with pattern_errors(text, option):
        return parse(text)


@contextmanager
def pattern_errors(text: str, option: str = "pattern") -> Iterator[None]:
    """Say of which pattern, given as which option, an error speaks."""
    try:
        yield
    except PatternError as error:
        raise CommandError(f"{option} {shortened(text)}: {in_options(str(error).removeprefix('text: '))}") from None
    except RecursionError:
        raise CommandError(f"{option} {shortened(text)}: nested too deeply. Give a simpler one.") from None


@contextmanager
def file_errors(option: str, path: Path, wanted: str) -> Iterator[None]:
    """Say of which file, given as which option, an error of the system speaks."""
    try:
        yield
    except OSError as error:
        fault = f"{option} wanted a file that can be {wanted}, got {path}: {cause(error)}"
        raise CommandError(f"{fault}. Give another.") from None


def in_options(message: str) -> str:
    """A message of the package in the words of the command line."""
    for name, option in OPTIONS.items():
        message = re.sub(rf"\b{name}\b", option, message)
    return VALUED.sub(r"--\1 \2", message)
