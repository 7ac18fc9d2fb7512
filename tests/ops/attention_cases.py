"""Masks, lengths and helpers of the attention tests. Few masks, because every one is a kernel to compile."""

import numpy as np
from numpy.testing import assert_allclose

from splat_numba.api import attention
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import (
    bigbird,
    blocked,
    causal,
    columns,
    dilated,
    full,
    global_tokens,
    longformer,
    prefix,
    sinks,
    sparse_transformer_strided,
    strided,
    window,
)
from splat_numba.testing import masks

MIXED = window(5, 3) | strided(7) | sinks(2)  # two bands and a dense stripe
EDGES = (0, 1, 2, 3, 5, 7, 13, 31, 61, 63, 64, 65, 97, 127, 128, 129)
CATALOGUE = {
    "full": full(),
    "causal": causal(),
    "causal at the end": causal().align_end(),
    "window": window(20, 9),
    "window at the end": window(30, 0).align_end(),
    "dilated": dilated(4, 5),
    "strided": strided(16),
    "columns": columns(9, 4, 3),
    "blocked": blocked(24, 1),
    "prefix": prefix(40),
    "global": global_tokens((0, 33, 34)),
    "longformer": longformer(12, 5),
    "bigbird": bigbird(8, 3, 1, 2, seed=3),
    "sparse transformer": sparse_transformer_strided(11),
    "mixed": MIXED,
}


def run(q, k, v, mask, **options):
    return attention(q, k, v, mask, backend="cpu", **options)


def assert_same(got, wanted, err_msg=""):
    """Equal up to the order of float32 sums, which may depend on memory layout and on neighbouring rows."""
    assert_allclose(got, wanted, rtol=1e-5, atol=2e-6, err_msg=err_msg)


def dense(mask, seq_q, seq_kv):
    return ACSR.from_pattern(mask, seq_q, seq_kv).to_dense()


def stored_masks(seq_q, seq_kv):
    """Patterns as ACSR: kernels of stored masks depend on no mask, so that many are cheap to try."""
    return masks(seq_q, seq_kv).map(
        lambda mask: mask if isinstance(mask, ACSR | np.ndarray) else ACSR.from_pattern(mask, seq_q, seq_kv)
    )
