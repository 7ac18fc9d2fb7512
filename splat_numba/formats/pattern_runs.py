"""A pattern's runs for given lengths."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.formats import leaf_runs, runs
from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.bounds import evaluate
from splat_numba.formats.closed_form import Term, closed_form
from splat_numba.formats.pattern_checks import integer
from splat_numba.formats.runs import Runs
from splat_numba.formats.terms import phase, row_of

__all__ = ["check_lengths", "pattern_runs"]


def pattern_runs(pattern: nodes.Pattern, seq_q: int, seq_kv: int) -> Runs:
    """The pairs that `pattern` keeps in a (seq_q, seq_kv) mask, as runs.

    Raises PatternError where the pattern does not fit the lengths (`check_lengths`).
    """
    check_lengths(pattern, seq_q, seq_kv)
    return _runs(pattern, int(seq_q), int(seq_kv), aligned=False)


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


def _leaves(pattern: nodes.Pattern) -> Iterable[nodes.Pattern]:
    if isinstance(pattern, (nodes.Union, nodes.Intersection)):
        for part in pattern.parts:
            yield from _leaves(part)
    elif isinstance(pattern, nodes.AlignEnd):
        yield from _leaves(pattern.pattern)
    else:
        yield pattern


def _runs(pattern: nodes.Pattern, seq_q: int, seq_kv: int, *, aligned: bool) -> Runs:
    terms = closed_form(pattern.align_end() if aligned else pattern)
    if terms is not None:
        return _evaluate(terms, seq_q, seq_kv)
    match pattern:
        case nodes.AlignEnd(inner):
            return _runs(inner, seq_q, seq_kv, aligned=True)
        case nodes.Union(parts):
            whole = (_runs(part, seq_q, seq_kv, aligned=aligned) for part in _grouped(pattern, parts, aligned=aligned))
            return functools.reduce(runs.union, whole)
        case nodes.Intersection(parts):
            whole = (_runs(part, seq_q, seq_kv, aligned=aligned) for part in _grouped(pattern, parts, aligned=aligned))
            return functools.reduce(runs.intersect, whole)
        case nodes.Documents():
            return leaf_runs.document_runs(pattern, seq_q, seq_kv)
        case nodes.Neighborhood():
            return leaf_runs.neighborhood_runs(pattern, seq_q, seq_kv)
        case nodes.RandomBlocks():
            return leaf_runs.random_runs(pattern, seq_q, seq_kv, aligned=aligned)
        case nodes.Columns():
            return leaf_runs.column_runs(pattern, seq_q, seq_kv)
        case nodes.GlobalAt():
            return leaf_runs.global_runs(pattern, seq_q, seq_kv, aligned=aligned)
    raise PatternTypeError(
        f"pattern: wanted a Pattern such as window(4) | sinks(1), got {type(pattern).__name__}. Use the constructors, "
        "or parse(...) for text."
    )


def _grouped(
    pattern: nodes.Union | nodes.Intersection, parts: tuple[nodes.Pattern, ...], *, aligned: bool
) -> list[nodes.Pattern]:
    """The parts, with those in closed form as one where that is in closed form too: it saves passes over the rows."""
    closed = [part for part in parts if closed_form(part.align_end() if aligned else part) is not None]
    if len(closed) < 2:
        return list(parts)
    together = type(pattern)(tuple(closed))
    if closed_form(together.align_end() if aligned else together) is None:
        return list(parts)
    return [together, *(part for part in parts if part not in closed)]


def _evaluate(terms: tuple[Term, ...], seq_q: int, seq_kv: int) -> Runs:
    if not terms:
        return leaf_runs.no_runs(seq_q, seq_kv)
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
