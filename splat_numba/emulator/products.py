"""Matrix products of a warpgroup: descriptors, swizzled tiles and the lanes' fragments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator.block import Block, Product
from splat_numba.emulator.lanes import named, uniform
from splat_numba.emulator.memory import Who, swizzled
from splat_numba.errors import EmulationError
from splat_numba.gen.language.fragments import left_rows, spread
from splat_numba.gen.language.lane_values import Reals, canonical, widen


class Products:
    """They happen as late as they may, when they are waited for, and read their operands then; fences must have been
    made when they are issued.
    """

    def __init__(self, block: Block) -> None:
        self._block = block

    def wgmma_fence(self) -> None:
        """The warp's registers, before products that take them."""
        self._block.registers.fence()

    def wgmma_commit(self) -> None:
        """What was issued since is a group."""
        self._block.pending.append([])

    def wgmma_wait_all(self) -> None:
        """All groups are done after it."""
        self._finish(0)

    def wgmma_wait_but_one(self) -> None:
        """All groups but the last are done after it."""
        self._finish(1)

    def _finish(self, groups_left: int) -> None:
        self._block.linger()
        pending = self._block.pending
        while len(pending) - 1 > groups_left:
            for product in pending.pop(0):
                product.finish()

    def matrix_product(
        self,
        columns: int,
        dtype: str,
        *,
        from_registers: bool,
        transposed: bool,
        a_transposed: bool = False,
        fresh: bool = False,
    ) -> Callable[..., None]:
        """See gen.language.instructions.MatrixProduct."""
        block = self._block

        def issue(accumulator: Any, *operands: Any, registers: tuple[str, ...] = ()) -> None:
            block.registers.check(registers)
            rows = np.arange(16 * (block.warp % 4), 16 * (block.warp % 4) + 16)
            *left, right = operands if from_registers else operands[:2]
            b_at = uniform(right, "descriptor")
            add = not fresh and (from_registers or bool(uniform(operands[2], "whether to add")))
            b_tile = columns_of(block, b_at, columns) if transposed else rows_of(block, b_at, np.arange(columns))
            a_at = 0 if from_registers else uniform(left[0], "descriptor")
            if not from_registers:
                a_tile = columns_of(block, a_at, 64) if a_transposed else rows_of(block, a_at, rows)

            def product() -> None:
                if from_registers:
                    a = left_rows(left, dtype)
                else:
                    a = a_tile.numbers(dtype).T[rows] if a_transposed else a_tile.numbers(dtype)
                b = b_tile.numbers(dtype)
                sums = spread(a @ (b if transposed else b.T))
                accumulator[...] = canonical(accumulator + sums if add else sums)

            block.pending[-1].append(Product(product, block.line()))

        return issue


@dataclass(frozen=True, slots=True)
class Tile:
    """16-bit numbers of shared memory, at these places of their first bytes; by: names those that are bad."""

    block: Block
    places: NDArray[np.int64]
    by: Who

    @classmethod
    def of(cls, block: Block, places: NDArray[np.int64], by: Who) -> Tile:
        """At logical places of swizzled tiles, which the engine reads from now on. Raises EmulationError."""
        at = swizzled(places)
        block.shared.check(at[..., None], by)
        block.check_fenced(at, by)
        return cls(block, at, by)

    def numbers(self, dtype: str) -> Reals:
        """As they are now. Raises EmulationError."""
        found = self.block.shared.load(self.places[..., None] + np.arange(2), self.by)
        return widen(np.ascontiguousarray(found).view(np.uint16)[..., 0], dtype)


def _descriptor(descriptor: int) -> tuple[int, int, int]:
    """Start, leading and stride offset in bytes. Raises EmulationError for another layout than the 128-byte swizzle."""
    if descriptor >> 62 != 1:
        raise EmulationError(f"descriptor wanted with the 128-byte swizzle, got {descriptor:#x}")
    return (descriptor & 0x3FFF) << 4, (descriptor >> 16 & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4


def rows_of(block: Block, descriptor: int, rows: NDArray[np.int64]) -> Tile:
    """(rows, 16) numbers of a tile that is stored row by row."""
    start, _, stride = _descriptor(descriptor)
    places = start + (rows // 8 * stride + rows % 8 * 128)[:, None] + 2 * np.arange(16)
    return Tile.of(block, places, lambda bad: f"{named(rows[bad.any(1)], 'row')} of a matrix product")


def columns_of(block: Block, descriptor: int, columns: int) -> Tile:
    """(16, columns) numbers of a tile whose columns stand together, 64 in a span."""
    start, leading, stride = _descriptor(descriptor)
    row, column = np.arange(16)[:, None], np.arange(columns)
    places = start + row // 8 * stride + row % 8 * 128 + column // 64 * leading + column % 64 * 2
    return Tile.of(block, places, lambda bad: f"{named(column[bad.any(0)], 'column')} of a matrix product")
