"""SourceWriter: whole statements in, indented Python text out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent

INDENT = "    "


class SourceWriter:
    """Collects lines of Python; ``block`` opens an indented suite."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    def line(self, text: str = "") -> None:
        """One statement or comment at the current depth; an empty text is a blank line."""
        self._lines.append(INDENT * self._depth + text if text else "")

    def lines(self, text: str) -> None:
        """Several statements, dedented, their own nesting kept."""
        for part in dedent(text).strip("\n").splitlines():
            self.line(part)

    @contextmanager
    def suite(self) -> Iterator[None]:
        """What is written inside stands one level deeper."""
        self._depth += 1
        yield
        self._depth -= 1

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """``header:`` and an indented suite for what is written inside."""
        self.line(f"{header}:")
        with self.suite():
            yield

    @contextmanager
    def function(self, decorator: str, header: str, docstring: str = "") -> Iterator[None]:
        """A decorated function: two blank lines, ``def header:``, its docstring if it has one, and a suite."""
        self.line()
        self.line()
        self.line(decorator)
        with self.block(f"def {header}"):
            if docstring:
                self.line(f'"""{docstring}"""')
            yield

    def text(self) -> str:
        """The whole source, ending in one newline."""
        return "\n".join(self._lines).rstrip("\n") + "\n"
