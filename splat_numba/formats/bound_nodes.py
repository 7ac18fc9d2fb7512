"""Bounds of a row's column interval as closed forms of the row's number: the values, and what they evaluate to.

A bound gives a column for every row i. All of them grow with i, never shrink. With delta = seq_kv - seq_q, a position
is i + shift, or i + shift + delta where `aligned`. Consumers clamp what a bound gives to [0, seq_kv].
`bounds` compares them symbolically. A pattern's own bounds have constants and chunks that count from the first column;
those that count from delta, `Const(aligned)` and `Chunk(moved)`, come from `inverse`: of the transposed mask the
columns are queries, and under align_end() these are what is counted from the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Const:
    """A fixed column; where aligned, plus seq_kv - seq_q."""

    value: int
    aligned: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """seq_kv: one past the last column. Use the instance END."""


@dataclass(frozen=True, slots=True)
class Position:
    """i + shift, plus seq_kv - seq_q where aligned."""

    shift: int
    aligned: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """size * floor(position / size) + shift: the start of the position's chunk, moved by shift.

    moved: by seq_kv - seq_q as well; then the position is not aligned.
    """

    size: int
    position: Position
    shift: int
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Maximum:
    """The largest of the parts."""

    parts: tuple[Bound, ...]


@dataclass(frozen=True, slots=True)
class Minimum:
    """The smallest of the parts."""

    parts: tuple[Bound, ...]


Bound: TypeAlias = Const | End | Position | Chunk | Maximum | Minimum

END: Final = End()


@dataclass(frozen=True, slots=True)
class Span:
    """What is known of the rows in question: lo <= i < hi, and aligned_lo <= i + delta < aligned_hi."""

    lo: float = 0
    hi: float = math.inf
    aligned_lo: float = -math.inf
    aligned_hi: float = math.inf

    @property
    def empty(self) -> bool:
        """Whether no row can be meant."""
        return self.lo >= self.hi or self.aligned_lo >= self.aligned_hi

    def limits(self, aligned: bool) -> tuple[float, float]:
        """The least and the greatest position, aligned or not."""
        return (self.aligned_lo, self.aligned_hi - 1) if aligned else (self.lo, self.hi - 1)


ANY_ROW: Final = Span()


def evaluate(bound: Bound, rows: NDArray[np.int64], seq_q: int, seq_kv: int) -> NDArray[np.int64]:
    """The bound for each of `rows` (int64, any shape), unclamped; int64, the same shape."""
    delta = seq_kv - seq_q
    match bound:
        case Const(value, aligned):
            return np.full(rows.shape, value + (delta if aligned else 0), np.int64)
        case End():
            return np.full(rows.shape, seq_kv, np.int64)
        case Position(shift, aligned):
            return rows + (shift + (delta if aligned else 0))
        case Chunk(size, position, shift, moved):
            return evaluate(position, rows, seq_q, seq_kv) // size * size + (shift + (delta if moved else 0))
        case Maximum(parts):
            return reduce(np.maximum, [evaluate(part, rows, seq_q, seq_kv) for part in parts])
        case Minimum(parts):
            return reduce(np.minimum, [evaluate(part, rows, seq_q, seq_kv) for part in parts])


def integers(bound: Bound) -> Iterator[int]:
    """The integers that the bound was made with."""
    match bound:
        case Const(value):
            yield value
        case Position(shift):
            yield shift
        case Chunk(size, position, shift):
            yield from (size, position.shift, shift)
        case Maximum(parts) | Minimum(parts):
            for part in parts:
                yield from integers(part)


def chunk_sizes(bound: Bound) -> Iterator[int]:
    """What positions are divided by."""
    match bound:
        case Chunk(size):
            yield size
        case Maximum(parts) | Minimum(parts):
            for part in parts:
                yield from chunk_sizes(part)


def limits(bound: Bound, span: Span) -> tuple[float, float]:
    """The least and greatest value for the rows of `span`; +-inf where unknown."""
    match bound:
        case Const(value, aligned):
            return (-math.inf, math.inf) if aligned else (value, value)
        case End():
            return 0, math.inf
        case Position(shift, aligned):
            least, greatest = span.limits(aligned)
            return least + shift, greatest + shift
        case Chunk(size, position, shift, moved=True):  # between its position, moved, and size - 1 less
            least, greatest = span.limits(aligned=True)
            return least + position.shift + shift - (size - 1), greatest + position.shift + shift
        case Chunk(size, position, shift):
            least, greatest = limits(position, span)
            return _chunk_start(least, size) + shift, _chunk_start(greatest, size) + shift
        case Maximum(parts):
            return _extreme(max, parts, span)
        case Minimum(parts):
            return _extreme(min, parts, span)


def _chunk_start(position: float, size: int) -> float:
    return position if math.isinf(position) else int(position) // size * size


def _extreme(choose: Callable[..., float], parts: tuple[Bound, ...], span: Span) -> tuple[float, float]:
    least, greatest = zip(*(limits(part, span) for part in parts), strict=True)
    return choose(least), choose(greatest)


def inverse(bound: Bound, reached: Callable[[Const], bool]) -> Bound:
    """The bound of the transposed mask, in whose terms rows are columns: j >= bound(i) exactly where i < inverse(j).

    So j < bound(i) exactly where i >= inverse(j). reached: of a constant, whether the rows j in question lie at
    or beyond it; the caller cuts the rows there, as no bound jumps at a row. With delta' = -delta, the transposed one:

    - j >= i + s + delta is i < j - s + 1 + delta'.
    - j >= n floor((i + p) / n) + s is floor((i + p) / n) <= floor((j - s) / n), as the left side is an integer, so
      i < n floor((j - s) / n) + n - p. A delta beside i is a delta' beside the result, and the other way round.
    - j is at least the largest of parts where it is at least each: i < the smallest of the inverses; and so on.
    """
    match bound:
        case Const():
            return END if reached(bound) else Const(0)
        case End():
            return Const(0)  # no column reaches seq_kv
        case Position(shift, aligned):
            return Position(1 - shift, aligned)
        case Chunk(size, position, shift, moved):
            return Chunk(size, Position(-shift, moved), size - position.shift, position.aligned)
        case Maximum(parts):
            return Minimum(tuple(inverse(part, reached) for part in parts))
        case Minimum(parts):
            return Maximum(tuple(inverse(part, reached) for part in parts))
