"""The parts of a closed form: sets of pairs that a row range, an interval per row and a column lattice describe."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.bounds import Bound, Span, clamped, interval_empty


class NoClosedFormError(Exception):
    """Internal: the pattern, or a combination of its terms, cannot be written as a few disjoint terms."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The row `value`, or value - (seq_kv - seq_q) where aligned: the row whose position is `value`."""

    value: int
    aligned: bool = False


@dataclass(frozen=True, slots=True)
class Lattice:
    """The columns j = shift (mod step), or, diagonal, j = i + shift (mod step), with i at its position if aligned."""

    step: int = 1
    diagonal: bool = False
    shift: int = 0
    aligned: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """Rows [row_lo, row_hi), clamped to [0, seq_q]; in each, the lattice's columns in [lo, hi) clamped to [0, seq_kv].

    row_hi None stands for seq_q.
    """

    row_lo: Edge
    row_hi: Edge | None
    lattice: Lattice
    lo: Bound
    hi: Bound

    @property
    def span(self) -> Span:
        """What the row range says about positions."""
        known: dict[str, float] = {}
        if self.row_lo.aligned:
            known["aligned_lo"] = self.row_lo.value
        else:
            known["lo"] = max(0, self.row_lo.value)
        if self.row_hi is not None:
            known["aligned_hi" if self.row_hi.aligned else "hi"] = self.row_hi.value
        return Span(**known)

    @property
    def empty(self) -> bool:
        """Whether the term provably keeps nothing, whatever the lengths."""
        span = self.span
        return span.empty or interval_empty(self.lo, self.hi, span)

    def simplified(self) -> Term:
        """The same pairs with bounds as simple as the row range permits."""
        span = self.span
        return replace(self, lo=clamped(self.lo, span), hi=clamped(self.hi, span))


def row_of(edge: Edge | None, seq_q: int, seq_kv: int) -> int:
    """The row that an edge stands for, None being the end, clamped to [0, seq_q]."""
    if edge is None:
        return seq_q
    return min(max(edge.value - (seq_kv - seq_q if edge.aligned else 0), 0), seq_q)


def phase(lattice: Lattice, rows: NDArray[np.int64], seq_q: int, seq_kv: int) -> NDArray[np.int64] | int:
    """A column of each row's lattice, inside the sequence or not; one for all rows where it is not diagonal."""
    if not lattice.diagonal:
        return lattice.shift
    return rows + (lattice.shift + (seq_kv - seq_q if lattice.aligned else 0))


FIRST_ROW: Final = Edge(0)
EVERY_COLUMN: Final = Lattice()
_LARGEST_STEP = 2**60  # lattices are evaluated in int64


def lattice(step: int, *, diagonal: bool, shift: int = 0, aligned: bool = False) -> Lattice:
    """A lattice in canonical form: shift in [0, step), step 1 without any other property."""
    if step == 1:
        return EVERY_COLUMN
    within = 0 <= shift < step  # then the number keeps its name
    return Lattice(step, diagonal, shift if within else shift % step, diagonal and aligned)


def later(a: Edge, b: Edge) -> Edge:
    """The later of two row edges; NoClosedFormError where the lengths decide."""
    if a.aligned == b.aligned:
        return a if a.value >= b.value else b
    for edge, other in ((a, b), (b, a)):
        if not edge.aligned and edge.value <= 0:  # rows are clamped to [0, seq_q] anyway
            return other
    raise NoClosedFormError


def earlier(a: Edge | None, b: Edge | None) -> Edge | None:
    """The earlier of two row edges, None being the end; NoClosedFormError where the lengths decide."""
    if a is None or b is None:
        return a if b is None else b
    if a.aligned == b.aligned:
        return a if a.value <= b.value else b
    raise NoClosedFormError


def lattices_compatible(a: Lattice, b: Lattice) -> bool:
    """Whether both count from the same origin, so that remainders can be compared."""
    return 1 in (a.step, b.step) or (a.diagonal == b.diagonal and a.aligned == b.aligned)


def lattices_meet(a: Lattice, b: Lattice) -> bool:
    """Whether compatible lattices have a column in common."""
    return (a.shift - b.shift) % math.gcd(a.step, b.step) == 0


def lattice_within(inner: Lattice, outer: Lattice) -> bool:
    """Whether compatible lattices are nested."""
    return inner.step % outer.step == 0 and (inner.shift - outer.shift) % outer.step == 0


def intersect_lattices(a: Lattice, b: Lattice) -> Lattice:
    """The common columns (Chinese remainders) of lattices that meet; NoClosedFormError if they are not a lattice."""
    if a.step == 1 or b.step == 1:
        return b if a.step == 1 else a
    if not lattices_compatible(a, b):
        raise NoClosedFormError
    common = math.gcd(a.step, b.step)
    step = a.step // common * b.step
    if step > _LARGEST_STEP:
        raise NoClosedFormError
    periods = (b.shift - a.shift) // common * pow(a.step // common, -1, b.step // common)
    return lattice(step, diagonal=a.diagonal, shift=a.shift + a.step * periods, aligned=a.aligned)
