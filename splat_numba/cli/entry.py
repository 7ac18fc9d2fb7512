"""The entry point: which command, and how errors and warnings look."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from splat_numba.cli import bench, demo, doctor, explain, selftest
from splat_numba.cli.options import CommandError, HelpFormatter
from splat_numba.errors import SplatError

DESCRIPTION = "Sparse attention from kernels that are generated for a mask. Patterns are text: window(512) | sinks(4)"
EPILOG = """\
examples:
  splat-numba demo
  splat-numba explain "window(512) | sinks(4)" --seq 8192
  splat-numba COMMAND --help

Exit status: 0 fine, 1 a wrong result or a broken installation, 2 a wrong argument or a missing package.
"""


def make_parser() -> argparse.ArgumentParser:
    """All commands. A command sets ``run``: a function from the parsed arguments to the exit status."""
    parser = argparse.ArgumentParser(
        prog="splat-numba", description=DESCRIPTION, epilog=EPILOG, formatter_class=HelpFormatter
    )
    # the package itself is above the command line in the order of imports, so it is not imported by name
    version = getattr(sys.modules["splat_numba"], "__version__", "unknown")
    parser.add_argument("--version", action="version", version=f"splat-numba {version}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (demo, explain, bench, selftest, doctor):
        command.add_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status; SystemExit for --help, --version and arguments that do not parse."""
    args = make_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return int(args.run(args))
        except (SplatError, CommandError) as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return 130
        except BrokenPipeError:  # `splat-numba source ... | head`; the null device takes what Python flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"warning: {message}\n")
