"""A problem for each kind of work that a plan for CPUs can have, named after what it is there for."""

import numpy as np

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import (
    causal,
    columns,
    global_tokens,
    longformer,
    sinks,
    sparse_transformer_strided,
    strided,
    window,
)
from splat_numba.gen.shown.kinds import kinds
from splat_numba.testing import Problem

RAGGED = np.random.default_rng(4).random((350, 350)) < 0.02


def by_tables(mask, seq_q, seq_kv, **options):
    return Problem(seq_q, seq_kv, ACSR.from_pattern(mask, seq_q, seq_kv), batch=1, heads_q=2, **options)


def closed(mask, seq_q, seq_kv, **options):
    return Problem(seq_q, seq_kv, mask, batch=1, heads_q=2, **options)


# At 350 tokens stored strided masks are regrouped by residue, in pieces with a step (at 300 they are not): 44 keys of
# the first six classes and 43 of the others, so that a last key is easily lost.
PROBLEMS = {
    "closed": (closed(causal(), 129, 97), {"closed"}),
    "rows by residue, resumed": (
        closed(sparse_transformer_strided(11), 129, 97), {"rows by residue", "resumed"},
    ),
    "keys by step": (closed(columns(9, 4, 3), 129, 97), {"keys by step", "several bands"}),
    "some rows": (closed(longformer(12, 5), 129, 97), {"some rows", "several bands"}),
    "rows counted from the end": (
        closed(window(3) | global_tokens(4).align_end(), 31, 60), {"some rows", "rows counted from the end"},
    ),
    "rows that nobody visits": (
        closed(causal() & global_tokens((8, 24)), 64, 64), {"rows that nobody visits", "some rows", "resumed"},
    ),
    "no bands": (closed(sinks(0), 20, 20), {"no bands", "rows that nobody visits"}),
    "table by step": (by_tables(strided(8), 350, 350), {"table by step", "whole pieces", "resumed table"}),
    "table by step, cut by key lengths": (
        by_tables(strided(8), 350, 350, kv_lengths=(337,)), {"table by step", "whole pieces"},
    ),
    "table by step beside another": (
        by_tables(strided(8) | sinks(3), 350, 350), {"table", "table by step", "resumed table"},
    ),
    "whole and masked pieces": (
        by_tables(window(200, 0), 350, 350, kv_lengths=(343,)), {"whole pieces", "masked pieces", "long pieces"},
    ),
    "gathered": (Problem(350, 350, RAGGED, batch=1, heads_q=2), {"gathered", "masked pieces"}),
}  # fmt: skip


def kinds_of(problem, backend):
    """Of the plans that a call of the problem makes."""
    from splat_numba import plan

    masks = problem.mask if isinstance(problem.mask, list) else [problem.mask]
    shapes = {name: getattr(problem, name) or 1 for name in ("heads_q", "batch")}
    shapes["heads_kv"] = problem.heads_kv or shapes["heads_q"]
    return set().union(
        *(
            kinds(
                plan(
                    mask, seq_q=problem.seq_q, seq_kv=problem.seq_kv, head_dim=problem.head_dim, dtype=problem.dtype,
                    value_dim=problem.value_dim or problem.head_dim, backend=backend, **shapes,
                )
            )
            for mask in masks
        )
    )  # fmt: skip
