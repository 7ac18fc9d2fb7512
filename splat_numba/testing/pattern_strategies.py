"""Hypothesis strategies for patterns and lengths. They shrink towards short lengths and `full()`.

A leaf is drawn by picking a row of `_LEAVES` and letting it draw its parameters: much faster than a strategy object per
constructor, and every constructor is as likely as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from splat_numba.formats import patterns as p
from splat_numba.formats.importers import from_flash_attention, from_sliding_window
from splat_numba.formats.patterns import Pattern

# Empty, one, small primes, and the neighbours of the tile sizes 16, 32, 64 and 128.
LENGTHS = (1, 2, 0, 3, 5, 7, 13, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 127, 128, 129)
LONGEST = LENGTHS[-1]


def lengths(max_length: int = LONGEST) -> SearchStrategy[int]:
    """Sequence lengths from 0 to max_length, mostly those where tiles end: 0, 1, primes, and tile sizes +- 1."""
    return st.one_of(st.sampled_from([n for n in LENGTHS if n <= max_length]), st.integers(0, max_length))


@st.composite
def patterns(draw: DrawFn, seq_q: int | None = None, seq_kv: int | None = None, *, max_leaves: int = 3) -> Pattern:
    """Patterns of every constructor, composed with |, & and align_end from at most max_leaves of them.

    With both lengths, every pattern drawn fits them; patterns that fix their lengths (documents, neighborhood) are
    drawn only where seq_q == seq_kv >= 1, and global indices lie below the longer length. Without them, those are left
    out, so that what is drawn fits every length.
    """
    lengths = None if seq_q is None or seq_kv is None else (seq_q, seq_kv)
    space = _Space.of(lengths)
    pattern = _part(draw, space)
    for _ in range(draw(_leaf_count(max_leaves)) - 1):
        other = _part(draw, space)
        pattern = pattern | other if draw(st.booleans()) else pattern & other
        if draw(one_in_eight):
            pattern = pattern.align_end()
    return pattern


def _part(draw: DrawFn, space: _Space) -> Pattern:
    pattern = _LEAVES[draw(space.leaf)](draw, space)
    return pattern.align_end() if draw(one_in_eight) else pattern


one_in_eight = st.integers(0, 7).map(lambda n: n == 7)
_few = st.integers(0, 3)
_seed = st.integers(0, 2**16)
_flag = st.booleans()


@lru_cache
def _leaf_count(max_leaves: int) -> SearchStrategy[int]:
    return st.sampled_from([n for n in (1, 1, 2, 3, *range(4, max_leaves + 1)) if n <= max_leaves])


@cache
def _sizes(low: int, high: int) -> SearchStrategy[int]:
    """Mostly small sizes and tile sizes, and any up to the limit."""
    usual = [n for n in (1, 2, 3, 4, 8, 16, 64, 0) if low <= n <= high]
    return st.one_of(st.sampled_from(usual), st.integers(low, max(low, high)))


@dataclass(frozen=True, slots=True)
class _Space:
    """What the leaves draw from: sizes a little beyond the lengths; total: both lengths, where they are equal."""

    leaf: SearchStrategy[str]
    size: SearchStrategy[int]
    step: SearchStrategy[int]
    longest: int
    total: int

    @classmethod
    def of(cls, lengths: tuple[int, int] | None) -> _Space:
        longest = max(lengths) if lengths else LONGEST
        total = longest if lengths and lengths[0] == lengths[1] else 0
        return _space(longest, total, bool(lengths))


@cache
def _space(longest: int, total: int, known: bool) -> _Space:
    names = [
        name
        for name in _LEAVES
        if not (name in {"documents", "neighborhood"} and total == 0)
        and not (name == "global_indices" and not (known and longest))
    ]
    return _Space(st.sampled_from(names), _sizes(0, longest + 2), _sizes(1, longest + 2), longest, total)


def _columns(draw: DrawFn, space: _Space) -> Pattern:
    period = draw(space.step)
    start = draw(st.integers(0, period - 1))
    return p.columns(period, start, draw(st.integers(1, period - start)))


def _global_indices(draw: DrawFn, space: _Space) -> Pattern:
    some = draw(st.sets(st.integers(0, space.longest - 1), min_size=1, max_size=12))
    return p.global_tokens(tuple(sorted(some)))


def _documents(draw: DrawFn, space: _Space) -> Pattern:
    """Cut the tokens at up to six places."""
    cuts = draw(st.sets(st.integers(1, space.total - 1), max_size=6)) if space.total > 1 else set()
    return p.documents(tuple(b - a for a, b in pairwise([0, *sorted(cuts), space.total])))


def _neighborhood(draw: DrawFn, space: _Space) -> Pattern:
    """A 2-D or 3-D grid whose sizes multiply to the length."""
    shape: tuple[int, ...] = ()
    rest = space.total
    for _ in range(draw(st.integers(1, 2))):
        shape = (*shape, draw(st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0])))
        rest //= shape[-1]
    shape = (*shape, rest)
    kernel, dilation = st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2, 3])
    if draw(_flag):
        return p.neighborhood(shape, draw(kernel), draw(dilation))
    axes = range(len(shape))
    return p.neighborhood(shape, tuple(draw(kernel) for _ in axes), tuple(draw(dilation) for _ in axes))


def _sparse_transformer_fixed(draw: DrawFn, space: _Space) -> Pattern:
    period = draw(space.step)
    return p.sparse_transformer_fixed(period, draw(st.integers(1, period)))


def _flash_attention(draw: DrawFn, space: _Space) -> Pattern:
    left, right = (-1 if draw(one_in_eight) else draw(space.size) for _ in range(2))
    return from_flash_attention((left, right), draw(_flag))


_Leaf: TypeAlias = Callable[[DrawFn, _Space], Pattern]
_LEAVES: dict[str, _Leaf] = {
    "full": lambda _, __: p.full(),
    "causal": lambda _, __: p.causal(),
    "window": lambda draw, space: p.window(draw(space.size), draw(space.size) if draw(_flag) else None),
    "dilated": lambda draw, _: p.dilated(draw(_sizes(0, 40)), draw(_sizes(1, 40))),
    "strided": lambda draw, space: p.strided(draw(space.step)),
    "columns": _columns,
    "blocked": lambda draw, space: p.blocked(draw(space.step), draw(_few), draw(_few)),
    "documents": _documents,
    "global_tokens": lambda draw, space: p.global_tokens(draw(space.size)),
    "global_indices": _global_indices,
    "sinks": lambda draw, space: p.sinks(draw(space.size)),
    "prefix": lambda draw, space: p.prefix(draw(space.size)),
    "neighborhood": _neighborhood,
    "random_blocks": lambda draw, space: p.random_blocks(draw(space.step), draw(_few), draw(_seed)),
    "longformer": lambda draw, space: p.longformer(draw(space.size), draw(space.size)),
    "bigbird": lambda draw, _: p.bigbird(
        draw(_sizes(1, 32)), draw(st.sampled_from([1, 3, 5])), draw(_few), draw(_few), draw(_seed)
    ),
    "sparse_transformer_strided": lambda draw, space: p.sparse_transformer_strided(draw(space.step)),
    "sparse_transformer_fixed": _sparse_transformer_fixed,
    "sliding_window": lambda draw, space: from_sliding_window(draw(space.step), draw(_flag)),
    "flash_attention": _flash_attention,
}
