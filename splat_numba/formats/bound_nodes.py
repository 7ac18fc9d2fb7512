"""Bounds of a row's column interval as closed forms of the row's number: the values, and what they evaluate to.

A bound gives a column for every row i. All of them grow with i, never shrink. With delta = seq_kv - seq_q, a position
is i + shift, or i + shift + delta where `aligned`. Consumers clamp what a bound gives to [0, seq_kv].
`bounds` compares them symbolically.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Const:
    """A fixed column."""

    value: int


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
    """size * floor(position / size) + shift: the start of the position's chunk, moved by shift."""

    size: int
    position: Position
    shift: int


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
    match bound:
        case Const(value):
            return np.full(rows.shape, value, np.int64)
        case End():
            return np.full(rows.shape, seq_kv, np.int64)
        case Position(shift, aligned):
            return rows + (shift + (seq_kv - seq_q if aligned else 0))
        case Chunk(size, position, shift):
            return evaluate(position, rows, seq_q, seq_kv) // size * size + shift
        case Maximum(parts):
            return reduce(np.maximum, [evaluate(part, rows, seq_q, seq_kv) for part in parts])
        case Minimum(parts):
            return reduce(np.minimum, [evaluate(part, rows, seq_q, seq_kv) for part in parts])


def limits(bound: Bound, span: Span) -> tuple[float, float]:
    """The least and greatest value for the rows of `span`; +-inf where unknown."""
    match bound:
        case Const(value):
            return value, value
        case End():
            return 0, math.inf
        case Position(shift, aligned):
            least, greatest = span.limits(aligned)
            return least + shift, greatest + shift
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
