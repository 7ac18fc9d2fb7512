"""Formulas as Python expressions: the language of feature maps. Checked, evaluated with NumPy, and differentiated.

An expression has numbers, the names it is given (x, in derivatives y too), + - * /, ** with a whole number, the
functions exp, log, sqrt and maximum, and `a if p < q else b` with one comparison: kernels can print it for any target.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import kind, shown

FUNCTIONS: dict[str, Callable[..., Any]] = {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "maximum": np.maximum}
LARGEST_POWER = 16
LARGEST_INTEGER = 2**53  # as a float it is exact
LONGEST_TEXT = 20_000  # characters: a derivative is several times as long as its formula
DEEPEST = 200  # operations within each other; Python's own limit is 1,000 calls
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal,
    ast.Eq: np.equal, ast.NotEq: np.not_equal,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power,
}  # fmt: skip


def parse(name: str, text: str, variables: Collection[str] = ("x",)) -> ast.expr:
    """The checked expression. name: of the argument, for messages. Raises ArgumentError, ArgumentTypeError."""
    if not isinstance(text, str):
        raise ArgumentTypeError(f"{name} wanted as text, got {kind(text)}. Write a formula, such as 'exp(x)'.")
    if len(text) > LONGEST_TEXT:
        raise ArgumentError(f"{name} wanted with at most {LONGEST_TEXT} characters, got {len(text)}. Simplify it.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # MemoryError: the parser's own stack
        reason = getattr(error, "msg", None) or str(error) or "it is nested too deeply"
        raise ArgumentError(
            f"{name} wanted as one Python expression, got {shown(text)}: {reason}. Write a formula, such as 'exp(x)'."
        ) from error
    _check(name, tree, frozenset(variables), DEEPEST)
    return tree


def _check(name: str, node: ast.expr, variables: frozenset[str], depth: int) -> None:
    if not depth:
        raise ArgumentError(f"{name} wanted with at most {DEEPEST} nested operations, got more. Simplify it.")
    for part in _parts(name, node, variables):
        _check(name, part, variables, depth - 1)


def _parts(name: str, node: ast.expr, variables: frozenset[str]) -> list[ast.expr]:
    """The operands of an allowed operation; ArgumentError for others."""
    match node:
        case ast.Constant(value=bool()):
            pass  # no number, although bool is an int
        case ast.Constant(value=int() as value) if value <= LARGEST_INTEGER:
            return []
        case ast.Constant(value=float() as value) if math.isfinite(value):
            return []
        case ast.Name(id=word) if word in variables:
            return []
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return [inner]
        case ast.BinOp(left=base, op=ast.Pow(), right=power):
            exponent = power.value if isinstance(power, ast.Constant) else None
            if type(exponent) is not int or exponent > LARGEST_POWER:  # True is an int, too
                raise ArgumentError(
                    f"{name} wanted with whole powers from 0 to {LARGEST_POWER}, got {shown(ast.unparse(node))}. "
                    "Write sqrt(x), a division, or exp(a * log(x))."
                )
            return [base]
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return [left, right]
        case ast.IfExp(test=ast.Compare(left=left, ops=[_], comparators=[right]), body=body, orelse=other):
            return [left, right, body, other]
        case ast.Call(func=ast.Name(id=word), args=inputs, keywords=[]) if word in FUNCTIONS:
            if len(inputs) == (2 if word == "maximum" else 1):
                return inputs
    raise ArgumentError(
        f"{name} wanted with {', '.join(sorted(variables))}, numbers, + - * / **, {', '.join(FUNCTIONS)} and "
        f"'a if x > b else c', got {shown(ast.unparse(node))}. Write it with these."
    )


def evaluate(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """The value of a checked expression, elementwise; both sides of a condition are computed."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=word):
            return values[word]
        case ast.UnaryOp(operand=inner):
            return np.negative(evaluate(inner, values))
        case ast.BinOp(left=left, op=operator, right=right):
            return _OPERATORS[type(operator)](evaluate(left, values), evaluate(right, values))
        case ast.IfExp(test=ast.Compare(left=left, ops=[comparison], comparators=[right]), body=body, orelse=other):
            kept = _COMPARISONS[type(comparison)](evaluate(left, values), evaluate(right, values))
            return np.where(kept, evaluate(body, values), evaluate(other, values))
        case ast.Call(func=ast.Name(id=word), args=inputs):
            return FUNCTIONS[word](*(evaluate(one, values) for one in inputs))
    raise AssertionError(ast.dump(node))  # parse() lets nothing else through


def differentiate(node: ast.expr) -> ast.expr:
    """The derivative of a checked expression by x. Where two cases meet, that of the case which holds there."""
    match node:
        case ast.Constant():
            return _number(0.0)
        case ast.Name():
            return _number(1.0)
        case ast.UnaryOp(operand=inner):
            return _negate(differentiate(inner))
        case ast.BinOp():
            return _of_operator(node.left, node.op, node.right)
        case ast.IfExp(test=test, body=body, orelse=other):
            return _choose(test, differentiate(body), differentiate(other))
        case ast.Call(func=ast.Name(id="maximum"), args=[left, right]):
            larger = ast.Compare(left, [ast.Gt()], [right])
            return _choose(larger, differentiate(left), differentiate(right))
        case ast.Call(func=ast.Name(id="exp"), args=[inner]):
            return _times(node, differentiate(inner))
        case ast.Call(func=ast.Name(id="log"), args=[inner]):
            return _over(differentiate(inner), inner)
        case ast.Call(func=ast.Name(id="sqrt"), args=[inner]):
            return _over(differentiate(inner), _times(_number(2.0), node))
    raise AssertionError(ast.dump(node))


def _of_operator(left: ast.expr, operator: ast.operator, right: ast.expr) -> ast.expr:
    slope = differentiate(left)
    if isinstance(operator, ast.Pow):
        power = int(ast.literal_eval(right))
        rest = [_number(1.0), _number(1.0), left][power] if power <= 2 else _power(left, power - 1)
        return _times(_times(_number(float(power)), rest), slope)
    other = differentiate(right)
    if isinstance(operator, ast.Mult):
        return _plus(_times(slope, right), _times(left, other))
    if isinstance(operator, ast.Div):
        falling = _over(_times(left, other), _power(right, 2))
        return _plus(_over(slope, right), _negate(falling))
    return _plus(slope, _negate(other) if isinstance(operator, ast.Sub) else other)


# Expressions from parts, without sums of 0 and products of 0 or 1.


def _number(value: float) -> ast.expr:
    return ast.Constant(value)


def _power(node: ast.expr, power: int) -> ast.expr:
    return ast.BinOp(node, ast.Pow(), ast.Constant(power))


def _is(node: ast.expr, value: float) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _negate(node: ast.expr) -> ast.expr:
    return node if _is(node, 0.0) else ast.UnaryOp(ast.USub(), node)


def _plus(left: ast.expr, right: ast.expr) -> ast.expr:
    if _is(left, 0.0) or _is(right, 0.0):
        return right if _is(left, 0.0) else left
    if isinstance(right, ast.UnaryOp):
        return ast.BinOp(left, ast.Sub(), right.operand)
    return ast.BinOp(left, ast.Add(), right)


def _times(left: ast.expr, right: ast.expr) -> ast.expr:
    if _is(left, 0.0) or _is(right, 0.0):
        return _number(0.0)
    if _is(left, 1.0) or _is(right, 1.0):
        return right if _is(left, 1.0) else left
    return ast.BinOp(left, ast.Mult(), right)


def _over(left: ast.expr, right: ast.expr) -> ast.expr:
    return left if _is(left, 0.0) else ast.BinOp(left, ast.Div(), right)


def _choose(test: ast.expr, body: ast.expr, other: ast.expr) -> ast.expr:
    return body if ast.dump(body) == ast.dump(other) else ast.IfExp(test, body, other)
