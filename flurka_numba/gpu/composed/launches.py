"""Launches of the float32 texts over matrices: what each reads and writes, its grid, and its scratch memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from flurka_numba.gpu.composed.matrix import NO_LIMIT, Extent, Limit, Matrix, dense, dense_bytes, padded_columns
from flurka_numba.gpu.composed.plan import product_plan
from flurka_numba.targets.simt.add_up import THREADS as ADD_UP_THREADS
from flurka_numba.targets.simt.add_up import AddUpTraits
from flurka_numba.targets.simt.largest import LargestTraits
from flurka_numba.targets.simt.product_shape import LIMITS, NONE
from flurka_numba.targets.simt.rows import WARPS
from flurka_numba.targets.simt.text import OPERAND_STRIDES, RESULT_STRIDES, Text


class Machine(Protocol):
    """A GPU or an emulated one; launches are in the order of one stream."""

    multiprocessors: int

    def words(self, nbytes: int) -> tuple[Any, int]:
        """Fresh memory, aligned to 256 bytes: what keeps it, and its address."""

    def rows(self, name: str, shape: tuple[int, int, int, int]) -> tuple[Any, Matrix]:
        """Fresh memory for a result of the problem's dtype, with padded rows. name: "out", or of what this is the
        gradient.
        """

    def launch(self, text: Text, grid: int, values: Mapping[str, int | float]) -> None:
        """Run a text. values: of all its parameters."""


class Launches:
    """Scratch memory lives as long as this object."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._kept: list[Any] = []

    def scratch(self, extent: Extent, columns: int) -> Matrix:
        """A float32 matrix, of which nothing is known."""
        held, address = self._machine.words(dense_bytes("float32", extent, columns))
        self._kept.append(held)
        return dense(address, "float32", extent, columns)

    def numbers(self, count: int) -> int:
        """The address of so many float32 numbers."""
        held, address = self._machine.words(4 * count)
        self._kept.append(held)
        return address

    def product(
        self, a: Matrix, b: Matrix, result: Matrix, grid: tuple[int, int], sizes: tuple[int, int, int], *,
        outer: tuple[int, int] = (1, 1), scale: float = 1.0, addend: Matrix | None = None, limited: str | None = None,
        limit: Limit = NO_LIMIT, a_ones: bool = False, b_ones: bool = False,
    ) -> None:  # fmt: skip
        """result = scale A B + addend. grid: batch entries and heads of results; outer: of which products are summed.

        sizes: rows, depth, columns. a_ones: the last place of A's depth is 1; b_ones: the last column of B.
        """
        rows, depth, columns = sizes
        pairs = grid[0] * grid[1]
        if not pairs * rows * columns:
            return
        dtypes = (a.dtype, b.dtype, result.dtype)
        plan = product_plan(dtypes, pairs, sizes, outer[0] * outer[1], self._machine.multiprocessors)
        part_row = 4 * padded_columns(columns, "float32")
        common: dict[str, int | float] = {
            **result.numbers("result", RESULT_STRIDES),
            **(addend or Matrix(0, "float32", (0, 0, 0, 0))).numbers("addend", RESULT_STRIDES),
            **(limit.numbers if limited else NO_LIMIT.numbers),
            "heads": grid[1], "rows": rows, "columns": columns, "shares": plan.shares, "part_row": part_row,
            "limited": LIMITS[limited], "scale": scale, "parts": 0,
        }  # fmt: skip
        held = None
        if plan.shares > 1:
            held, parts = self._machine.words(plan.shares * pairs * rows * part_row)
            common["parts"] = parts
        values: dict[str, int | float] = {
            **common, **a.numbers("a", OPERAND_STRIDES), **b.numbers("b", OPERAND_STRIDES),
            "outer_heads": outer[1], "depth": depth, "depth_blocks": plan.depth_blocks, "steps": plan.steps,
            "steps_of_share": plan.steps_of_share, "row_blocks": plan.row_blocks, "column_blocks": plan.column_blocks,
            "a_ones": depth - 1 if a_ones else NONE, "b_ones": columns - 1 if b_ones else NONE,
            "a_along": int(abs(a.strides[3]) < abs(a.strides[2])),
            "b_along": int(abs(b.strides[2]) < abs(b.strides[3])),
        }  # fmt: skip
        self._machine.launch(plan.traits, pairs * plan.row_blocks * plan.column_blocks * plan.shares, values)
        if plan.shares > 1:
            quads = -(-columns // 4)
            values = common | {"quads": quads, "pairs": pairs}
            self._machine.launch(AddUpTraits(result.dtype), -(-pairs * rows * quads // ADD_UP_THREADS), values)
        del held  # in the stream's order, as all scratch memory

    def of_rows(
        self, text: Text, extent: Extent, operands: Mapping[str, Matrix], results: Mapping[str, Matrix],
        limit: Limit = NO_LIMIT, **values: int,
    ) -> None:  # fmt: skip
        """A text that takes rows one by one."""
        if not extent.pairs * extent.rows:
            return
        numbers = {**limit.numbers, "heads": extent.heads, "rows": extent.rows, "pairs": extent.pairs, **values}
        for name, one in operands.items():
            numbers |= one.numbers(name, OPERAND_STRIDES)
        for name, one in results.items():
            numbers |= one.numbers(name, RESULT_STRIDES)
        self._machine.launch(text, -(-extent.pairs * extent.rows // WARPS), numbers)

    def largest(self, u: Matrix, extent: Extent, columns: int, tops: int, limit: Limit, *, adding: bool) -> None:
        """The largest number of each head, to the float32 numbers ``tops``."""
        numbers = {**u.numbers("u", RESULT_STRIDES), **limit.numbers, "tops": tops, "heads": extent.heads}
        numbers |= {"rows": extent.rows, "columns": columns, "adding": int(adding)}
        self._machine.launch(LargestTraits(), extent.pairs, numbers)
