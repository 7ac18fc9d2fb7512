"""Where output goes, and how tables, numbers and progress look."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Protocol

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from splat_numba.runtime.notice import is_terminal, quiet

PIPE_WIDTH = 120  # files and pipes have no width of their own; COLUMNS sets another
NARROW = 100
WORDS_AT = 12  # the column where the words of explain() begin
LONGEST_WORD = 24  # that a column of text need not break; paths are longer, and may be broken


def output() -> Console:
    """Standard output: colours and the real width on a terminal, plain text elsewhere."""
    return _console(stderr=False)


def progress_output() -> Console:
    """Standard error, so that progress is seen while standard output goes to a file."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = (sys.stderr if stderr else sys.stdout) or io.StringIO()  # None where it is closed, as by `>&-`
    width = None if is_terminal(stream) or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def is_plain(console: Console) -> bool:
    """Whether to keep to ASCII: a dumb terminal, or an encoding without the other signs."""
    return console.is_dumb_terminal or console.options.ascii_only


def is_narrow(console: Console) -> bool:
    """Whether tables need their gaps for what is in them."""
    return console.width < NARROW


def make_table(console: Console, columns: Sequence[str], title: str | None = None) -> Table:
    """A table with its first column to the left and numbers to the right."""
    table = Table(
        box=box.ASCII2 if is_plain(console) else box.SIMPLE_HEAD,
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        padding=(0, 0 if is_narrow(console) else 1),
        pad_edge=False,
        collapse_padding=True,
    )
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=False)
    return table


def print_table(console: Console, table: Table) -> None:
    """The table, or its rows one by one where the console is too narrow to read it side by side."""
    if _readable_width(table) <= console.width:
        console.print(table)
        return
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        first, *others = (
            re.sub(r"(?<![_(])\n", " ", str(cell)).replace("\n", "") for cell in cells
        )  # as before break_label
        console.print(Text(first, style="bold"))
        for column, cell in zip(table.columns[1:], others, strict=True):
            if cell:
                line = Text(f"{column.header}: {cell}")
                console.print(f"  {line}" if column.no_wrap else Padding(line, (0, 0, 0, 2)), soft_wrap=column.no_wrap)


def print_words(console: Console, text: str) -> None:
    """Lines that begin with a name in a column of its own; too long for a terminal, they go on below their words."""
    for line in text.splitlines():
        shown = [line]
        if console.is_terminal:
            shown = wrap(line, console.width, subsequent_indent=" " * WORDS_AT, break_on_hyphens=False) or [line]
        console.print("\n".join(shown), soft_wrap=True)


def _readable_width(table: Table) -> int:
    """Characters that the table needs: cells of numbers stay whole, words as far as LONGEST_WORD."""
    widths = []
    for column in table.columns:
        texts = [str(cell) for cell in column.cells]
        if column.justify == "right" or column.no_wrap:
            widths += [max((len(line) for text in texts for line in text.splitlines()), default=0)]
        else:
            widths += [min(LONGEST_WORD, max((len(word) for text in texts for word in text.split()), default=0))]
        widths[-1] = max(widths[-1], *(len(word) for word in f"{column.header} ".split(" ")))
    return sum(widths) + len(widths) - 1


def break_label(text: str, width: int) -> str:
    """A pattern's text over several lines of at most ``width`` characters, where it has a natural place to break."""
    lines = [""]
    for piece in re.findall(r".*?(?:[_(]|, | \| | & |$)", text):
        if len(lines[-1]) + len(piece.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def milliseconds(seconds: float) -> str:
    """A time to three digits, in ms below ten seconds."""
    value = seconds * 1e3
    if value >= 1e4:
        return f"{seconds:,.1f} s"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} ms"


def percent(share: float) -> str:
    """A share in percent; small ones keep two digits that say something."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 99.95 or value == 0 else f"{value:.1f}%" if value >= 1 else f"{value:.2g}%"


class Tracker(Protocol):
    """Tells what is being done."""

    def __call__(self, what: str, done: int) -> None:
        """``what`` begins; ``done`` steps are over."""


@contextmanager
def progress(total: int) -> Iterator[Tracker]:
    """A bar on standard error while ``total`` steps run; nothing where that is not a terminal."""
    console = progress_output()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), TimeElapsedColumn())
    hidden = not console.is_terminal or console.is_dumb_terminal
    with quiet(), Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=total)
        yield lambda what, done: bar.update(task, description=what, completed=done)
