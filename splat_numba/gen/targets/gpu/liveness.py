"""Which names a text's statements want from before, and which of those they assign are wanted afterwards.

Statements are those that kernels are written in: assignments, calls, ``if``, ``for`` and ``while``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence


class Liveness:
    """Names that are wanted behind each statement of a function."""

    def __init__(self, statements: Sequence[ast.stmt]) -> None:
        self._behind: dict[ast.stmt, set[str]] = {}
        self.before(statements, ())

    def behind(self, statement: ast.stmt) -> frozenset[str]:
        """Names wanted after a statement; in a loop, after any of its rounds."""
        return frozenset(self._behind[statement])

    def before(self, statements: Sequence[ast.stmt], wanted: Iterable[str]) -> set[str]:
        """Names wanted before these statements, if ``wanted`` are afterwards."""
        live = set(wanted)
        for statement in reversed(statements):
            self._behind.setdefault(statement, set()).update(live)
            live = self._of(statement, live)
        return live

    def _of(self, statement: ast.stmt, live: set[str]) -> set[str]:
        match statement:
            case ast.Assign(targets=targets, value=value):
                return (live - _bound(*targets)) | _read(*targets, value)
            case ast.AugAssign(target=target, value=value):
                return live | names(target) | _read(value)
            case ast.Expr(value=value):
                return live | _read(value)
            case ast.If(test=test, body=body, orelse=orelse):
                return self.before(body, live) | self.before(orelse, live) | _read(test)
            case ast.While(test=test, body=body):
                again = live | _read(test)
                return again | self.before(body, again | self.before(body, again))
            case ast.For(target=target, iter=several, body=body):
                again = live | self.before(body, live)
                first = self.before(body, again) - _bound(target)
                return first | _read(several) | (set() if _is_taken(several) else live)
            case _:
                raise TypeError(f"statement wanted of those that kernels have, got {ast.unparse(statement)}")


def assigned(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that statements bind, but not those of arrays of which they set elements."""
    return _bound(*statements)


def counters(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that loops count by."""
    return _bound(*(node.target for one in statements for node in ast.walk(one) if isinstance(node, ast.For)))


def _bound(*nodes: ast.AST) -> set[str]:
    return {name for node in nodes for name in names(node, ast.Store)}


def _read(*nodes: ast.AST) -> set[str]:
    return {name for node in nodes for name in names(node, ast.Load)}


def names(node: ast.AST, context: type[ast.expr_context] = ast.expr_context) -> set[str]:
    """All variables of a piece of text; with a context, those that it reads or binds."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, context)}


def _is_taken(several: ast.expr) -> bool:
    """Whether a loop is over a range of numbers known here, at least one."""
    match several:
        case ast.Call(func=ast.Name(id="range"), args=arguments) if all(
            isinstance(one, ast.Constant) for one in arguments
        ):
            return len(range(*(ast.literal_eval(one) for one in arguments))) > 0
        case _:
            return False
