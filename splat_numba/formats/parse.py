"""Patterns as text: the same language as their repr, read without evaluating anything.

The text is parsed as a Python expression and walked; only the constructors of `patterns` with integers, tuples and
lists as arguments, `|`, `&`, parentheses and `.align_end()` have a meaning, and anything else is refused.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable

from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.formats import patterns
from splat_numba.formats.patterns import Pattern

__all__ = ["parse"]

_CONSTRUCTORS: dict[str, Callable[..., Pattern]] = {
    name: getattr(patterns, name) for name in patterns.__all__ if name != "Pattern"
}
_LONGEST_TEXT = 100_000  # bounds the work on text from outside; room for documents(...) of some 10,000 lengths


def parse(text: str) -> Pattern:
    """The pattern that `text` describes, for example `parse("window(512) | sinks(4)")`; `parse(repr(p)) == p`.

    Nothing is evaluated: text from outside is safe to give.

    Parameters
    ----------
    text : str
        Patterns' constructors with numbers, `|`, `&`, parentheses and `.align_end()`; at most 100,000 characters.

    Returns
    -------
    Pattern
        For every length.

    Raises
    ------
    PatternTypeError
        If `text` is not a str.
    PatternError
        With the place in the text, for anything outside the language or for values that a constructor refuses.
    """
    if not isinstance(text, str):
        raise PatternTypeError(
            f"text: wanted a str such as 'window(512) | sinks(4)', got {type(text).__name__}. Pass text, or use a "
            "Pattern as it is."
        )
    if len(text) > _LONGEST_TEXT:
        raise PatternError(
            f"text: wanted at most {_LONGEST_TEXT} characters, got {len(text)}. Build it with the constructors."
        )
    if "#" in text:
        raise PatternError(f"text: wanted a pattern without comments, got {_shortened(text)!r}. Remove what follows #.")
    line = " ".join(text.splitlines()).strip()  # a newline separates as a space does
    try:
        return _pattern(ast.parse(line, mode="eval").body, line)
    except SyntaxError as error:
        raise PatternError(
            f"text: wanted an expression such as 'window(512) | sinks(4)', got {_shortened(text)!r}: {error.msg} at "
            f"column {error.offset or 1}. Check parentheses and operators."
        ) from None
    except (RecursionError, MemoryError):
        raise PatternError(
            f"text: wanted a moderately nested expression, got {_shortened(text)!r}, which nests too deeply. "
            "Build it with the constructors."
        ) from None
    except ValueError as error:
        if isinstance(error, PatternError):
            raise
        raise PatternError(f"text: wanted plain text, got {_shortened(text)!r}: {error}. Remove it.") from None


def _pattern(expression: ast.expr, text: str) -> Pattern:
    """The value of an expression, its parts first, from left to right, without recursion."""
    todo: list[ast.expr | ast.operator | None] = [expression]
    made: list[Pattern] = []
    while todo:
        node = todo.pop()
        if node is None:
            made.append(made.pop().align_end())
        elif isinstance(node, ast.operator):
            right, left = made.pop(), made.pop()
            made.append(left | right if isinstance(node, ast.BitOr) else left & right)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd)):
            todo += [node.op, node.right, node.left]
        elif isinstance(node, ast.Call) and _is_align_end(node) and isinstance(node.func, ast.Attribute):
            todo += [None, node.func.value]
        else:
            made.append(_leaf(node, text))
    return made[0]


def _leaf(node: ast.expr, text: str) -> Pattern:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _constructed(node, node.func.id, text)
    if isinstance(node, ast.Name):
        raise _refusal(node, text, _name_advice(node.id, called=False))
    if isinstance(node, ast.BoolOp):
        raise _refusal(node, text, "Combine patterns with | and &, not with 'or' and 'and'.")
    if isinstance(node, ast.Attribute) or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        raise _refusal(node, text, "The only method is .align_end(), without arguments.")
    raise _refusal(node, text, "Use constructors with integers, |, &, parentheses and .align_end().")


def _is_align_end(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Attribute) and node.func.attr == "align_end" and not (node.args or node.keywords)


def _constructed(node: ast.Call, name: str, text: str) -> Pattern:
    constructor = _CONSTRUCTORS.get(name)
    if constructor is None:
        raise _refusal(node.func, text, _name_advice(name, called=True))
    arguments = [_argument(argument, text) for argument in node.args]
    keywords = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise _refusal(keyword.value, text, "Write the arguments out; ** is not part of the language.")
        if keyword.arg in keywords:  # ast.parse leaves this to the compiler
            raise _refusal(node, text, f"Give {keyword.arg} once.")
        keywords[keyword.arg] = _argument(keyword.value, text)
    try:
        pattern: Pattern = inspect.unwrap(constructor)(*arguments, **keywords)  # its own TypeError is told below
    except PatternError as error:
        raise type(error)(f"{error} (in {_place(node, text)})") from None
    except TypeError as error:  # a wrong number of arguments, or a keyword that does not exist
        raise PatternError(
            f"text: wanted the arguments of {name}, got {_place(node, text)}: {error}. See help({name})."
        ) from None
    return pattern


def _argument(node: ast.expr, text: str) -> object:
    if isinstance(node, ast.Constant) and (type(node.value) is int or node.value is None):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _argument(node.operand, text)
        if type(number) is int:
            return -number  # no size is negative: the constructor says so, naming the argument
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_argument(item, text) for item in node.elts)
    raise _refusal(node, text, "Arguments are integers, or tuples and lists of integers.")


def _name_advice(name: str, *, called: bool) -> str:
    if name in _CONSTRUCTORS and not called:
        return f"Call it: {name}(...)."
    close = difflib.get_close_matches(name, _CONSTRUCTORS, n=1)
    if close:
        return f"{name!r} is not a constructor: did you mean {close[0]!r}?"
    return f"There are: {', '.join(_CONSTRUCTORS)}."


def _refusal(node: ast.expr, text: str, advice: str) -> PatternError:
    return PatternError(f"text: wanted a pattern such as 'window(512) | sinks(4)', got {_place(node, text)}. {advice}")


def _place(node: ast.expr, text: str) -> str:
    source = ast.get_source_segment(text, node) or text
    return f"{_shortened(source)!r} at column {node.col_offset + 1}"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
