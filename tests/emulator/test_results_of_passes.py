"""16-bit results of several passes are rounded once: what rounding takes off one pass's goes on to the next.

Found on an H200: with out rounded between passes, bfloat16 results of sparse_transformer_strided(13) erred by more than
one rounding (-0.609375 where -0.60305 was wanted).
"""

from __future__ import annotations

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.gen.boxes import search as box_search
from splat_numba.testing.error_bound import numpy_dtype

ROWS = 150
MASK = (splat.window(7, 0) | splat.strided(8)) & splat.causal()  # 8 keys first: a weight of the others is 1/8
FEW = 0.01  # of numbers, which lie between two of 16 bits


@pytest.fixture
def in_two_passes(monkeypatch):
    schemes = box_search.schemes
    ways = {}

    def chosen(*given, **options):
        found = schemes(*given, **options)
        ways.update({name: parts for name, parts in found.items() if ", then " in name})
        return ways

    monkeypatch.setattr(box_search, "schemes", chosen)
    return ways


@pytest.mark.parametrize("value_dim", [12, 40], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("target", ["sm_90a", "sm80", "simt"])
def test_are_rounded_once(in_two_passes, target, dtype, value_dim):
    """Without scores weights are powers of 2, which no dtype rounds, in all rows but the first."""
    zero = np.zeros((1, ROWS, 8), numpy_dtype(dtype))
    v = np.random.default_rng(value_dim).standard_normal((1, ROWS, value_dim)).astype(zero.dtype)
    out = splat.attention(zero, zero, v, MASK, backend="emulate", target=target)
    (parts,) = in_two_passes.values()
    assert [(one.resumes, one.handed_on) for one in parts] == [(False, True), (True, False)]
    kept = splat.ACSR.from_pattern(MASK, ROWS, ROWS).to_dense().astype(float)
    exact = kept @ v[0].astype(float) / kept.sum(1, keepdims=True)
    assert (out[0, 7:] != exact[7:].astype(out.dtype)).mean() < FEW
