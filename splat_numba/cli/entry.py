"""The entry point: which command, and how errors and warnings look."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from splat_numba.cli import bench, cache, demo, doctor, explain, gallery, selftest
from splat_numba.cli.options import CommandError, HelpFormatter, complete, in_options
from splat_numba.errors import SplatError

DESCRIPTION = "Sparse attention from kernels that are generated for a mask. Patterns are text: window(512) | sinks(4)"
EPILOG = """\
examples:
  splat-numba demo
  splat-numba explain "window(512) | sinks(4)" --seq 8192
  splat-numba COMMAND --help

Exit status: 0 fine, 1 a wrong result or a broken installation, 2 a wrong argument, a missing package or too little
memory, 130 interrupted.
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
    for command in (demo, gallery, explain, bench, selftest, doctor, cache):
        command.add_parsers(commands)
    return parser


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status; SystemExit for --help, --version and arguments that do not parse."""
    try:
        return _run(arguments)
    except CommandError as error:
        return _fail(str(error))
    except SplatError as error:
        return _fail(in_options(str(error)))
    except MemoryError:
        return _fail("these sizes need more memory than there is. Give a smaller --seq, --heads or --batch.")
    except BrokenPipeError:  # `splat-numba source ... | head`; the null device takes what Python flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, or no disk, behind standard output
        return _fail(f"{error}.")


def _run(arguments: Sequence[str] | None) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            args = complete(make_parser().parse_args(arguments))
            return int(args.run(args))
        finally:
            if sys.stdout is not None:  # as in `splat-numba demo >&-`
                sys.stdout.flush()  # what cannot be written is told here, not while Python ends


def _fail(message: str) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"error: {message}\n")
    return 2


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"warning: {message}\n")
