"""A kernel's text rewritten to run on vectors of lanes: decisions on lanes become selects, branches must be uniform,
and names stand for values, as they do on a GPU, where NumPy's would stand for parts of arrays.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from splat_numba.errors import EmulationError


def choose(test: Any, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """``first if test else second``, lane by lane where the lanes differ."""
    flags = np.asarray(test)
    if flags.ndim == 0:
        return copied(first() if flags else second())
    return np.where(flags, first(), second())


def either(*tests: Any) -> Any:
    """``or`` of tests, lane by lane."""
    return reduce(np.logical_or, tests)


def both(*tests: Any) -> Any:
    """``and`` of tests, lane by lane."""
    return reduce(np.logical_and, tests)


def uniform(test: Any) -> bool:
    """Whether a branch is taken: by the warp as a whole, or, as ``if thread == 0``, by a lane for it."""
    return bool(np.any(test))


def copied(value: Any) -> Any:
    """What an element of an array is now, whatever is written there later."""
    return value.copy() if isinstance(value, np.ndarray) else value


FUNCTIONS = {one.__name__: one for one in (choose, either, both, uniform, copied)}


def vectorised(text: str) -> ast.Module:
    """The text's tree, which calls FUNCTIONS and write_registers. Raises EmulationError where it gives the registers of
    a matrix product to a function under another name.
    """
    tree = ast.parse(text)
    rewritten: ast.Module = _Vectorise(tree).visit(tree)
    return ast.fix_missing_locations(rewritten)


class _Vectorise(ast.NodeTransformer):
    """Conditional expressions, ``or`` and the tests of branches as calls of the functions above; what a matrix product
    takes from registers by name, and notes of what writes there.

    products: the names of functions that issue products, and whether their left operand is of registers; functions: the
    text's own, and the names of their parameters.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._products = _products(tree)
        self._functions = {
            node.name: [one.arg for one in node.args.args] for node in tree.body if isinstance(node, ast.FunctionDef)
        }
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        self._registers = {name for call in calls for name in self._taken(call)}

    def _taken(self, call: ast.Call) -> list[str]:
        """The names of a product's registers, the accumulator and the left operand's; none of another call."""
        if not (isinstance(call.func, ast.Name) and call.func.id in self._products):
            return []
        operands = call.args[:5] if self._products[call.func.id] else call.args[:1]
        return [name for operand in operands for name in _names(operand)]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if taken := self._taken(node):
            names = ast.Tuple([ast.Constant(name) for name in taken], ast.Load())
            node.keywords.append(ast.keyword("registers", names))
        elif isinstance(node.func, ast.Name) and node.func.id in self._functions:
            self._check_registers(node, self._functions[node.func.id])
            node.args = [_value(one) for one in node.args]
        return node

    def _check_registers(self, call: ast.Call, parameters: Sequence[str]) -> None:
        """Notes of writes are by name, so names must agree. Raises EmulationError."""
        for parameter, argument in zip(parameters, call.args, strict=False):
            given = argument.id if isinstance(argument, ast.Name) else None
            if given != parameter and not self._registers.isdisjoint({given, parameter}):
                raise EmulationError(
                    f"registers of a matrix product wanted under one name in all functions, got "
                    f"{ast.unparse(argument)} for {parameter} (line {call.lineno})"
                )

    def visit_Assign(self, node: ast.Assign) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        node.value = _value(node.value)
        return self._noted(node, node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST | list[ast.AST]:
        """Of a name, a new value: another name may stand for the one before."""
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            value = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
            made = ast.copy_location(ast.Assign([node.target], value), node)
            return self._noted(made, [node.target])
        return self._noted(node, [node.target])

    def _noted(self, node: ast.stmt, targets: list[ast.expr]) -> ast.AST | list[ast.AST]:
        written = sorted({name for target in targets for name in _names(target)} & self._registers)
        if not written:
            return node
        call = ast.Call(ast.Name("write_registers", ast.Load()), [ast.Constant(name) for name in written], [])
        return [node, ast.Expr(call)]

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        empty = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
        branches = [ast.Lambda(args=empty, body=part) for part in (node.body, node.orelse)]
        return ast.Call(func=ast.Name(id="choose", ctx=ast.Load()), args=[node.test, *branches], keywords=[])

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        name = "either" if isinstance(node.op, ast.Or) else "both"
        return ast.Call(func=ast.Name(id=name, ctx=ast.Load()), args=node.values, keywords=[])

    def visit_If(self, node: ast.If) -> ast.AST:
        return self._branch(node)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._branch(node)

    def _branch(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        node.test = ast.Call(func=ast.Name(id="uniform", ctx=ast.Load()), args=[node.test], keywords=[])
        found: ast.AST = node
        return found


def _value(node: ast.expr) -> ast.expr:
    """An expression that may be elements of arrays, as what they are now."""
    if isinstance(node, ast.Tuple):
        return ast.Tuple([_value(one) for one in node.elts], ast.Load())
    if isinstance(node, ast.Subscript):
        return ast.Call(ast.Name("copied", ast.Load()), [node], [])
    return node


def _products(tree: ast.Module) -> dict[str, bool]:
    """The module's names for matrix products, and whether each takes its left operand from registers."""
    found: dict[str, bool] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _is_maker(node.value.func):
            options = {one.arg: ast.literal_eval(one.value) for one in node.value.keywords}
            found |= {name: options["from_registers"] for target in node.targets for name in _names(target)}
    return found


def _is_maker(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == "matrix_product"


def _names(target: ast.expr) -> list[str]:
    """Of variables, or of those that elements are of."""
    if isinstance(target, ast.Tuple):
        return [name for one in target.elts for name in _names(one)]
    if isinstance(target, ast.Subscript):
        return _names(target.value)
    return [target.id] if isinstance(target, ast.Name) else []
