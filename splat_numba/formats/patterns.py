"""Constructors of attention patterns. Row i is a query and column j a key, both counted from 0.

Every size is a Python or NumPy integer (bool and float are refused with PatternTypeError, impossible values with
PatternError) of at most 2**40. Patterns combine with `|` and `&` and know no sequence length; see `Pattern`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, SupportsIndex

from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.pattern_checks import Ints, integer, integers, is_array, is_integer, per_axis
from splat_numba.formats.pattern_nodes import Pattern
from splat_numba.plain import shown
from splat_numba.signatures import strict

__all__ = [
    "Pattern",
    "bigbird",
    "blocked",
    "causal",
    "columns",
    "dilated",
    "documents",
    "full",
    "global_tokens",
    "longformer",
    "neighborhood",
    "prefix",
    "random_blocks",
    "sinks",
    "sparse_transformer_fixed",
    "sparse_transformer_strided",
    "strided",
    "window",
]


@strict(error=PatternTypeError)
def full() -> Pattern:
    """Keeps every pair."""
    return nodes.Full()


@strict(error=PatternTypeError)
def causal() -> Pattern:
    """Keeps j <= i."""
    return nodes.Causal()


@strict(error=PatternTypeError)
def window(left: SupportsIndex, right: SupportsIndex | None = None) -> Pattern:
    """Keeps i - left <= j <= i + right; `right` defaults to `left`; both in tokens, >= 0."""
    left = integer("left", left, 0)
    return nodes.Window(left, left if right is None else integer("right", right, 0))


@strict(error=PatternTypeError)
def dilated(window: SupportsIndex, step: SupportsIndex) -> Pattern:
    """Keeps every step-th key near i: (i - j) % step == 0 and abs(i - j) <= window * step; window >= 0, step >= 1."""
    return nodes.Dilated(integer("window", window, 0), integer("step", step, 1))


@strict(error=PatternTypeError)
def strided(step: SupportsIndex) -> Pattern:
    """Keeps (i - j) % step == 0; step >= 1."""
    return nodes.Strided(integer("step", step, 1))


@strict(error=PatternTypeError)
def columns(period: SupportsIndex, start: SupportsIndex, count: SupportsIndex = 1) -> Pattern:
    """Keeps start <= j % period < start + count; count >= 1, 0 <= start, start + count <= period."""
    period, start, count = integer("period", period, 1), integer("start", start, 0), integer("count", count, 1)
    if start + count > period:
        raise PatternError(
            f"count: wanted start + count <= period, got {start} + {count} > {period}. "
            "A stretch cannot run past its period: lower start or count, or join two columns(...) with |."
        )
    return nodes.Columns(period, start, count)


@strict(error=PatternTypeError)
def blocked(size: SupportsIndex, before: SupportsIndex = 0, after: SupportsIndex = 0) -> Pattern:
    """Keeps chunk(i) - before <= chunk(j) <= chunk(i) + after, chunk(x) = x // size; size >= 1 in tokens."""
    return nodes.Blocked(integer("size", size, 1), integer("before", before, 0), integer("after", after, 0))


@strict(error=PatternTypeError)
def documents(lengths: Ints) -> Pattern:
    """Keeps pairs within one document; `lengths` (each >= 1, in tokens) must add up to seq_q and to seq_kv."""
    numbers = integers("lengths", lengths, 0)
    if not numbers:
        raise PatternError("lengths: wanted at least one document, got none. Give the length of every document.")
    if len(numbers) > 1 and numbers[0] == 0 and all(a <= b for a, b in pairwise(numbers)):
        raise PatternError(
            f"lengths: wanted the length of every document, got {shown(numbers)}, which are running sums (cu_seqlens). "
            "Write documents(np.diff(cu_seqlens))."
        )
    return nodes.Documents(integers("lengths", numbers, 1))


@strict(error=PatternTypeError)
def global_tokens(n: SupportsIndex | Ints) -> Pattern:
    """Keeps (i, j) where i or j is global: one of the first `n` tokens, or one of the indices listed in `n`.

    With a count, tokens beyond a sequence's end are ignored; an index must be below the longer of seq_q and seq_kv.
    """
    if isinstance(n, (tuple, list, range)) or (not is_integer(n) and is_array(n)):
        return nodes.GlobalAt(tuple(sorted(set(integers("indices", n, 0)))))
    return nodes.GlobalFirst(integer("n", n, 0))


@strict(error=PatternTypeError)
def sinks(n: SupportsIndex) -> Pattern:
    """Keeps the first n keys: j < n, in rows before them too; ``& causal()`` takes the later ones away."""
    return nodes.Sinks(integer("n", n, 0))


@strict(error=PatternTypeError)
def prefix(n: SupportsIndex) -> Pattern:
    """Keeps j < n or j <= i: a prefix seen by all, causal after it."""
    return nodes.Prefix(integer("n", n, 0))


@strict(error=PatternTypeError)
def neighborhood(shape: Ints, kernel: SupportsIndex | Ints, dilation: SupportsIndex | Ints = 1) -> Pattern:
    """Neighbours on a 2-D or 3-D grid of `shape` tokens, flattened in C order (the last axis is contiguous).

    In every axis the distance is at most (kernel // 2) * dilation and a multiple of dilation; nothing wraps around and
    windows are cut at the borders. `kernel` (odd) and `dilation` (>= 1) are one int for all axes or one per axis.
    The grid's size must equal seq_q and seq_kv.
    """
    extents = integers("shape", shape, 1)
    if len(extents) not in (2, 3):
        raise PatternError(f"shape: wanted 2 or 3 axes, got {len(extents)}: {extents}. For one axis use dilated(...).")
    kernels = per_axis("kernel", kernel, len(extents), 1)
    if any(k % 2 == 0 for k in kernels):
        raise PatternError(
            f"kernel: wanted odd sizes, so that the query is in the middle, got {kernels}. Use k + 1 or k - 1."
        )
    return nodes.Neighborhood(extents, kernels, per_axis("dilation", dilation, len(extents), 1))


@strict(error=PatternTypeError)
def random_blocks(size: SupportsIndex, per_row: SupportsIndex, seed: SupportsIndex) -> Pattern:
    """Block row r keeps min(per_row, blocks) distinct blocks of `size` keys, drawn uniformly; the last block is cut.

    The draw is a function of (seed, r, number of blocks) alone, so it is the same on every machine and for every
    number of queries. 0 <= seed < 2**64.
    """
    return nodes.RandomBlocks(
        integer("size", size, 1), integer("per_row", per_row, 0), integer("seed", seed, 0, most=2**64 - 1)
    )


@strict(error=PatternTypeError)
def longformer(width: SupportsIndex, n_global: SupportsIndex | Ints) -> Pattern:
    """`window(width) | global_tokens(n_global)` (Beltagy et al., 2020)."""
    return window(integer("width", width, 0)) | global_tokens(n_global)


@strict(error=PatternTypeError)
def bigbird(
    size: SupportsIndex,
    n_window: SupportsIndex = 3,
    n_global: SupportsIndex = 2,
    n_random: SupportsIndex = 3,
    seed: SupportsIndex = 0,
) -> Pattern:
    """BigBird (Zaheer et al., 2020) in blocks of `size`; counts are in blocks, n_window an odd one.

    `blocked(size, n_window // 2, n_window // 2) | global_tokens(n_global * size) | random_blocks(size, n_random, seed)`
    """
    size, width = integer("size", size, 1), integer("n_window", n_window, 0)
    if width % 2 == 0:
        raise PatternError(
            f"n_window: wanted an odd number, a query's own block and as many before it as after it, got {width}. "
            f"Write {width + 1}{f' or {width - 1}' if width else ''}."
        )
    side = width // 2
    n_global, n_random = integer("n_global", n_global, 0), integer("n_random", n_random, 0)
    return blocked(size, side, side) | global_tokens(n_global * size) | random_blocks(size, n_random, seed)


@strict(error=PatternTypeError)
def sparse_transformer_strided(l: SupportsIndex) -> Pattern:  # noqa: E741  # the paper's name, and the interface's
    """`(window(l, 0) | strided(l)) & causal()` (Child et al., 2019)."""
    step = integer("l", l, 1)
    return (window(step, 0) | strided(step)) & causal()


@strict(error=PatternTypeError)
def sparse_transformer_fixed(l: SupportsIndex, c: SupportsIndex) -> Pattern:  # noqa: E741  # the paper's name
    """`(blocked(l) | columns(l, l - c, c)) & causal()` (Child et al., 2019); 1 <= c <= l."""
    size, count = integer("l", l, 1), integer("c", c, 1)
    if count > size:
        raise PatternError(f"c: wanted at most l = {size} summary columns a block, got {count}. Lower c or raise l.")
    return (blocked(size) | columns(size, size - count, count)) & causal()


def constructor_name(value: object) -> str | None:
    """The name of a constructor that was given uncalled; None for all else."""
    return next((name for name in __all__ if name != "Pattern" and globals()[name] is value), None)


_MAKERS: dict[type[Pattern], Any] = {
    nodes.Full: full,
    nodes.Causal: causal,
    nodes.Window: window,
    nodes.Dilated: dilated,
    nodes.Strided: strided,
    nodes.Columns: columns,
    nodes.Blocked: blocked,
    nodes.Documents: documents,
    nodes.GlobalFirst: global_tokens,
    nodes.GlobalAt: global_tokens,
    nodes.Sinks: sinks,
    nodes.Prefix: prefix,
    nodes.Neighborhood: neighborhood,
    nodes.RandomBlocks: random_blocks,
}


def remade(kind: type[Pattern], *fields: Any) -> Pattern:
    """The pattern of a leaf's fields, made and checked by its constructor: what unpickling calls."""
    maker = _MAKERS.get(kind)
    if maker is None:
        raise PatternTypeError(f"pattern: wanted a leaf of this package, got {kind.__name__}. Pickle a Pattern.")
    pattern: Pattern = maker(*fields)
    return pattern
