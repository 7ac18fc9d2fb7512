"""Union and intersection of lists of terms, each list disjoint in itself, as lists that are disjoint again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

from splat_numba.formats.bounds import END, Const, at_most, maximum, minimum, size_of
from splat_numba.formats.terms import (
    FIRST_ROW,
    NoClosedFormError,
    Term,
    earlier,
    intersect_lattices,
    later,
    lattice,
    lattice_within,
    lattices_compatible,
    lattices_meet,
)

_MOST_TERMS = 96  # while combining; later terms may cut it down again
_MOST_LEAVES = 24  # of one bound; beyond it proofs get slow and results useless
_MOST_SPLITS = 8  # of a lattice into finer ones


def intersect_terms(lists: list[list[Term]]) -> list[Term]:
    """The pairs that all the lists keep."""
    result = lists[0]
    for terms in lists[1:]:
        products = (_intersection(a, b) for a in result for b in terms)
        result = _checked(merged([term for term in products if term is not None]))
    return result


def unite_terms(lists: list[list[Term]]) -> list[Term]:
    """The pairs that any of the lists keeps: terms absorbed and joined where possible, the rest made disjoint."""
    sources = [(term, source) for source, terms in enumerate(lists) for term in terms]
    sources = sorted(_joined(_unabsorbed(sources)), key=lambda pair: _rank(pair[0]))
    result: list[Term] = []
    for at, (term, source) in enumerate(sources):
        pieces = [term]
        for other, other_source in sources[:at]:
            if source != other_source:  # terms of one list are disjoint, provably or not
                pieces = _checked([left for piece in pieces for left in _difference(piece, other)])
        result += pieces
    return _checked(merged(result))


def merged(terms: list[Term]) -> list[Term]:
    """The same pairs in fewer terms, where intervals or row ranges of two disjoint terms provably touch."""
    while True:
        for a, b in combinations(terms, 2):
            joint = _side_by_side(a, b) or _one_above_other(a, b) or _one_above_other(b, a)
            if joint is not None:
                terms = [joint if term is a else term for term in terms if term is not b]
                break
        else:
            return terms


def _checked(terms: list[Term]) -> list[Term]:
    if len(terms) > _MOST_TERMS or any(size_of(t.lo) + size_of(t.hi) > _MOST_LEAVES for t in terms):
        raise NoClosedFormError
    return terms


def _rank(term: Term) -> tuple[int, int]:
    """Dense before sparse, so that subtracted lattices contain the others; whole rows, then diagonals, then columns."""
    if term.lo == Const(0) and term.hi == END:
        return term.lattice.step, 0
    return term.lattice.step, 2 if isinstance(term.lo, Const) and isinstance(term.hi, Const) else 1


def _unabsorbed(sources: list[tuple[Term, int]]) -> list[tuple[Term, int]]:
    """Without the terms that another one contains."""
    kept: list[tuple[Term, int]] = []
    for term, source in sources:
        if term.empty or any(_contains(other, term) for other, _ in kept):
            continue
        kept = [pair for pair in kept if not _contains(term, pair[0])]
        kept.append((term, source))
        if len(kept) > 2 * _MOST_TERMS:  # they are compared in pairs, and so many hardly become few
            raise NoClosedFormError
    return kept


def _contains(outer: Term, inner: Term) -> bool:
    if not _rows_within(inner, outer) or not lattices_compatible(inner.lattice, outer.lattice):
        return False
    span = inner.span
    return (
        lattice_within(inner.lattice, outer.lattice)
        and at_most(outer.lo, maximum(inner.lo, Const(0), span=span), span)
        and at_most(minimum(inner.hi, END, span=span), outer.hi, span)
    )


def _rows_within(inner: Term, outer: Term) -> bool:
    try:
        return later(inner.row_lo, outer.row_lo) == inner.row_lo and earlier(inner.row_hi, outer.row_hi) == inner.row_hi
    except NoClosedFormError:
        return False


def _joined(sources: list[tuple[Term, int]]) -> list[tuple[Term, int]]:
    """With terms joined whose intervals provably overlap or touch; a joint term is a source of its own."""
    fresh = -1
    joined: list[tuple[Term, int]] = []
    for term, source in sources:
        for other in joined:
            joint = _side_by_side(other[0], term)
            if joint is not None:
                joined.remove(other)
                term, source, fresh = joint, fresh, fresh - 1  # noqa: PLW2901  # grows while it is being placed
        joined.append((term, source))
    return joined


def _side_by_side(a: Term, b: Term) -> Term | None:
    """The union of terms with equal rows and lattices whose intervals touch in every row."""
    if (a.row_lo, a.row_hi, a.lattice) != (b.row_lo, b.row_hi, b.lattice):
        return None
    span = a.span
    if at_most(a.lo, b.hi, span) and at_most(b.lo, a.hi, span):  # then the hull is right even where one is empty
        return replace(a, lo=minimum(a.lo, b.lo, span=span), hi=maximum(a.hi, b.hi, span=span))
    return None


def _one_above_other(upper: Term, lower: Term) -> Term | None:
    """The union of terms with touching row ranges, if one's interval also describes the other's rows."""
    if upper.row_hi is None or upper.row_hi != lower.row_lo or upper.lattice != lower.lattice:
        return None
    ordered = upper.row_lo == FIRST_ROW or upper.row_lo.aligned == upper.row_hi.aligned
    if not ordered or (lower.row_hi is not None and lower.row_hi.aligned != lower.row_lo.aligned):
        return None
    for model, rest in ((upper, lower), (lower, upper)):
        extended = replace(rest, lo=model.lo, hi=model.hi)
        if extended.simplified() == rest.simplified():
            return replace(model, row_lo=upper.row_lo, row_hi=lower.row_hi)
    return None


def _intersection(a: Term, b: Term) -> Term | None:
    if _provably_disjoint(a, b):
        return None
    common = intersect_lattices(a.lattice, b.lattice)
    rows = Term(later(a.row_lo, b.row_lo), earlier(a.row_hi, b.row_hi), common, a.lo, a.hi)
    term = replace(rows, lo=maximum(a.lo, b.lo), hi=minimum(a.hi, b.hi))
    return None if term.empty else term


def _provably_disjoint(a: Term, b: Term) -> bool:
    if lattices_compatible(a.lattice, b.lattice) and not lattices_meet(a.lattice, b.lattice):
        return True
    try:
        span = replace(a, row_lo=later(a.row_lo, b.row_lo), row_hi=earlier(a.row_hi, b.row_hi)).span
    except NoClosedFormError:
        span = a.span
    return span.empty or at_most(a.hi, b.lo, span) or at_most(b.hi, a.lo, span)


def _difference(b: Term, a: Term) -> list[Term]:
    """Disjoint terms that keep what b keeps and a does not."""
    if _provably_disjoint(a, b):
        return [b]
    if not lattices_compatible(a.lattice, b.lattice):
        raise NoClosedFormError
    if not lattice_within(b.lattice, a.lattice):
        return [piece for finer in _refined(b, a) for piece in _difference(finer, a)]
    _require_ordered_rows(a)
    pieces = [replace(b, row_hi=earlier(b.row_hi, a.row_lo))] if a.row_lo != FIRST_ROW else []
    if a.row_hi is not None:
        pieces.append(replace(b, row_lo=later(b.row_lo, a.row_hi)))
    shared = replace(b, row_lo=later(b.row_lo, a.row_lo), row_hi=earlier(b.row_hi, a.row_hi))
    # Where a is empty in a row (hi < lo), the right piece must begin at a.lo, or the pieces would overlap.
    right_from = a.hi if at_most(a.lo, a.hi, shared.span) else maximum(a.lo, a.hi)
    pieces.append(replace(shared, hi=minimum(b.hi, a.lo)))
    pieces.append(replace(shared, lo=maximum(b.lo, right_from)))
    return [piece for piece in pieces if not piece.empty]


def _require_ordered_rows(a: Term) -> None:
    """The rows before and after a's are disjoint only if its edges are known to be in order."""
    if a.row_hi is not None and a.row_lo != FIRST_ROW and a.row_lo.aligned != a.row_hi.aligned:
        raise NoClosedFormError


def _refined(b: Term, a: Term) -> Iterable[Term]:
    """b on finer lattices, each of which lies within a's lattice or misses it."""
    step = math.lcm(a.lattice.step, b.lattice.step)
    splits = step // b.lattice.step
    if splits > _MOST_SPLITS:
        raise NoClosedFormError
    for at in range(splits):
        shift = b.lattice.shift + at * b.lattice.step
        yield replace(b, lattice=lattice(step, diagonal=b.lattice.diagonal, shift=shift, aligned=b.lattice.aligned))
