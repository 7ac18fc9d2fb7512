"""What cyclopts refuses, as one line: what is at fault, what was wanted, what came, and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import get_args

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from splat_numba.cli.options import CommandError, one_line, shortened

LONGEST = 400  # characters of a refusal that cyclopts words, in which all of what was typed may stand


def refusal(error: CycloptsError, program: str) -> str:
    """The line for an error of parsing."""
    command = " ".join((program, *(error.command_chain or ())))
    fault = _fault(error, command).removesuffix(".")
    return f"{fault}{'' if fault.endswith('?') else '.'} See {command} --help."


def _fault(error: CycloptsError, command: str) -> str:
    name = error.argument.name if error.argument else ""
    if isinstance(error, CoercionError) and error.msg:  # as our converters have it
        return f"{name} {error.msg}"
    if isinstance(error, CoercionError) and error.token and error.target_type is bool:
        return f"{name} wanted without a value, got {shortened(error.token.value)!r}"
    if isinstance(error, CoercionError) and error.token and get_args(error.target_type):
        choices, given = [*map(str, get_args(error.target_type))], error.token.value
        return f"{name} wanted as one of {', '.join(choices)}, got {shortened(given)!r}{_meant(given, choices)}"
    if isinstance(error, MissingArgumentError) and error.argument:
        return f"{name} wanted ({error.argument.parameter.help}), got nothing"
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.app:
        return _no_command(error.unused_tokens[0], command, error.app)
    if isinstance(error, UnknownOptionError):
        given = (error.token.keyword or error.token.value).partition("=")[0]
        names = ["--help", *(name for one in error.argument_collection for name in one.names)]
        if given in names:
            return f"{given} wanted before --, behind which there are arguments only, got it there"
        return _no_option(given, command, names)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{command} wanted no {shortened(error.unused_tokens[0])!r}: it takes options only, or no more arguments"
    line = one_line(str(error))
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def without_command(app: App, words: Sequence[str]) -> CommandError:
    """The error for a command line that ends before it names a command."""
    chain, apps, _ = app.parse_commands(words)
    command = " ".join((app.name[0], *chain))
    return CommandError(
        f"COMMAND wanted as one of {', '.join(_commands(apps[-1]))}, got nothing. See {command} --help."
    )


def _no_option(given: str, command: str, names: list[str]) -> str:
    return f"{shortened(given)} is no option of {command}{_meant(given, names)}"


def _no_command(given: str, command: str, app: App) -> str:
    if given.startswith("-"):
        return _no_option(given, command, [name for name in app if name.startswith("-")])
    commands = _commands(app)
    return f"COMMAND wanted as one of {', '.join(commands)}, got {shortened(given)!r}{_meant(given, commands)}"


def _commands(app: App) -> list[str]:
    return [name for name in app if not name.startswith("-")]


def _meant(given: str, names: list[str]) -> str:
    close = difflib.get_close_matches(given, names, n=1)
    return f": did you mean {close[0]}?" if close else ""
