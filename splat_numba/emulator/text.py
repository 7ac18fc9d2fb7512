"""A launch: the text runs as it is rewritten for vectors of lanes, its functions plain ones, block by block."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from splat_numba.emulator.block import Block
from splat_numba.emulator.copies import check_map
from splat_numba.emulator.exchange import Exchange
from splat_numba.emulator.meanings import meanings
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.vectorise import FUNCTIONS, vectorised
from splat_numba.errors import EmulationError
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_values import LANES


def _local_array(size: int, dtype: Any) -> Any:
    """Registers: one number a lane and place, NaN or all ones before anything is written."""
    fill = np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return np.full((size, LANES), fill, dtype)


CUDA = SimpleNamespace(
    shared=SimpleNamespace(array=lambda *_, **__: None),
    local=SimpleNamespace(array=_local_array),
    jit=lambda **_: lambda function: function,
)
"""What a text calls ``cuda``: device functions are called as they are."""
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
    tree = vectorised(text)
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    code = compile(tree, name, "exec")
    warps = entry.threads // LANES
    arguments = [NUMBERS[kind](values[parameter]) for parameter, kind in entry.parameters]
    exchange = Exchange(memory)
    for index in range(grid):
        block = Block(memory, maps, entry.shared_bytes, index, grid, exchange=exchange, late=late, text=name)
        names: dict[str, Any] = {
            **FUNCTIONS, "np": np, "cuda": CUDA, "ptx": meanings(block),
            "write_registers": lambda *names, of=block: of.registers.write(*names),
        }  # fmt: skip
        exec(code, names)  # noqa: S102 - the text is our own
        try:
            block.run(warps, partial(names[entry.name], *arguments))
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
