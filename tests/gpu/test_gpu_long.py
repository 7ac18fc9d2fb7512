"""Long sequences on a GPU, some of their rows against the oracle: many waves of items, large tables."""

import numpy as np
import pytest

import splat_numba as splat
from splat_numba import reference
from splat_numba.formats.acsr import ACSR
from splat_numba.testing import Problem, assert_close, tolerance
from tests.gpu.targets import every_type
from tests.profiles import by_place

pytestmark = pytest.mark.gpu


def check_sampled_rows(
    mask, length, head_dim, dtype, *, count, target=None, heads_q=4, heads_kv=2, kv_lengths=None
):  # fmt: skip
    """Some rows of a long sequence against the oracle, with the tolerance of whole problems."""
    problem = Problem(length, length, mask, dtype, 1, heads_q, heads_kv, head_dim, kv_lengths=kv_lengths)
    q, k, v = problem.arrays()
    options = problem.options()
    out, lse = splat.attention(q, k, v, mask, return_lse=True, backend="cuda", target=target, **options)
    stored = ACSR.from_pattern(mask, length, length)
    edges = [0, 1, 63, 64, 127, 128, 191, 192, length // 2, length - 65, length - 64, length - 1]
    rows = np.union1d(edges, np.random.default_rng(1).integers(0, length, count))
    kept = np.zeros((len(rows), length), np.bool_)
    for place, row in enumerate(rows):
        kept[place, stored.row_columns(int(row))] = True
    head = heads_q - 1  # and the key head that it uses
    few = q[:, [0, head]][:, :, rows], k[:, [0, -1]], v[:, [0, -1]]
    wanted, wanted_lse = reference.attention(*few, kept, return_lse=True, **options)
    allowed, allowed_lse = tolerance(*few, kept, **options)
    assert_close(out[:, [0, head]][:, :, rows], wanted, allowed)
    assert_close(lse[:, [0, head]][:, :, rows], wanted_lse, allowed_lse, name="lse")


@every_type
def test_a_subset_of_rows_of_a_long_sequence(target, dtype):
    mask = splat.window(300, 20) | splat.sinks(4)
    check_sampled_rows(mask, 20_011, 64, dtype, count=60, target=target.name)


def long_masks():
    n = 8192
    cuts = np.random.default_rng(0).integers(200, 1500, 5)
    return {
        "full": splat.full(),
        "causal": splat.causal(),
        "window512": splat.window(512),
        "causal_window1024": splat.window(1024, 0),
        "dilated512x4": splat.dilated(512, 4),
        "dilated128x16": splat.dilated(128, 16),
        "strided16": splat.strided(16),
        "blocked256": splat.blocked(256, 1),
        "documents": splat.documents((*map(int, cuts), n - int(cuts.sum()))),
        "longformer": splat.longformer(256, 64),
        "bigbird": splat.bigbird(64),
        "sparse_transformer_strided": splat.sparse_transformer_strided(128),
        "sparse_transformer_fixed": splat.sparse_transformer_fixed(128, 8),
        "neighborhood2d": splat.neighborhood((64, 128), 13),
    }


LONG = long_masks()
KINDS = [(128, "bfloat16"), (64, "float16"), (80, "float16")]


@pytest.mark.parametrize(("name", "kind"), by_place(LONG, KINDS), ids=str)
def test_the_masks_of_the_benchmarks_at_their_length(name, kind):
    check_sampled_rows(LONG[name], 8192, *kind, count=40)


@pytest.mark.parametrize("name", ["causal", "window512", "sparse_transformer_strided"])
def test_key_lengths_of_a_long_sequence(name):
    check_sampled_rows(LONG[name], 8192, 128, "bfloat16", count=40, kv_lengths=(5001,))
