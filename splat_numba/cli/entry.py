"""The entry point: which command, and how errors and warnings look."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.help import DefaultFormatter, PanelSpec
from rich.box import Box

from splat_numba.cli.console import output
from splat_numba.cli.options import CommandError, in_options
from splat_numba.cli.refusals import refusal, without_command
from splat_numba.errors import SplatError
from splat_numba.plain import cause
from splat_numba.version import __version__

NAME = "splat-numba"
DESCRIPTION = "Sparse attention from kernels that are generated for a mask. Patterns are text: window(512) | sinks(4)"
EPILOG = """\
examples:
  splat-numba demo
  splat-numba explain "window(512) | sinks(4)" --seq 8192
  splat-numba COMMAND --help

exit status:
  0    fine
  1    a wrong result or a broken installation
  2    wrong argument, missing package, too little memory
  130  interrupted
"""
# A command's module is imported when the command is named, and gives it as APP; help for all of them needs none.
COMMANDS = {
    "demo": ("demo:APP", "Draw a few masks, generate and run a kernel for each, check the results, print one table."),
    "gallery": ("gallery:APP", "Draw the masks that people use, with their density and where they come from."),
    "explain": ("explain:EXPLAIN", "Draw a mask and say what kernel it gets: tiles, passes, predicted time, what was "
                                   "refused and why."),
    "source": ("explain:SOURCE", "Print the source text that is generated for a mask."),
    "bench": ("bench:APP", "Time attention beside torch SDPA (dense and masked) and FlexAttention, or beside dense "
                           "NumPy without torch."),
    "selftest": ("selftest:APP", "Fuzz every backend of this machine against the float64 oracle."),
    "doctor": ("doctor:APP", "Say what is present, what is missing, and what to install."),
    "cache": ("cache:APP", "List, remove, compile, export or import the kernels on disk."),
}  # fmt: skip


def _made() -> App:
    """All commands. A command is a function of its options that gives the exit status."""
    app = App(
        name=NAME,
        help=DESCRIPTION,
        help_epilogue=EPILOG,
        help_format="plaintext",
        help_formatter=DefaultFormatter(panel_spec=PanelSpec(box=Box("    \n" * 8, ascii=True), padding=(0, 0, 0, 3))),
        version=f"{NAME} {__version__}",
        # a flag has no --no-flag, which flags with "no" would double; of a number that is given twice the last counts
        default_parameter=Parameter(negative=(), allow_repeating=True),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    for number, (name, (place, text)) in enumerate(COMMANDS.items()):
        app.command(f"splat_numba.cli.{place}", name=name, help=text, sort_key=number)
    app.register_install_completion_command(help="Have bash, zsh or fish complete commands, options and their values.")
    return app


APP = _made()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command, or print help, and give the exit status."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except CommandError as error:
        return _fail(str(error))
    except CycloptsError as error:
        return _fail(refusal(error, NAME))
    except SplatError as error:
        return _fail(in_options(str(error)))
    except MemoryError:
        return _fail("these sizes need more memory than there is. Give a smaller --seq, --heads or --batch.")
    except BrokenPipeError:  # `splat-numba source ... | head`; the null device takes what Python flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, or no disk, behind standard output
        where = error.filename or "standard output"
        return _fail(f"{where} cannot be used: {cause(error)}. Make room, or give another place.")


def _run(arguments: Sequence[str]) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            command, bound, _ = APP.parse_args(arguments, console=output())
            if getattr(command, "__func__", None) is App.help_print and not {*arguments} & {*APP.help_flags}:
                raise without_command(APP, arguments)  # cyclopts has the help for it, and status 0
            return int(command(*bound.args, **bound.kwargs) or 0)  # None of help and of what cyclopts gives
        finally:
            if sys.stdout is not None:  # as in `splat-numba demo >&-`
                sys.stdout.flush()  # what cannot be written is told here, not while Python ends


def _fail(message: str) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"error: {message}\n")
    return 2


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    sys.stderr.write(f"warning: {message}\n")
