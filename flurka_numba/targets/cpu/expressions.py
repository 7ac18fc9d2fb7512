"""A feature map's formula as text on vectors."""

from __future__ import annotations

import ast

NAMES = {"exp": "exp", "log": "log", "sqrt": "square_root", "maximum": "larger"}
_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def render(node: ast.expr) -> str:
    """Text of a checked expression in vectors of the same names; both sides of a condition are computed."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return f"splat(real({float(value)!r}))"
        case ast.Name(id=word):
            return word
        case ast.UnaryOp(operand=inner):
            return f"(splat(real(0.0)) - {render(inner)})"
        case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int(power))):
            return f"({' * '.join([render(base)] * power)})" if power else "splat(real(1.0))"
        case ast.BinOp(left=left, op=operator, right=right):
            return f"({render(left)} {_OPERATORS[type(operator)]} {render(right)})"
        case ast.IfExp(test=ast.Compare(left=left, ops=[comparison], comparators=[right]), body=body, orelse=other):
            return _choice(comparison, *(render(part) for part in (left, right, body, other)))
        case ast.Call(func=ast.Name(id=word), args=inputs):
            return f"{NAMES[word]}({', '.join(render(one) for one in inputs)})"
    raise AssertionError(ast.dump(node))  # expressions.parse lets nothing else through


def _choice(comparison: ast.cmpop, left: str, right: str, body: str, other: str) -> str:
    """``body`` where the comparison holds: vectors have > and == only, and neither holds for NaN."""
    match comparison:
        case ast.Gt():
            return f"select({left} > {right}, {body}, {other})"
        case ast.Lt():
            return f"select({right} > {left}, {body}, {other})"
        case ast.Eq():
            return f"select({left} == {right}, {body}, {other})"
        case ast.NotEq():
            return f"select({left} == {right}, {other}, {body})"
        case ast.GtE():
            return f"select({left} > {right}, {body}, select({left} == {right}, {body}, {other}))"
    return f"select({right} > {left}, {body}, select({left} == {right}, {body}, {other}))"
