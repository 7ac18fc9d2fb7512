"""The transpose of a closed form: rows are keys, and the interval of each is of queries; as independent of the lengths.

A term keeps (i, j) where its row range holds i, its lattice (i, j), and lo(i) <= j < hi(i). Read the other way round:

- lo(i) <= j is i < inverse(lo)(j), and j < hi(i) is i >= inverse(hi)(j): `bound_nodes.inverse` has why. Bounds never
  shrink, so an interval turned is an interval, and floors of chunks stay floors.
- The row range bounds the columns of every row: [row_lo, row_hi) become constants, counted from delta where aligned.
- A constant that bounds the columns of every row is an edge of the new row range. One inside a maximum or minimum,
  beside bounds that move with the row, holds for the rows on one side of it: the rows are cut there, and in each part
  it is either everything or nothing. So a term becomes at most one more than it has such constants.
- The diagonal lattice j = i + r (mod s) is i = j - r (mod s), with -delta for delta: a diagonal lattice again.

What one term keeps no other does, and so it is of their transposes. There is no closed form

- of a lattice j = r (mod s) of columns alone: it says nothing of i, so its rows would be every s-th, each with every
  column, and a term's rows are a range (columns, and sparse_transformer_fixed, which has them);
- where rows would have to be cut at two edges of which the lengths decide which is the first;
- beyond 32 terms.

Then `transpose.transpose` turns the runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from splat_numba.formats.bounds import END, Bound, Const, Maximum, Minimum, inverse, maximum, minimum
from splat_numba.formats.closed_form import MOST_TERMS
from splat_numba.formats.term_algebra import merged
from splat_numba.formats.terms import (
    FIRST_ROW,
    Edge,
    Lattice,
    NoClosedFormError,
    Term,
    earlier,
    later,
    lattice,
)


@functools.lru_cache(maxsize=256)  # as closed_form
def transpose_terms(terms: tuple[Term, ...]) -> tuple[Term, ...] | None:
    """Disjoint terms that keep (j, i) where the given ones keep (i, j), for all lengths, which are exchanged.

    None where there is no closed form: see this module.
    """
    try:
        turned = merged([part for term in terms for part in _transposes(term)])
    except NoClosedFormError:
        return None
    return tuple(turned) if len(turned) <= MOST_TERMS else None


def _transposes(term: Term) -> Iterator[Term]:
    """The transpose of one term. Raises NoClosedFormError."""
    lows = term.lo.parts if isinstance(term.lo, Maximum) else (term.lo,)
    highs = term.hi.parts if isinstance(term.hi, Minimum) else (term.hi,)
    row_lo, row_hi = FIRST_ROW, None
    for bound in lows:
        if isinstance(bound, Const):
            row_lo = later(row_lo, _edge(bound))
    for bound in highs:
        if isinstance(bound, Const):
            row_hi = earlier(row_hi, _edge(bound))
    below = [bound for bound in lows if not isinstance(bound, Const)]
    above = [bound for bound in highs if not isinstance(bound, Const) and bound != END]
    columns = _turned(term.lattice)
    cuts = _cuts([*below, *above])
    starts = [FIRST_ROW, *cuts]
    for here, (start, stop) in enumerate(zip(starts, [*cuts, None], strict=True)):

        def reached(bound: Const, here: int = here) -> bool:
            return _edge(bound) in starts[: here + 1]

        lo = maximum(_constant(term.row_lo), *(inverse(bound, reached) for bound in above))
        hi = minimum(_constant(term.row_hi), *(inverse(bound, reached) for bound in below))
        part = Term(later(row_lo, start), earlier(row_hi, stop), columns, lo, hi)
        if not part.empty:
            yield part.simplified()


def _edge(bound: Const) -> Edge:
    """The row that a constant column becomes; there are none below 0."""
    return Edge(bound.value, bound.aligned) if bound.aligned or bound.value > 0 else FIRST_ROW


def _constant(edge: Edge | None) -> Bound:
    return END if edge is None else Const(edge.value, edge.aligned)


def _cuts(bounds: list[Bound]) -> list[Edge]:
    """The rows at which a constant inside the bounds begins to hold, ascending."""
    edges = {_edge(bound) for bound in bounds for bound in _constants(bound)} - {FIRST_ROW}
    if len({edge.aligned for edge in edges}) > 1:
        raise NoClosedFormError
    return sorted(edges, key=lambda edge: edge.value)


def _constants(bound: Bound) -> Iterator[Const]:
    if isinstance(bound, Const):
        yield bound
    elif isinstance(bound, (Maximum, Minimum)):
        for part in bound.parts:
            yield from _constants(part)


def _turned(straight: Lattice) -> Lattice:
    if straight.step > 1 and not straight.diagonal:
        raise NoClosedFormError
    return lattice(straight.step, diagonal=True, shift=-straight.shift, aligned=straight.aligned)
