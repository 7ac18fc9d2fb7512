"""Tensor: an array of a call, wherever its memory is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from splat_numba.gen.language.dtypes import ITEMSIZE

ROW_ALIGNMENT = 16  # bytes: what the widest loads, stores and copies ask of a row's start
Axes = tuple[int, int, int, int]  # of (batch, heads, seq, dim)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An array (batch, heads, seq, dim): sizes in elements, strides in bytes, dtype by name; its first element is
    ``offset`` bytes behind the start of a buffer of that name.
    """

    sizes: Axes
    strides: Axes
    dtype: str
    buffer: str = ""
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """From the first element to the end of the last row, of an array without negative strides."""
        if 0 in self.sizes:
            return 0
        steps = (step * (size - 1) for step, size in zip(self.strides, self.sizes, strict=True))
        return sum(steps) + ITEMSIZE[self.dtype]

    @property
    def turned(self) -> Tensor:
        """Rows for columns."""
        batch, heads, seq, dim = self.sizes
        to_batch, to_head, to_row, to_column = self.strides
        return replace(self, sizes=(batch, heads, dim, seq), strides=(to_batch, to_head, to_column, to_row))

    def part(self, entry: int, row: int) -> Tensor:
        """From a batch entry and a row on."""
        batch, heads, seq, dim = self.sizes
        offset = self.offset + entry * self.strides[0] + row * self.strides[2]
        return replace(self, sizes=(batch - entry, heads, seq - row, dim), offset=offset)

    @property
    def heads_are_one(self) -> bool:
        """Whether all heads are the same memory, by a stride of 0."""
        return self.strides[1] == 0 and self.sizes[1] > 1

    def head(self, number: int) -> Tensor:
        """One head alone."""
        batch, _, seq, dim = self.sizes
        return replace(self, sizes=(batch, 1, seq, dim), offset=self.offset + number * self.strides[1])


def as_word(step: int) -> int:
    """A stride as the unsigned 64-bit number that is added to an address: negative ones wrap around."""
    return step % 2**64


def padded(dim: int, itemsize: int = 2) -> int:
    """Elements of a row that ends at a multiple of 16 bytes."""
    numbers = ROW_ALIGNMENT // itemsize
    return -(-dim // numbers) * numbers


def contiguous(sizes: Axes, row: int, itemsize: int = 2) -> Axes:
    """Strides in bytes of (batch, heads, seq, dim) with ``row`` elements a row."""
    _, heads, seq, _ = sizes
    return heads * seq * row * itemsize, seq * row * itemsize, row * itemsize, itemsize


def padded_strides(sizes: Axes, itemsize: int = 2) -> Axes:
    """The same of rows that are padded."""
    return contiguous(sizes, padded(sizes[3], itemsize), itemsize)


def side_by_side(sizes: Axes, itemsize: int = 2) -> Axes:
    """The same of an array stored as (batch, seq, heads, dim)."""
    batch, heads, seq, dim = sizes
    to_batch, to_row, to_head, step = contiguous((batch, seq, heads, dim), dim, itemsize)
    return to_batch, to_head, to_row, step


def padded_bytes(sizes: Axes, itemsize: int = 2) -> int:
    """That an array with padded rows takes."""
    return prod(sizes[:3]) * padded(sizes[3], itemsize) * itemsize
