"""Hypothesis strategies for masks and whole attention problems. They shrink towards short, one head, float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.reference import Bool
from splat_numba.testing.error_bound import DTYPES
from splat_numba.testing.pattern_strategies import lengths, one_in_eight, patterns
from splat_numba.testing.problem import MaskLike, Problem

# One problem in eight is long: some kinds of pass pay from several hundred tokens on. Then it has few heads and dims,
# and no bool arrays or irregular masks, as the oracle's work and what a failure prints grow with seq_q * seq_kv.
LONG = (350, 515, 777, 1024, 1300)
MANY_PAIRS = 400 * 400


def masks(
    seq_q: int | None = None, seq_kv: int | None = None, *, max_length: int = 129
) -> SearchStrategy[Pattern | ACSR | Bool]:
    """Masks in every form: patterns, ACSRs, bool arrays (random at every density; patterns with some pairs flipped).

    With both lengths all fit them; without, arrays and ACSRs have lengths up to max_length of their own, and the
    patterns fit every length.
    """
    if seq_q is not None and seq_kv is not None:
        if seq_q * seq_kv > MANY_PAIRS:
            return st.one_of(patterns(seq_q, seq_kv), _stored_patterns(seq_q, seq_kv))
        return st.one_of(patterns(seq_q, seq_kv), _stored(seq_q, seq_kv), _arrays(seq_q, seq_kv))
    drawn = st.tuples(
        lengths(max_length) if seq_q is None else st.just(seq_q),
        lengths(max_length) if seq_kv is None else st.just(seq_kv),
    )
    return st.one_of(patterns(), drawn.flatmap(lambda n: _stored(*n)), drawn.flatmap(lambda n: _arrays(*n)))


@st.composite
def problems(
    draw: DrawFn,
    *,
    dtypes: Sequence[str] = ("float32", "float64", "float16"),
    max_length: int | None = None,
    max_head_dim: int = 80,
    mask: Callable[[int, int], SearchStrategy[MaskLike]] | None = None,
) -> Problem:
    """Attention problems: lengths, mask (one, or one per head), dtype, heads and grouping, dims, layout, kv_lengths.

    dtypes: those drawn from, of `DTYPES`. max_length, max_head_dim: upper limits; without max_length, 129, and 1300
    in one problem of eight, which then is small in all else. mask: a function from (seq_q, seq_kv) to a strategy, to
    test one kind of mask; `masks` where it is None.
    """
    make_mask = masks if mask is None else mask
    if not set(dtypes) <= set(DTYPES):
        raise ValueError(f"dtypes: wanted some of {', '.join(DTYPES)}, got {dtypes}")
    long = max_length is None and draw(one_in_eight)
    short = lengths() if max_length is None else lengths(max_length)
    seq_kv = draw(st.sampled_from(LONG) if long else short)
    seq_q = draw(st.one_of(st.just(seq_kv), short))
    if long:
        max_head_dim = min(max_head_dim, 16)
    missing = draw(st.integers(0, 2))  # leading axes left out
    batch = draw(st.sampled_from([1] if long else [1, 2, 0, 3])) if missing == 0 else None
    heads_kv = draw(st.sampled_from([1] if long else [1, 2, 3])) if missing < 2 else None
    heads_q = None if heads_kv is None else heads_kv * draw(st.sampled_from([1, 2] if long else [1, 2, 3]))
    one_mask = make_mask(seq_q, seq_kv)
    drawn: MaskLike | list[MaskLike] = draw(one_mask)
    if heads_q is not None and draw(st.integers(0, 3)) == 3:
        drawn = draw(st.lists(one_mask, min_size=heads_q, max_size=heads_q))
    head_dim = draw(_dims(max_head_dim))
    return Problem(
        seq_q,
        seq_kv,
        drawn,
        dtype=draw(st.sampled_from(list(dtypes))),
        batch=batch,
        heads_q=heads_q,
        heads_kv=None if heads_kv == heads_q else heads_kv,
        head_dim=head_dim,
        value_dim=draw(st.one_of(st.none(), _dims(max_head_dim))),
        layout=draw(st.sampled_from(("bhsd", "bshd"))),
        scale=draw(st.sampled_from([None, None, 1.0, 0.05, -0.3, 0.0])),
        kv_lengths=None if not batch else draw(st.one_of(st.none(), _kv_lengths(batch, seq_kv))),
        seed=draw(st.integers(0, 2**16)),
        spread=draw(st.sampled_from([1.0, 4.0, 0.1])),
        minus_inf=draw(st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.5, 0.95, 1.0])),
    )


def _dims(max_dim: int) -> SearchStrategy[int]:
    usual = [d for d in (16, 1, 8, 32, 33, 64, 80, 128, 256) if d <= max_dim]
    return st.one_of(st.sampled_from(usual), st.integers(1, max_dim))


def _kv_lengths(batch: int, seq_kv: int) -> SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, seq_kv), min_size=batch, max_size=batch).map(tuple)


def _stored(seq_q: int, seq_kv: int) -> SearchStrategy[ACSR]:
    return st.one_of(_stored_patterns(seq_q, seq_kv), _arrays(seq_q, seq_kv).map(ACSR.from_dense))


def _stored_patterns(seq_q: int, seq_kv: int) -> SearchStrategy[ACSR]:
    return patterns(seq_q, seq_kv).map(lambda pattern: ACSR.from_pattern(pattern, seq_q, seq_kv))


@st.composite
def _arrays(draw: DrawFn, seq_q: int, seq_kv: int) -> Bool:
    """Draw a seed and a density instead of every element: a mask of 129 x 129 would exceed what Hypothesis can vary."""
    if seq_q * seq_kv <= 64:
        bits = draw(st.integers(0, 2 ** (seq_q * seq_kv) - 1))
        flat = [bits >> t & 1 for t in range(seq_q * seq_kv)]
        return np.array(flat, np.bool_).reshape(seq_q, seq_kv)
    density = draw(st.sampled_from([0.5, 0.0, 0.02, 0.2, 0.9, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    noise: Bool = rng.random((seq_q, seq_kv)) < density
    if draw(st.booleans()):
        base = ACSR.from_pattern(draw(patterns(seq_q, seq_kv)), seq_q, seq_kv).to_dense()
        return base ^ (noise & (rng.random((seq_q, 1)) < 0.2))  # regular rows beside irregular ones
    return noise
