"""The eight plans whose sources are kept under golden/: one of every kind, small enough to be read."""

from __future__ import annotations

import numpy as np

from splat_numba.formats import patterns as p
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.plans.plan import Plan
from tests.gen.plan_cases import plan_of

SEQ_Q, SEQ_KV = 150, 170
TABLE = np.random.default_rng(3).random((SEQ_Q, SEQ_KV)) < 0.2
TABLE[70:90] = TABLE[3:4]  # equal rows, so that whole tiles are kept and others gathered

GOLDEN = {
    "window": (p.window(40, 0), "float32"),
    "causal": (p.causal().align_end(), "float32"),
    "dilated": (p.dilated(6, 5), "float32"),
    "longformer": (p.longformer(12, 5), "float32"),
    "sparse_transformer": (p.sparse_transformer_strided(16), "float32"),
    "table": (ACSR.from_dense(TABLE), "float32"),
    "float16": (p.window(9, 3) | p.strided(7), "float16"),
    "float64": (p.blocked(24, 1), "float64"),
}


def golden_plan(name: str) -> Plan:
    mask, dtype = GOLDEN[name]
    return plan_of(mask, SEQ_Q, SEQ_KV, dtype)
