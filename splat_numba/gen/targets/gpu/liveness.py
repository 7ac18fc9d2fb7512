"""Which names a text's statements want from before, and which of those they assign are wanted afterwards.

Statements are those that kernels are written in: assignments, calls, ``if``, ``for`` and ``while``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effect:
    """What statements do to the names wanted behind them: these are wanted before, but for ``bound``, and ``read``."""

    read: frozenset[str] = frozenset()
    bound: frozenset[str] = frozenset()

    def before(self, wanted: Iterable[str]) -> set[str]:
        """Names wanted before, if ``wanted`` are behind."""
        return (set(wanted) - self.bound) | self.read

    def then(self, later: Effect) -> Effect:
        """This, and what follows."""
        return Effect(self.read | (later.read - self.bound), self.bound | later.bound)


class Liveness:
    """Names that are wanted behind each statement of a function.

    places: line, column and name of all its variables, in this order.
    """

    def __init__(self, statements: Sequence[ast.stmt]) -> None:
        self.places: list[tuple[int, int, str]] = []
        self._own: dict[ast.stmt, Effect] = {}  # of each itself, suites not counted
        self._effects: dict[ast.stmt, Effect] = {}
        self._behind: dict[ast.stmt, frozenset[str]] = {}
        self._effect(statements)
        self.places.sort()
        self._note(statements, frozenset())

    def behind(self, statement: ast.stmt) -> frozenset[str]:
        """Names wanted after a statement of the function; in a loop, after any of its rounds."""
        return self._behind[statement]

    def bound(self, statements: Iterable[ast.stmt]) -> set[str]:
        """Names that they assign, but not those of arrays of which they set elements."""
        return set[str]().union(*(self._own[one].bound for one in _all(statements)))

    def counters(self, statements: Iterable[ast.stmt]) -> set[str]:
        """Names that their loops count by."""
        return set[str]().union(*(self._own[one].bound for one in _all(statements) if isinstance(one, ast.For)))

    def before(self, statements: Sequence[ast.stmt], wanted: Iterable[str]) -> set[str]:
        """Names wanted before statements of the function, if ``wanted`` are afterwards."""
        return self._effect(statements).before(wanted)

    def _effect(self, statements: Sequence[ast.stmt]) -> Effect:
        found = Effect()
        for one in reversed(statements):
            if one not in self._effects:
                self._effects[one] = self._of(one)
            found = self._effects[one].then(found)
        return found

    def _of(self, statement: ast.stmt) -> Effect:
        own = self._own[statement] = self._look_at(statement)
        match statement:
            case ast.If(body=body, orelse=orelse):
                first, second = self._effect(body), self._effect(orelse)
                return Effect(own.read | first.read | second.read, first.bound & second.bound)
            case ast.While(body=body):
                return Effect(own.read | self._effect(body).read)
            case ast.For(iter=several, body=body):
                inside = self._effect(body)
                bound = own.bound | inside.bound if _is_taken(several) else frozenset[str]()
                return Effect(own.read | (inside.read - own.bound), bound)
        return own

    def _look_at(self, statement: ast.stmt) -> Effect:
        variables = _own(statement)
        self.places += [(one.lineno, one.col_offset, one.id) for one in variables]
        read = frozenset(one.id for one in variables if isinstance(one.ctx, ast.Load))
        bound = frozenset(one.id for one in variables if isinstance(one.ctx, ast.Store))
        return Effect(read | bound if isinstance(statement, ast.AugAssign) else read, bound)

    def _note(self, statements: Sequence[ast.stmt], live: frozenset[str]) -> None:
        """What is wanted behind statements and those of their suites; behind a loop's round, its next one too."""
        for one in reversed(statements):
            self._behind[one] = live
            match one:
                case ast.If(body=body, orelse=orelse):
                    self._note(body, live)
                    self._note(orelse, live)
                case ast.While(body=body) | ast.For(body=body):
                    self._note(body, live | self._effects[one].read)
            live = frozenset(self._effects[one].before(live))


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
