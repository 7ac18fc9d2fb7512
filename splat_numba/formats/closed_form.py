"""A pattern as a few disjoint terms, each a row range times an interval per row on a column lattice.

The form is independent of the lengths, so a kernel made from it serves all of them. Not every pattern has one: then
`closed_form` gives None and the pattern is evaluated for given lengths instead (`pattern_runs`).
"""

from __future__ import annotations

import functools
from dataclasses import replace

from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.bounds import END, Bound, Chunk, Const, Position, maximum
from splat_numba.formats.combinations import fold
from splat_numba.formats.named import Namer, is_named, namer, unnamed
from splat_numba.formats.order import ordered
from splat_numba.formats.pattern_checks import MAX_SIZE
from splat_numba.formats.term_algebra import intersect_terms, unite_terms
from splat_numba.formats.terms import EVERY_COLUMN, FIRST_ROW, Edge, Lattice, NoClosedFormError, Term, lattice

__all__ = ["Edge", "Lattice", "Term", "closed_form", "consecutive_ranges"]

MOST_TERMS = 32
MOST_RESIDUES = 8  # of columns(...), each a lattice of its own
_MOST_RANGES = 8  # of global_tokens(indices)


@functools.lru_cache(maxsize=256)  # a pure function of a small value; unions of ten terms take milliseconds
def closed_form(pattern: nodes.Pattern) -> tuple[Term, ...] | None:
    """The pattern's terms: pairwise disjoint, their union the pattern, for all seq_q and seq_kv from 0 to 2**40.

    None where a leaf has no closed form (documents, neighborhood, random_blocks, columns with count > 8,
    global_tokens(indices) with more than 8 ranges), where lattices or row ranges cannot be combined independently of
    the lengths, and beyond 32 terms. A pattern that keeps nothing has no terms. Its numbers are known by name in the
    terms (`named`), so that patterns of one form share a text.
    """
    name = namer()
    leaves: dict[tuple[nodes.Pattern, bool], list[list[Term]]] = {}

    def leaf_terms(node: nodes.Pattern, aligned: bool, below: list[None]) -> None:
        if not below:
            leaves.setdefault((node, aligned), []).append(terms_of(node, aligned, [], name))

    def named_terms(node: nodes.Pattern, aligned: bool, below: list[list[Term]]) -> list[Term]:
        return terms_of(node, aligned, below) if below else leaves[node, aligned].pop(0)

    try:
        fold(ordered(pattern), leaf_terms)  # names are given in that order
        terms = [term.simplified() for term in fold(pattern, named_terms) if not term.empty]
    except NoClosedFormError:
        return None
    return tuple(_with_named_lattices(terms, name)) if len(terms) <= MOST_TERMS else None


def _with_named_lattices(terms: list[Term], name: Namer) -> list[Term]:
    """With names for the numbers that lattices have from two others, of which multiples and remainders are plain."""
    steps: dict[int, int] = {}
    lattices: dict[Lattice, Lattice] = {}
    for found in dict.fromkeys(term.lattice for term in terms if term.lattice.step > 1):
        step, shift = found.step, found.shift
        if not is_named(step) and step <= MAX_SIZE:  # texts divide by named ones in doubles
            step = steps[step] = steps.get(step) or name("common_step", step)
        if not is_named(shift) and shift and shift <= MAX_SIZE:
            shift = name("common_shift", shift)
        lattices[found] = replace(found, step=step, shift=shift)
    return [replace(term, lattice=lattices.get(term.lattice, term.lattice)) for term in terms]


def terms_of(
    pattern: nodes.Pattern, aligned: bool, below: list[list[Term]], name: Namer = unnamed
) -> list[Term]:  # fmt: skip
    """The terms of one node, from those of its children. name: of the node's numbers. Raises NoClosedFormError."""
    match pattern:
        case nodes.Union():
            return unite_terms(below)
        case nodes.Intersection():
            return intersect_terms(below)
        case nodes.AlignEnd():
            return below[0]
        case nodes.GlobalFirst(n):
            return _global_terms([(0, name("n", n))] if n else [], aligned=aligned)
        case nodes.GlobalAt(indices):
            ranges = [(name("global_from", lo), name("global_to", hi)) for lo, hi in consecutive_ranges(indices)]
            return _global_terms(ranges, aligned=aligned)
        case nodes.Columns(period, start, count):
            return _column_terms(period, start, count, name)
        case nodes.Strided(step):
            return [_term(lattice=lattice(name("step", step), diagonal=True, aligned=aligned))]
        case nodes.Dilated(0):
            return [_term(Position(0, aligned), Position(1, aligned))]
        case nodes.Dilated(window, step):
            # beyond MAX_SIZE a reach covers every sequence; cut there, all sums stay exact in int64
            reach = name("reach", min(window * step, MAX_SIZE))
            lattice_ = lattice(name("step", step), diagonal=True, aligned=aligned)
            return [_term(Position(-reach, aligned), Position(reach + 1, aligned), lattice_)]
    return [_term(*_interval(pattern, name, aligned=aligned))]


def _term(lo: Bound = Const(0), hi: Bound = END, lattice: Lattice = EVERY_COLUMN) -> Term:  # noqa: B008  # frozen
    return Term(FIRST_ROW, None, lattice, lo, hi)


def _interval(pattern: nodes.Pattern, name: Namer, *, aligned: bool) -> tuple[Bound, Bound]:
    """[lo, hi) of the leaves that keep one interval in every row."""
    match pattern:
        case nodes.Full():
            return Const(0), END
        case nodes.Causal():
            return Const(0), Position(1, aligned)
        case nodes.Window(left, right):
            lo: Bound = Const(0) if left >= MAX_SIZE else Position(-name("left", left), aligned)
            return lo, END if right >= MAX_SIZE else Position(name("right", right) + 1, aligned)
        case nodes.Blocked(size, before, after):
            before, after = (min(side * size, 2 * MAX_SIZE) for side in (before, after))  # int64, as above
            size, before, after = name("size", size), name("before", before), name("after", after)  # in tokens
            if size == 1:
                return Position(-before, aligned), Position(after + 1, aligned)
            here = Position(0, aligned)
            return Chunk(size, here, -before), Chunk(size, here, after + size)
        case nodes.Sinks(n):
            return Const(0), Const(name("n", n))
        case nodes.Prefix(n):
            return Const(0), maximum(Const(name("n", n)), Position(1, aligned))
    raise NoClosedFormError


def _column_terms(period: int, start: int, count: int, name: Namer) -> list[Term]:
    if count == period:
        return [_term()]
    if count > MOST_RESIDUES:
        raise NoClosedFormError
    period, start = name("period", period), name("start", start)
    return [_term(lattice=lattice(period, diagonal=False, shift=start + at)) for at in range(count)]


def _global_terms(ranges: list[tuple[int, int]], *, aligned: bool) -> list[Term]:
    """Global rows keep every column; the rows between them keep the global columns."""
    if len(ranges) > _MOST_RANGES:
        raise NoClosedFormError
    terms: list[Term] = []
    gap = FIRST_ROW  # positions may be negative where aligned, so row 0 is not an aligned edge
    for lo, hi in ranges:
        terms += [Term(gap, Edge(lo, aligned), EVERY_COLUMN, Const(a), Const(b)) for a, b in ranges]
        terms.append(Term(Edge(lo, aligned), Edge(hi, aligned), EVERY_COLUMN, Const(0), END))
        gap = Edge(hi, aligned)
    terms += [Term(gap, None, EVERY_COLUMN, Const(a), Const(b)) for a, b in ranges]
    return [term for term in terms if not term.empty]


def consecutive_ranges(indices: tuple[int, ...]) -> list[tuple[int, int]]:
    """Ascending distinct integers as maximal half-open ranges."""
    ends = [at for at in range(1, len(indices)) if indices[at] != indices[at - 1] + 1]
    starts, stops = [0, *ends], [*ends, len(indices)]
    return [(indices[a], indices[b - 1] + 1) for a, b in zip(starts, stops, strict=True)] if indices else []
