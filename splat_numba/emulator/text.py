"""A kernel's text made to run on vectors of lanes: decisions on lanes become selects, branches must be uniform."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import reduce
from types import SimpleNamespace
from typing import Any

import numpy as np

from splat_numba.emulator.block import Block
from splat_numba.emulator.copies import check_map
from splat_numba.emulator.exchange import Exchange
from splat_numba.emulator.meanings import meanings
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.errors import EmulationError
from splat_numba.gen.entry import Entry
from splat_numba.gen.lane_values import LANES


def choose(test: Any, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
    """``first if test else second``, lane by lane where the lanes differ."""
    flags = np.asarray(test)
    if flags.ndim == 0:
        return first() if flags else second()
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


class _Vectorise(ast.NodeTransformer):
    """Conditional expressions, ``or`` and the tests of branches as calls of the functions above; what a matrix product
    takes from registers by name, and notes of what writes there.

    products: the names of functions that issue products, and whether their left operand is of registers.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._products = _products(tree)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and self._is_product(node)]
        self._registers = {name for call in calls for name in self._taken(call)}

    def _is_product(self, call: ast.Call) -> bool:
        return isinstance(call.func, ast.Name) and call.func.id in self._products

    def _taken(self, call: ast.Call) -> list[str]:
        """The names of a product's registers: the accumulator, and the left operand's."""
        operands = call.args[:5] if self._products[call.func.id] else call.args[:1]  # type: ignore[attr-defined]
        return [name for operand in operands for name in _names(operand)]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if self._is_product(node):
            taken = ast.Tuple([ast.Constant(name) for name in self._taken(node)], ast.Load())
            node.keywords.append(ast.keyword("registers", taken))
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | list[ast.AST]:
        return self._noted(node, node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST | list[ast.AST]:
        return self._noted(node, [node.target])

    def _noted(self, node: ast.stmt, targets: list[ast.expr]) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
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


def _local_array(size: int, dtype: Any) -> Any:
    """Registers: one number a lane and place, NaN or all ones before anything is written."""
    fill = np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return np.full((size, LANES), fill, dtype)


def _vectorised(text: str) -> ast.Module:
    tree = ast.parse(text)
    return ast.fix_missing_locations(_Vectorise(tree).visit(tree))  # type: ignore[no-any-return]


NUMBERS = {"r": np.uint32, "l": np.uint64, "f": np.float32}


def launch(
    text: str,
    name: str,
    entry: Entry,
    values: Mapping[str, Any],
    memory: GlobalMemory,
    maps: list[Any],
    *,
    grid: int,
    late: bool = False,
) -> None:
    """Run all blocks of a launch, one after the other; name: of the text; values: of the entry's parameters, by name.

    Raises EmulationError, naming block, warp and the text's line, or the tensor map that a driver would refuse.
    """
    for one in maps:
        check_map(one)
    tree = _vectorised(text)
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    code = compile(tree, name, "exec")
    warps = entry.threads // LANES
    arguments = [NUMBERS[kind](values[parameter]) for parameter, kind in entry.parameters]
    exchange = Exchange(memory)
    for index in range(grid):
        block = Block(memory, maps, entry.shared_bytes, index, grid, exchange=exchange, late=late, text=name)
        cuda = SimpleNamespace(
            shared=SimpleNamespace(array=lambda *_, **__: None), local=SimpleNamespace(array=_local_array)
        )
        names: dict[str, Any] = {
            "np": np, "cuda": cuda, "ptx": meanings(block), "choose": choose, "uniform": uniform,
            "either": either, "both": both, "write_registers": lambda *names, of=block: of.registers.write(*names),
        }  # fmt: skip
        exec(code, names)  # noqa: S102 - the text is our own
        try:
            block.run(warps, lambda names=names: names[entry.name](*arguments))  # type: ignore[misc]
        except EmulationError as error:
            at = f"block {index}, warp {block.failed_warp}, line {_line(error, name)} of {name}"
            raise EmulationError(f"{error} ({at})") from error


def _line(error: BaseException, name: str) -> int:
    """The line of the text that the error came from."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
