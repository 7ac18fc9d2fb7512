"""Hypothesis strategies for patterns small enough to compare pair by pair."""

from __future__ import annotations

from functools import reduce
from operator import and_, or_

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from splat_numba.formats import patterns as p
from splat_numba.formats.patterns import Pattern

few = st.integers(0, 7)
steps = st.integers(1, 6)
lengths = st.integers(0, 19)


@st.composite
def _columns(draw: st.DrawFn, most: int) -> Pattern:
    period = draw(st.integers(1, most))
    start = draw(st.integers(0, period - 1))
    return p.columns(period, start, draw(st.integers(1, period - start)))


closed_leaves: SearchStrategy[Pattern] = st.one_of(
    st.builds(p.full),
    st.builds(p.causal),
    st.builds(p.window, few, few),
    st.builds(p.dilated, st.integers(0, 3), steps),
    st.builds(p.strided, steps),
    _columns(6),
    st.builds(p.blocked, steps, st.integers(0, 2), st.integers(0, 2)),
    st.builds(p.sinks, few),
    st.builds(p.prefix, few),
    st.builds(p.global_tokens, few),
    st.builds(p.sparse_transformer_strided, steps),
    st.builds(p.sparse_transformer_fixed, st.just(6), steps),
)
"""Leaves that have a closed form (and two combinations of them)."""

open_leaves: SearchStrategy[Pattern] = st.one_of(
    st.builds(p.random_blocks, st.integers(1, 5), st.integers(0, 4), st.integers(0, 3)),
    _columns(24),
    st.builds(p.bigbird, st.integers(1, 4), seed=st.integers(0, 3)),
)
"""Leaves that have none, or not always, and that fit all lengths."""


def combined(leaves: SearchStrategy[Pattern], most: int = 4) -> SearchStrategy[Pattern]:
    """Unions and intersections of leaves, some of them aligned at the end."""

    def extend(inner: SearchStrategy[Pattern]) -> SearchStrategy[Pattern]:
        parts = st.lists(inner, min_size=2, max_size=3)
        return st.one_of(
            parts.map(lambda found: reduce(or_, found)),
            parts.map(lambda found: reduce(and_, found)),
            inner.map(lambda found: found.align_end()),
        )

    return st.recursive(leaves, extend, max_leaves=most)


def global_indices(seq_q: int, seq_kv: int) -> SearchStrategy[Pattern]:
    """global_tokens(indices) that fits the lengths."""
    longer = max(seq_q, seq_kv)
    if not longer:
        return st.just(p.global_tokens(()))
    return st.builds(p.global_tokens, st.lists(st.integers(0, longer - 1), max_size=12))
