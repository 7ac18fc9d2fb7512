"""How long the functions of a text are, and how deep its lines stand: what makes it readable."""

import ast
from dataclasses import dataclass

from splat_numba.gen.language.writer import INDENT

MOST_LINES, MOST_LEVELS = 80, 5


@dataclass(frozen=True, slots=True)
class FunctionShape:
    """Lines of a function, its decorator not counted, and levels of its deepest line, of which its own are one."""

    name: str
    lines: int
    depth: int


def shape_of_text(text):
    """The shape of each of a text's functions, in their order."""
    lines = text.splitlines()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return [
        FunctionShape(one.name, one.end_lineno - one.lineno + 1, max(map(levels, lines[one.lineno : one.end_lineno])))
        for one in functions
    ]


def levels(line):
    """How deep a line stands."""
    return (len(line) - len(line.lstrip())) // len(INDENT)


def unreadable(text):
    """Functions that are too long or too deep."""
    return [one for one in shape_of_text(text) if one.lines > MOST_LINES or one.depth > MOST_LEVELS]
