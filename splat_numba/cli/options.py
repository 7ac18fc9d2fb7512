"""Options that commands share, and how numbers and patterns are read from text."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from splat_numba.arguments.backends import BACKENDS, RUNS
from splat_numba.arguments.sizes import LARGEST_DIM, LARGEST_LENGTH
from splat_numba.errors import PatternError
from splat_numba.formats.parse import parse
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.plans.machine import GPU
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.registry import TARGETS, targets_of

DTYPES = ("float16", "bfloat16", "float32", "float64")
OF_BACKEND = {"auto": tuple(TARGETS), **{backend: tuple(targets_of(kind)) for backend, kind in RUNS.items()}}
LONGEST_SHOWN = 60  # characters of what was typed, in a message or beside a picture
# What the package calls an argument, and its option; the words that mean other things too, only before a value.
OPTIONS = {"seq_q": "--seq", "seq_kv": "--seq-kv", "head_dim": "--head-dim", "value_dim": "--value-dim",
           "heads_q": "--heads", "heads_kv": "--heads-kv"}  # fmt: skip
VALUED = re.compile(r"\b(backend|target|dtype)(?: |=)'(\w+)'")


class CommandError(Exception):
    """What a command was asked cannot be done: shown as one line, exit status 2."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Options in one column, examples as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], help_text: str, epilog: str
) -> argparse.ArgumentParser:
    """A command's parser; help_text is one sentence, epilog holds the examples."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, epilog=epilog, formatter_class=HelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argparse type: whole numbers from low to high."""
    limits = f">= {low}" if high is None else f"from {low} to {high}"

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"wanted a whole number {limits}, got {shortened(text)!r}")
        return value

    return convert


def count() -> Callable[[str], int]:
    """An argparse type: how many heads or batch entries."""
    return whole_number(1, LARGEST_LENGTH)


def seconds(text: str) -> float:
    """An argparse type: a time in seconds, more than none and at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"wanted a number of seconds > 0 and <= 86400, got {shortened(text)!r}")
    return value


def add_shape_options(parser: argparse.ArgumentParser, *, heads: int, seq: int = 4096) -> None:
    """--seq, --head-dim, --heads and --dtype."""
    length, dim = whole_number(1, LARGEST_LENGTH), whole_number(1, LARGEST_DIM)
    add = parser.add_argument
    add("--seq", type=length, default=seq, metavar="N", help="tokens (default: %(default)s)")
    add("--head-dim", type=dim, default=64, metavar="N", help="elements a head (default: %(default)s)")
    add("--heads", type=count(), default=heads, metavar="N", help="query heads (default: %(default)s)")
    add("--dtype", choices=DTYPES, help="of the arrays (default: float32, for a GPU but --target simt float16)")


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """--backend and --target."""
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="auto", help="where to run (default: the best that is there)")
    add("--target", choices=OF_BACKEND["auto"], help="the backend's target (default: chosen for you)")


def add_pattern_option(parser: argparse.ArgumentParser) -> None:
    """--pattern, which may be given again and again."""
    parser.add_argument(
        "--pattern",
        action="append",
        metavar="TEXT",
        help='a pattern such as "window(512) | sinks(4)"; give it again for more (default: those that the command has)',
    )


def shortened(text: str) -> str:
    """What was typed, on one line that can be printed, cut where it is long."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
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


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """The parsed arguments with the dtype that suits the backend. Raises CommandError for options that do not go
    together.
    """
    given = vars(args)
    if "target" in given:
        wanted = OF_BACKEND[args.backend]
        if args.target is not None and args.target not in wanted:
            raise CommandError(f"--target wanted as {' or '.join(wanted)} for --backend {args.backend}, got "
                               f"{args.target}. Leave one of them out.")  # fmt: skip
        args.dtype = _dtype(args)
    if given.get("heads_kv") and args.heads % args.heads_kv:
        raise CommandError(f"--heads-kv wanted as a number that divides --heads {args.heads}, got {args.heads_kv}. "
                           "Change one of them.")  # fmt: skip
    return args


def needs_gpu_plan(args: argparse.Namespace) -> bool:
    """Whether --backend and --target mean a GPU, or its emulator."""
    return TARGETS[args.target or OF_BACKEND[args.backend][0]].kind == GPU


def _dtype(args: argparse.Namespace) -> str:
    if not needs_gpu_plan(args):
        return args.dtype or "float32"
    taken = _taken(OF_BACKEND[args.backend] if args.target is None else (args.target,))
    if args.dtype not in (None, *taken):
        place = f"--target {args.target}" if args.backend == "auto" else f"--backend {args.backend}"
        raise CommandError(f"--dtype wanted as {' or '.join(taken)} for {place}, got {args.dtype}. Leave it out.")
    return args.dtype or ("float32" if args.target and "float32" in taken else taken[0])


def _taken(targets: Sequence[str]) -> list[str]:
    """The dtypes that some of these targets takes."""
    problems = (Problem(1, 1, 1, 1, dtype) for dtype in DTYPES)
    return [one.dtype for one in problems if None in [TARGETS[name].refusal(one) for name in targets]]


def in_options(message: str) -> str:
    """A message of the package in the words of the command line."""
    for name, option in OPTIONS.items():
        message = re.sub(rf"\b{name}\b", option, message)
    return VALUED.sub(r"--\1 \2", message)
