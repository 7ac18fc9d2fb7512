"""A pattern's runs for given lengths."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from splat_numba import memory
from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.formats import leaf_runs, runs
from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.bounds import evaluate
from splat_numba.formats.closed_form import MOST_RESIDUES, Term, closed_form, terms_of
from splat_numba.formats.combinations import fold
from splat_numba.formats.pattern_checks import integer
from splat_numba.formats.runs import Runs
from splat_numba.formats.sweep import LISTED_BYTES
from splat_numba.formats.terms import NoClosedFormError, phase, row_of

__all__ = ["check_lengths", "check_listed", "pattern_runs"]


def pattern_runs(pattern: nodes.Pattern, seq_q: int, seq_kv: int) -> Runs:
    """The pairs that `pattern` keeps in a (seq_q, seq_kv) mask, as runs.

    Raises PatternError where the pattern does not fit the lengths (`check_lengths`).
    """
    check_lengths(pattern, seq_q, seq_kv)
    seq_q, seq_kv = int(seq_q), int(seq_kv)
    terms = closed_form(pattern)  # remembered
    return _runs(pattern, seq_q, seq_kv) if terms is None else _evaluate(terms, seq_q, seq_kv)


def check_lengths(pattern: nodes.Pattern, seq_q: int, seq_kv: int) -> None:
    """Raise PatternError if the pattern does not fit the lengths.

    Documents and grids must have seq_q == seq_kv tokens in total, and every index given to global_tokens(indices)
    must be below the longer length. Both lengths must be integers from 0 to 2**40.
    """
    integer("seq_q", seq_q, 0)
    integer("seq_kv", seq_kv, 0)
    for leaf in _leaves(pattern):
        if isinstance(leaf, nodes.Documents):
            _check_total("lengths", "documents", sum(leaf.lengths), seq_q, seq_kv)
        elif isinstance(leaf, nodes.Neighborhood):
            _check_total("shape", f"the grid {leaf.shape}", math.prod(leaf.shape), seq_q, seq_kv)
        elif isinstance(leaf, nodes.GlobalAt) and leaf.indices and leaf.indices[-1] >= max(seq_q, seq_kv):
            raise PatternError(
                f"indices: wanted global tokens below max(seq_q, seq_kv) = {max(seq_q, seq_kv)}, got "
                f"{leaf.indices[-1]}. Remove it, or pass longer sequences."
            )


def _check_total(name: str, what: str, total: int, seq_q: int, seq_kv: int) -> None:
    if (seq_q, seq_kv) != (total, total):
        raise PatternError(
            f"{name}: wanted {what} of {seq_q} tokens for seq_q and {seq_kv} for seq_kv, got {total}. "
            "The total must equal both lengths: change it, or pad the sequences."
        )


def check_listed(pattern: nodes.Pattern, seq_q: int, seq_kv: int) -> None:
    """Raise FormatError if no memory holds the places of a pattern's lattices one by one, before any run is made.

    They are counted in a part of the pattern: of columns as many residues as have a closed form, of other leaves
    without one nothing. As a union may take a few of them for its intervals, four times the memory is allowed.
    """

    def part(node: nodes.Pattern, aligned: bool, below: list[list[Term]]) -> list[Term]:
        if isinstance(node, nodes.Columns) and node.count <= seq_kv // node.period:  # else they are intervals
            node = replace(node, count=min(node.count, MOST_RESIDUES))
        try:
            return terms_of(node, aligned, below)
        except NoClosedFormError:
            return []

    limit = memory.installed()
    if limit is None or LISTED_BYTES * seq_q * seq_kv <= 4 * limit:
        return
    terms = [term for term in fold(pattern, part) if term.lattice.step > 1]
    runs.check_runs_fit((seq_q, seq_kv), seq_q)
    places = sum(int(np.maximum(_triples(term, seq_q, seq_kv)[3], 0).sum()) for term in terms)
    memory.check_memory(f"mask with more than {places:,} places to be listed one by one", LISTED_BYTES * places // 4,
                        "Use shorter sequences.")  # fmt: skip


def _leaves(pattern: nodes.Pattern) -> list[nodes.Pattern]:
    found: list[nodes.Pattern] = []
    fold(pattern, lambda node, _aligned, below: None if below else found.append(node))
    return found


def _runs(pattern: nodes.Pattern, seq_q: int, seq_kv: int) -> Runs:
    """Closed forms as far up as they go, then runs: every term that is evaluated is a pass over its rows."""

    def evaluated(found: list[Term] | Runs) -> Runs:
        return found if isinstance(found, Runs) else _evaluate(found, seq_q, seq_kv)

    def combined(node: nodes.Pattern, aligned: bool, below: list[list[Term] | Runs]) -> list[Term] | Runs:
        closed = [one for one in below if not isinstance(one, Runs)]
        try:
            together = terms_of(node, aligned, closed) if closed or not below else None
        except NoClosedFormError:
            together = None
        if not below:
            return _leaf_runs(node, seq_q, seq_kv, aligned=aligned) if together is None else together
        if together is not None and len(closed) == len(below):
            return together
        rest: list[list[Term] | Runs] = (
            below if together is None else [together, *(one for one in below if isinstance(one, Runs))]
        )
        join = runs.union if isinstance(node, nodes.Union) else runs.intersect
        return functools.reduce(join, [evaluated(one) for one in rest])

    return evaluated(fold(pattern, combined))


def _leaf_runs(leaf: nodes.Pattern, seq_q: int, seq_kv: int, *, aligned: bool) -> Runs:
    match leaf:
        case nodes.Documents():
            return leaf_runs.document_runs(leaf, seq_q, seq_kv)
        case nodes.Neighborhood():
            return leaf_runs.neighborhood_runs(leaf, seq_q, seq_kv)
        case nodes.RandomBlocks():
            return leaf_runs.random_runs(leaf, seq_q, seq_kv, aligned=aligned)
        case nodes.Columns():
            return leaf_runs.column_runs(leaf, seq_q, seq_kv)
        case nodes.GlobalAt():
            return leaf_runs.global_runs(leaf, seq_q, seq_kv, aligned=aligned)
    raise PatternTypeError(
        f"pattern: wanted a Pattern such as window(4) | sinks(1), got {type(leaf).__name__}. Use the constructors, "
        "or parse(...) for text."
    )


def _evaluate(terms: Sequence[Term], seq_q: int, seq_kv: int) -> Runs:
    if not terms:
        return leaf_runs.no_runs(seq_q, seq_kv)
    rows = [(row_of(term.row_lo, seq_q, seq_kv), row_of(term.row_hi, seq_q, seq_kv)) for term in terms]
    runs.check_runs_fit((seq_q, seq_kv), sum(max(hi - lo, 0) for lo, hi in rows))
    pieces = [_triples(term, seq_q, seq_kv) for term in terms]
    return runs.from_triples((seq_q, seq_kv), *(np.concatenate(column) for column in zip(*pieces, strict=True)))


def _triples(term: Term, seq_q: int, seq_kv: int) -> tuple[NDArray[np.int64], ...]:
    """(row, start, step, count) of the term: one run for each of its rows, possibly empty."""
    rows = np.arange(row_of(term.row_lo, seq_q, seq_kv), row_of(term.row_hi, seq_q, seq_kv), dtype=np.int64)
    lo = np.maximum(evaluate(term.lo, rows, seq_q, seq_kv), 0)
    hi = np.minimum(evaluate(term.hi, rows, seq_q, seq_kv), seq_kv)
    step = term.lattice.step
    if step == 1:
        return rows, lo, np.ones_like(lo), hi - lo
    start = lo + (phase(term.lattice, rows, seq_q, seq_kv) - lo) % step
    return rows, start, np.full_like(lo, step), -((start - hi) // step)
