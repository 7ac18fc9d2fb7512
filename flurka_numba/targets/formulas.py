"""A feature map's formula as text of a GPU kernel: float32 throughout, and selects in place of branches."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from flurka_numba.expressions import parse

_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453


def gpu_text(source: str, variable: str) -> str:
    """The formula of a feature map for the float32 ``variable``."""
    return _print(parse("source", source), {"x": variable})


def gpu_slope(derivative: str, variable: str, value: str) -> str:
    """The formula of a feature map's derivative for the float32 ``variable`` and ``value``, phi of it."""
    return _print(parse("derivative", derivative, ("x", "y")), {"x": variable, "y": value})


def _print(node: ast.expr, x: Mapping[str, str]) -> str:
    match node:
        case ast.Constant(value=int() | float() as value):
            return f"f32({float(value)!r})"
        case ast.Name(id=name):
            return x[name]
        case ast.UnaryOp(operand=inner):
            return f"(-{_print(inner, x)})"
        case ast.BinOp(left=base, op=ast.Pow(), right=power):
            return _power(_print(base, x), int(ast.literal_eval(power)))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return f"({_print(left, x)} * ptx.reciprocal({_print(right, x)}))"
        case ast.BinOp(left=left, op=operator, right=right):
            return f"({_print(left, x)} {_SIGNS[type(operator)]} {_print(right, x)})"
        case ast.IfExp(test=ast.Compare(left=left, ops=[one], comparators=[right]), body=body, orelse=other):
            test = f"{_print(left, x)} {_COMPARISONS[type(one)]} {_print(right, x)}"
            return f"ptx.select_real({_print(body, x)}, {_print(other, x)}, u32(1) if {test} else u32(0))"
        case ast.Call(func=ast.Name(id=name), args=inputs):
            return _call(name, [_print(one, x) for one in inputs])
    raise AssertionError(ast.dump(node))  # parse() lets nothing else through


def _power(base: str, power: int) -> str:
    return f"({' * '.join([base] * power)})" if power else "f32(1.0)"


def _call(name: str, inputs: list[str]) -> str:
    if name == "exp":
        return f"ptx.exp2({inputs[0]} * f32({LOG2_E}))"
    if name == "log":
        return f"(ptx.log2({inputs[0]}) * f32({LN_2}))"
    if name == "sqrt":
        return f"ptx.square_root({inputs[0]})"
    return f"ptx.maximum({', '.join(inputs)})"
