"""Which names a text's statements want from before, and which of those they assign are wanted afterwards.

Statements are those that kernels are written in: assignments, calls, ``if``, ``for`` and ``while``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence


class Liveness:
    """Names that are wanted behind each statement of a function.

    places: line, column and name of all its variables, in this order.
    """

    def __init__(self, statements: Sequence[ast.stmt]) -> None:
        self._read: dict[ast.stmt, frozenset[str]] = {}  # by each itself, suites not counted; found once
        self._bound: dict[ast.stmt, frozenset[str]] = {}
        self._behind: dict[ast.stmt, set[str]] | None = {}
        self.places: list[tuple[int, int, str]] = []
        self.before(statements, ())
        self.places.sort()
        self._found, self._behind = self._behind, None

    def behind(self, statement: ast.stmt) -> frozenset[str]:
        """Names wanted after a statement of the function; in a loop, after any of its rounds."""
        return frozenset((self._found or {})[statement])

    def bound(self, statements: Iterable[ast.stmt]) -> set[str]:
        """Names that they assign, but not those of arrays of which they set elements."""
        found: set[str] = set()
        for one in _all(statements):
            found |= self._bound[one]
        return found

    def counters(self, statements: Iterable[ast.stmt]) -> set[str]:
        """Names that their loops count by."""
        return {name for one in _all(statements) if isinstance(one, ast.For) for name in self._bound[one]}

    def before(self, statements: Sequence[ast.stmt], wanted: Iterable[str]) -> set[str]:
        """Names wanted before statements of the function, if ``wanted`` are afterwards."""
        live = set(wanted)
        for statement in reversed(statements):
            if self._behind is not None:
                self._behind.setdefault(statement, set()).update(live)
            if statement not in self._read:
                self._look_at(statement)
            live = self._of(statement, live)
        return live

    def _look_at(self, statement: ast.stmt) -> None:
        variables = _own(statement)
        stored = frozenset(one.id for one in variables if isinstance(one.ctx, ast.Store))
        loaded = frozenset(one.id for one in variables if isinstance(one.ctx, ast.Load))
        self.places += [(one.lineno, one.col_offset, one.id) for one in variables]
        self._bound[statement] = stored
        self._read[statement] = loaded | stored if isinstance(statement, ast.AugAssign) else loaded

    def _of(self, statement: ast.stmt, live: set[str]) -> set[str]:
        read, bound = self._read[statement], self._bound[statement]
        match statement:
            case ast.If(body=body, orelse=orelse):
                return self.before(body, live) | self.before(orelse, live) | read
            case ast.While(body=body):
                again = live | read
                return again | self.before(body, again | self.before(body, again))
            case ast.For(iter=several, body=body):
                again = live | self.before(body, live)
                first = self.before(body, again) - bound
                return first | read | (set() if _is_taken(several) else live)
            case _:
                return (live - bound) | read


def names(node: ast.AST) -> frozenset[str]:
    """All variables of a piece of text."""
    return frozenset(one.id for one in _variables(node))


def _own(statement: ast.stmt) -> list[ast.Name]:
    """Variables of a statement itself. Raises TypeError for one that kernels do not have."""
    match statement:
        case ast.Assign() | ast.AugAssign() | ast.Expr():
            return _variables(statement)
        case ast.If(test=test) | ast.While(test=test):
            return _variables(test)
        case ast.For(target=target, iter=several):
            return _variables(target) + _variables(several)
    raise TypeError(f"statement wanted of those that kernels have, got {ast.unparse(statement)}")


def _variables(node: ast.AST) -> list[ast.Name]:
    return [one for one in ast.walk(node) if isinstance(one, ast.Name)]


def _all(statements: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    """Statements, and those of their suites."""
    for one in statements:
        yield one
        if isinstance(one, ast.If | ast.While | ast.For):
            yield from _all(one.body)
            yield from _all(one.orelse)


def _is_taken(several: ast.expr) -> bool:
    """Whether a loop is over a range of numbers known here, at least one."""
    match several:
        case ast.Call(func=ast.Name(id="range"), args=arguments) if all(
            isinstance(one, ast.Constant) for one in arguments
        ):
            return len(range(*(ast.literal_eval(one) for one in arguments))) > 0
    return False
