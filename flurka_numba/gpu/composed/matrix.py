"""Matrices of all batch entries and heads as addresses and strides, on a GPU or in an emulated one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flurka_numba.problem import ITEMSIZE

ROW_ALIGNMENT = 16  # bytes: of the rows of what kernels write


@dataclass(frozen=True, slots=True)
class Matrix:
    """strides: in bytes, of (batch, head, row, column); 0 for what batch entries or heads share."""

    address: int
    dtype: str
    strides: tuple[int, int, int, int]

    @property
    def turned(self) -> Matrix:
        """Rows for columns."""
        batch, head, row, column = self.strides
        return replace(self, strides=(batch, head, column, row))

    def part(self, entry: int, row: int) -> Matrix:
        """From a batch entry and a row on."""
        return replace(self, address=self.address + entry * self.strides[0] + row * self.strides[2])

    def numbers(self, name: str, axes: tuple[str, ...]) -> dict[str, int]:
        """The parameters of a text: the address, and strides in the order of axes, as unsigned numbers."""
        steps = (step % 2**64 for step in self.strides)
        return {name: self.address} | {f"{name}_{axis}": step for axis, step in zip(axes, steps, strict=False)}


@dataclass(frozen=True, slots=True)
class Extent:
    """How many batch entries, heads and rows a launch is for."""

    batch: int
    heads: int
    rows: int

    @property
    def pairs(self) -> int:
        """Of batch entries and heads."""
        return self.batch * self.heads


@dataclass(frozen=True, slots=True)
class Limit:
    """lengths: the address of int32 key lengths, one a batch entry, 0 for none. first: the token that row 0 is."""

    lengths: int = 0
    first: int = 0

    @property
    def numbers(self) -> dict[str, int]:
        """The parameters of a text."""
        return {"kv_lengths": self.lengths, "limit_first": self.first}


NO_LIMIT = Limit()


def padded_columns(columns: int, dtype: str) -> int:
    """Numbers of a row that ends at a multiple of ROW_ALIGNMENT."""
    numbers = ROW_ALIGNMENT // ITEMSIZE[dtype]
    return -(-columns // numbers) * numbers


def dense(address: int, dtype: str, extent: Extent, columns: int) -> Matrix:
    """A matrix with padded rows one after the other, heads after them, then batch entries."""
    row = padded_columns(columns, dtype) * ITEMSIZE[dtype]
    head = row * extent.rows
    return Matrix(address, dtype, (head * extent.heads, head, row, ITEMSIZE[dtype]))


def dense_bytes(dtype: str, extent: Extent, columns: int) -> int:
    """That such a matrix takes."""
    return extent.pairs * extent.rows * padded_columns(columns, dtype) * ITEMSIZE[dtype]
