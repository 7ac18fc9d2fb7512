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
    """Conditional expressions, ``or`` and the tests of branches as calls of the functions above."""

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


def _local_array(size: int, dtype: Any) -> Any:
    """Registers: one number a lane and place, NaN or all ones before anything is written."""
    fill = np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return np.full((size, LANES), fill, dtype)


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
    tree = ast.fix_missing_locations(_Vectorise().visit(ast.parse(text)))
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    code = compile(tree, name, "exec")
    warps = entry.threads // LANES
    arguments = [NUMBERS[kind](values[parameter]) for parameter, kind in entry.parameters]
    for index in range(grid):
        block = Block(memory, maps, entry.shared_bytes, index, grid, late=late, text=name)
        cuda = SimpleNamespace(
            shared=SimpleNamespace(array=lambda *_, **__: None), local=SimpleNamespace(array=_local_array)
        )
        names: dict[str, Any] = {
            "np": np, "cuda": cuda, "ptx": meanings(block), "choose": choose, "uniform": uniform,
            "either": either, "both": both,
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
