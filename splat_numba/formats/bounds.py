"""Bounds of a row's interval, and what can be proved about them for every row of a span and all lengths.

`at_most` never errs when it says True; False means "not provable". The proofs used are few and local, which keeps
them checkable: equal bases compare by shift, a chunk's start trails its position by less than the chunk's size,
aligned positions stay below seq_kv, and everything else goes by the least and greatest value.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from splat_numba.formats.bound_nodes import (
    ANY_ROW,
    END,
    Bound,
    Chunk,
    Const,
    End,
    Maximum,
    Minimum,
    Position,
    Span,
    chunk_sizes,
    evaluate,
    integers,
    inverse,
    limits,
)

__all__ = [
    "ANY_ROW",
    "END",
    "Bound",
    "Chunk",
    "Const",
    "End",
    "Maximum",
    "Minimum",
    "Position",
    "Span",
    "at_most",
    "chunk_sizes",
    "clamped",
    "evaluate",
    "integers",
    "interval_empty",
    "inverse",
    "limits",
    "maximum",
    "minimum",
    "restrict",
    "size_of",
    "value_range",
]

_Key: TypeAlias = "tuple[int | _Key, ...]"


def maximum(*bounds: Bound, span: Span = ANY_ROW) -> Bound:
    """The largest of the bounds, flattened, without parts that another one dominates, in canonical order."""
    parts = _undominated([part for b in bounds for part in (b.parts if isinstance(b, Maximum) else (b,))], span, 1)
    return parts[0] if len(parts) == 1 else Maximum(parts)


def minimum(*bounds: Bound, span: Span = ANY_ROW) -> Bound:
    """The smallest of the bounds, flattened, without parts that another one dominates, in canonical order."""
    parts = _undominated([part for b in bounds for part in (b.parts if isinstance(b, Minimum) else (b,))], span, -1)
    return parts[0] if len(parts) == 1 else Minimum(parts)


def _undominated(parts: list[Bound], span: Span, sign: int) -> tuple[Bound, ...]:
    kept: list[Bound] = []
    for part in sorted(set(parts), key=_order_key):  # sorted first: which of two equals stays must not depend on order
        if any(_dominates(other, part, span, sign) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(part, other, span, sign)]
        kept.append(part)
    return tuple(kept)


def _dominates(strong: Bound, weak: Bound, span: Span, sign: int) -> bool:
    return at_most(weak, strong, span) if sign > 0 else at_most(strong, weak, span)


def _order_key(bound: Bound) -> _Key:
    match bound:
        case Const(value, aligned):
            return (0, value, int(aligned))
        case End():
            return (1,)
        case Position(shift, aligned):
            return (2, int(aligned), shift)
        case Chunk(size, position, shift, moved):
            return (3, size, int(position.aligned), position.shift, shift, int(moved))
        case Maximum(parts):
            return (4, tuple(_order_key(part) for part in parts))
        case Minimum(parts):
            return (5, tuple(_order_key(part) for part in parts))


def at_most(a: Bound, b: Bound, span: Span = ANY_ROW) -> bool:
    """Whether a <= b is provable for every row of the span, whatever seq_q and seq_kv are."""
    if a == b:
        return True
    if isinstance(a, Maximum):
        return all(at_most(part, b, span) for part in a.parts)
    if isinstance(b, Minimum):
        return all(at_most(a, part, span) for part in b.parts)
    if isinstance(a, Minimum) and any(at_most(part, b, span) for part in a.parts):
        return True
    if isinstance(b, Maximum) and any(at_most(a, part, span) for part in b.parts):
        return True
    if isinstance(a, Minimum) or isinstance(b, Maximum):
        return limits(a, span)[1] <= limits(b, span)[0]
    return _leaf_at_most(a, b, span)


def _leaf_at_most(a: Bound, b: Bound, span: Span) -> bool:
    if limits(a, span)[1] <= limits(b, span)[0]:
        return True
    less_a, less_b = _less_delta(a), _less_delta(b)
    if less_a is not None and less_b is not None:
        return _leaf_at_most(less_a, less_b, span)
    offset_a, offset_b = _offsets(a), _offsets(b)
    if offset_a is None:
        # where there is a row, seq_q exceeds it: value + delta <= seq_kv
        return isinstance(a, Const) and isinstance(b, End) and a.aligned and a.value <= span.lo + 1
    if isinstance(b, End):
        return offset_a[0] and offset_a[2] <= 1  # i + delta <= seq_kv - 1 for every row i < seq_q
    if offset_b is None or offset_a[0] != offset_b[0]:
        return False
    return offset_a[2] <= offset_b[1] or _chunks_at_most(a, b)


def _offsets(bound: Bound) -> tuple[bool, int, int] | None:
    """(aligned, least, greatest) distance of the bound from the row's position, where it has one."""
    match bound:
        case Position(shift, aligned):
            return aligned, shift, shift
        case Chunk(size, position, shift, moved):
            return position.aligned or moved, position.shift + shift - (size - 1), position.shift + shift
        case _:
            return None


def _less_delta(bound: Bound) -> Bound | None:
    """The bound less seq_kv - seq_q, where that is one of the row alone."""
    match bound:
        case Const(value, aligned=True):
            return Const(value)
        case Position(shift, aligned=True):
            return Position(shift)
        case Chunk(size, position, shift, moved=True):
            return Chunk(size, position, shift)
        case _:
            return None


def _chunks_at_most(a: Bound, b: Bound) -> bool:
    """Chunks of one position, one size a multiple of the other: the small chunk lies within the large one."""
    if not (isinstance(a, Chunk) and isinstance(b, Chunk) and (a.position, a.moved) == (b.position, b.moved)):
        return False
    if a.size % b.size == 0:
        return a.shift <= b.shift
    return b.size % a.size == 0 and a.shift + b.size - a.size <= b.shift


def value_range(bound: Bound, row_lo: int, row_hi: int | None) -> tuple[float, float]:
    """The least and greatest value for rows in [row_lo, row_hi), whatever the lengths; +-inf where they decide."""
    return limits(bound, Span(row_lo, math.inf if row_hi is None else row_hi))


def restrict(bound: Bound, span: Span) -> Bound:
    """The simplest bound found that equals `bound` on the rows of the span."""
    if isinstance(bound, Maximum):
        return maximum(*(restrict(part, span) for part in bound.parts), span=span)
    if isinstance(bound, Minimum):
        return minimum(*(restrict(part, span) for part in bound.parts), span=span)
    least, greatest = limits(bound, span)
    if least != greatest:
        return bound
    return Const(least if isinstance(least, int) else int(least))  # an integer keeps its name


def clamped(bound: Bound, span: Span) -> Bound:
    """The simplest bound found that equals `bound` on the rows of the span once both are clamped to [0, seq_kv]."""
    simpler = restrict(maximum(bound, Const(0)), span)
    if isinstance(simpler, Maximum):
        simpler = maximum(*(part for part in simpler.parts if part != Const(0)), span=span)
    simpler = minimum(simpler, END, span=span)
    if isinstance(simpler, Minimum):
        simpler = minimum(*(part for part in simpler.parts if part != END), span=span)
    # taking END off a minimum may bring a maximum to the top, and the other way round
    return simpler if simpler == bound else clamped(simpler, span)


def interval_empty(lo: Bound, hi: Bound, span: Span) -> bool:
    """Whether [lo, hi), clamped to [0, seq_kv], is provably empty in every row of the span."""
    return at_most(hi, maximum(lo, Const(0), span=span), span) or at_most(END, lo, span)


def size_of(bound: Bound) -> int:
    """How many leaves the bound has."""
    return sum(map(size_of, bound.parts)) if isinstance(bound, (Maximum, Minimum)) else 1
