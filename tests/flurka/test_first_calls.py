"""A call on a few tokens compiles what a CPU needs for all sizes: what docs/troubleshooting.md tells people to do."""

import numpy as np

import flurka_numba
from splat_numba.runtime import notice


def forward_and_back(seq, dim, rank, heads):
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, heads, seq, dim)).astype(np.float32) for _ in range(3))
    proj_k, proj_v = (rng.standard_normal((rank, seq)).astype(np.float32) for _ in range(2))
    out, vjp = flurka_numba.attention_vjp(q, k, v, proj_k, proj_v)
    vjp(out)


def test_a_small_call_compiles_for_all_sizes():
    forward_and_back(8, 4, 2, 1)
    with notice.heard() as told:
        forward_and_back(300, 40, 33, 3)
    assert told == []
