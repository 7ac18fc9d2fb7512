"""Infinite numbers and NaN on a GPU reach the rows that keep them, and nothing else; large numbers stay finite."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba.testing import Problem
from tests.gpu.targets import every_target, every_type
from tests.ops.attention_cases import CATALOGUE, MIXED, dense

pytestmark = pytest.mark.gpu


def poisoned(x, places, bad):
    x = x.copy()
    x[..., places, :] = bad
    return x


def cuda(q, k, v, mask, **options):
    return splat.attention(q, k, v, mask, backend="cuda", **options)


@every_target
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["full", "causal", "dilated", "longformer", "mixed", "sparse transformer"])
def test_a_non_finite_query_makes_its_own_row_nan_and_no_other(name, bad, target):
    mask = CATALOGUE[name]
    q, k, v = Problem(333, 333, mask, target.types[0], heads_q=2, head_dim=64).arrays()
    rows = [0, 17, 63, 64, 128, 332]
    clean, clean_lse = target.attend(q, k, v, mask, return_lse=True)
    out, lse = target.attend(poisoned(q, rows, bad), k, v, mask, return_lse=True)
    others = np.setdiff1d(np.arange(333), rows)
    assert np.isnan(out[:, rows]).all()
    assert np.isnan(lse[:, rows]).all()
    assert_array_equal(out[:, others], clean[:, others])
    assert_array_equal(lse[:, others], clean_lse[:, others])


def test_a_non_finite_query_of_an_empty_row_gives_zero_and_minus_infinity():
    mask = dense(MIXED, 333, 333)
    mask[[3, 64, 200]] = False
    q, k, v = Problem(333, 333, mask, "float16", head_dim=64).arrays()
    out, lse = cuda(poisoned(q, [3, 64, 200], np.nan), k, v, mask, return_lse=True)
    assert_array_equal(out[[3, 64, 200]], 0)
    assert_array_equal(lse[[3, 64, 200]], -np.inf)
    assert np.isfinite(np.delete(out, [3, 64, 200], axis=0)).all()


@every_target
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name",
    ["causal", "window", "dilated", "strided", "blocked", "longformer", "bigbird", "mixed", "sparse transformer"],
)
def test_a_non_finite_key_never_reaches_rows_that_do_not_keep_it(name, bad, target):
    mask = CATALOGUE[name]
    q, k, v = Problem(333, 333, mask, target.types[1], heads_q=2, head_dim=64).arrays()
    keys = [40, 64, 100, 300]
    clean = target.attend(q, k, v, mask)
    out = target.attend(q, poisoned(k, keys, bad), v, mask)
    free = ~dense(mask, 333, 333)[:, keys].any(axis=1)
    assert free.any()
    assert out[:, free].tobytes() == clean[:, free].tobytes()
    if np.isnan(bad):
        assert np.isnan(out[:, ~free].astype(np.float64)).all()


@every_type
@pytest.mark.parametrize("name", ["full", "causal", "longformer", "mixed", "dilated", "strided", "sparse transformer"])
def test_keys_and_values_beyond_kv_lengths_never_reach_anything(name, target, dtype):
    mask = CATALOGUE[name]
    q, k, v = Problem(333, 333, mask, dtype, batch=4, heads_q=2, head_dim=64).arrays()
    kv_lengths = np.array([0, 63, 100, 332])
    clean, clean_lse = target.attend(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    for b, length in enumerate(kv_lengths):
        k[b, :, length:] = v[b, :, length:] = np.nan
    out, lse = target.attend(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    assert out.tobytes() == clean.tobytes()
    assert_array_equal(lse, clean_lse)
    assert_array_equal(out[0].astype(np.float64), 0)
    assert_array_equal(lse[0], -np.inf)


@pytest.mark.parametrize("mask", [splat.full(), MIXED], ids=repr)
def test_a_non_finite_value_reaches_the_rows_that_keep_it(mask):
    q, k, v = Problem(333, 333, mask, "float16", heads_q=2, head_dim=64).arrays()
    out = cuda(q, k, poisoned(v, [50], np.nan), mask)
    assert np.isnan(out[:, dense(mask, 333, 333)[:, 50]]).all()


def test_large_scores_do_not_overflow():
    for mask in (splat.full(), splat.causal()):
        q, k, v = Problem(200, 200, mask, "bfloat16", head_dim=64).arrays()
        large = q * q.dtype.type(1e4)
        out, lse = cuda(large, k * k.dtype.type(1e4), v, mask, return_lse=True)
        assert np.isfinite(out.astype(np.float32)).all()
        assert np.isfinite(lse).all()
        assert np.abs(out).max() <= np.abs(v).max()
