"""Options that commands share, and how numbers and patterns are read from text."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from splat_numba.arguments.sizes import LARGEST_DIM, LARGEST_LENGTH
from splat_numba.formats.parse import parse
from splat_numba.formats.patterns import Pattern

DTYPES = ("float16", "bfloat16", "float32", "float64")
BACKENDS = ("auto", "cpu", "cuda", "emulate")


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
            raise argparse.ArgumentTypeError(f"wanted a whole number {limits}, got {text!r}")
        return value

    return convert


def seconds(text: str) -> float:
    """An argparse type: a time in seconds, more than none and at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"wanted a number of seconds > 0 and <= 86400, got {text!r}")
    return value


def add_shape_options(parser: argparse.ArgumentParser, *, heads: int, seq: int = 4096) -> None:
    """--seq, --head-dim, --heads and --dtype."""
    length, dim = whole_number(1, LARGEST_LENGTH), whole_number(1, LARGEST_DIM)
    add = parser.add_argument
    add("--seq", type=length, default=seq, metavar="N", help="tokens (default: %(default)s)")
    add("--head-dim", type=dim, default=64, metavar="N", help="elements a head (default: %(default)s)")
    add("--heads", type=whole_number(1), default=heads, metavar="N", help="query heads (default: %(default)s)")
    add("--dtype", choices=DTYPES, default="float32", help="of the arrays (default: %(default)s)")


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """--backend and --target."""
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="auto", help="where to run (default: the best that is there)")
    add("--target", metavar="NAME", help="the backend's target (default: chosen for you)")


def add_pattern_option(parser: argparse.ArgumentParser) -> None:
    """--pattern, which may be given again and again."""
    parser.add_argument(
        "--pattern",
        action="append",
        metavar="TEXT",
        help='a pattern such as "window(512) | sinks(4)"; give it again for more (default: a handful)',
    )


def read_pattern(text: str) -> Pattern:
    """The pattern that a text describes. Raises PatternError, with a suggestion for typos."""
    return parse(text)
