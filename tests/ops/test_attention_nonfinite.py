"""How far NaN and inf reach: the rows that the interface names, and no others; and scores of -inf weigh nothing."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from splat_numba import reference
from splat_numba.testing import DTYPES, Problem, assert_close, check_attention, tolerance
from tests.ops.attention_cases import CATALOGUE, MIXED, assert_same, dense, run

LOWEST = float(np.finfo(np.float32).min)


def poisoned(shape_of, places, bad):
    x = shape_of.copy()
    x[..., places, :] = bad
    return x


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["full", "causal", "dilated", "longformer", "mixed"])
def test_a_non_finite_query_makes_its_own_row_nan_and_no_other(name, bad):
    mask = CATALOGUE[name]
    q, k, v = Problem(129, 129, mask, heads_q=2).arrays()
    rows = [0, 17, 63, 64, 128]
    clean, clean_lse = run(q, k, v, mask, return_lse=True)
    out, lse = run(poisoned(q, rows, bad), k, v, mask, return_lse=True)
    others = np.setdiff1d(np.arange(129), rows)
    assert np.isnan(out[:, rows]).all()
    assert np.isnan(lse[:, rows]).all()
    assert_same(out[:, others], clean[:, others])
    assert_same(lse[:, others], clean_lse[:, others])


def test_a_non_finite_query_of_an_empty_row_gives_zero_and_minus_infinity():
    mask = dense(MIXED, 70, 70)
    mask[[3, 64]] = False
    q, k, v = Problem(70, 70, mask).arrays()
    out, lse = run(poisoned(q, [3, 64], np.nan), k, v, mask, return_lse=True)
    assert_array_equal(out[[3, 64]], 0)
    assert_array_equal(lse[[3, 64]], -np.inf)
    assert np.isfinite(np.delete(out, [3, 64], axis=0)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["causal", "window", "dilated", "strided", "blocked", "longformer", "bigbird", "mixed"]
)
def test_a_non_finite_key_never_reaches_rows_that_do_not_keep_it(name, bad):
    mask = CATALOGUE[name]
    q, k, v = Problem(129, 129, mask, heads_q=2).arrays()
    keys = [40, 64, 100]
    clean = run(q, k, v, mask)
    out = run(q, poisoned(k, keys, bad), v, mask)
    free = ~dense(mask, 129, 129)[:, keys].any(axis=1)
    assert free.any()
    assert_same(out[:, free], clean[:, free])
    if np.isnan(bad):
        assert np.isnan(out[:, ~free]).all()


@pytest.mark.parametrize("name", ["causal", "longformer", "mixed"])
def test_keys_and_values_beyond_kv_lengths_never_reach_anything(name):
    mask = CATALOGUE[name]
    q, k, v = Problem(129, 129, mask, batch=3, heads_q=2).arrays()
    kv_lengths = np.array([0, 63, 100])
    clean, clean_lse = run(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    for b, length in enumerate(kv_lengths):
        k[b, :, length:] = v[b, :, length:] = np.nan
    out, lse = run(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    assert_same(out, clean)
    assert_same(lse, clean_lse)
    assert_array_equal(out[0], 0)
    assert_array_equal(lse[0], -np.inf)


@pytest.mark.parametrize("name", ["full", "causal", "dilated", "mixed"])
@pytest.mark.parametrize("seq", [1, 63, 65, 101])
def test_memory_outside_the_arrays_never_reaches_anything(name, seq):
    """The arrays are windows of larger ones full of NaN: reading past an end, or past a row, would show."""
    mask = CATALOGUE[name]
    arrays = Problem(seq, seq, mask, batch=2, heads_q=2).arrays()
    framed = []
    for x in arrays:
        frame = np.full((2, 4, seq + 150, x.shape[-1] + 20), np.nan, np.float32)
        inner = frame[:, 1:3, 75:-75, 10:-10]
        inner[...] = x
        framed.append(inner)
    assert_same(run(*framed, mask), run(*arrays, mask))


# Whole tiles of keys whose scores are -inf, first, last, or all: a row's maximum is -inf there.
EDGES_OF_TILES = {"first": slice(0, 100), "last": slice(100, 200), "all": slice(0, 200)}


def assert_agrees(q, k, v, mask, **options):
    kept = dense(mask, q.shape[-2], k.shape[-2])
    wanted = reference.attention(q, k, v, kept, return_lse=True, **options)
    allowed = tolerance(q, k, v, kept, **options)
    got = run(q, k, v, mask, return_lse=True, **options)
    for name, *compared in zip(("out", "lse"), got, wanted, allowed, strict=True):
        assert_close(*compared, name=name)
    return got


def positive_arrays(mask):
    q, k, v = Problem(200, 200, mask, heads_q=2).arrays()
    return np.abs(q), np.abs(k), v


@pytest.mark.parametrize("bad", [-np.inf, LOWEST])
def test_a_tile_of_scores_of_minus_infinity_weighs_nothing(bad):
    q = np.ones((1, 1, 200, 16), np.float32)
    assert_array_equal(run(q, poisoned(q, slice(0, 32), bad), q, CATALOGUE["full"]), 1)


@pytest.mark.parametrize("where", EDGES_OF_TILES)
@pytest.mark.parametrize(
    "name", ["full", "causal", "dilated", "bigbird", "global", "longformer", "sparse transformer", "mixed"]
)
def test_tiles_of_scores_of_minus_infinity_weigh_nothing_in_any_pass(name, where):
    mask = CATALOGUE[name]
    q, k, v = positive_arrays(mask)
    out, lse = assert_agrees(q, poisoned(k, EDGES_OF_TILES[where], -np.inf), v, mask)
    if where == "all":
        assert_array_equal(out, 0)
        assert_array_equal(lse, -np.inf)


@pytest.mark.parametrize("scale", [None, -0.5])
@pytest.mark.parametrize("bad", [-np.inf, np.inf, np.nan])
def test_keys_of_every_kind_at_once_act_on_the_rows_that_keep_them(bad, scale):
    """NaN and +-inf in keys and queries, beside tiles of -inf: the oracle says which rows are NaN and which empty."""
    q, k, v = positive_arrays(MIXED)
    k[:, 20:120] = -np.inf
    k[0, [0, 50, 130]] = bad
    q[:, 70] = -np.inf
    q[:, 71] = np.nan
    assert_agrees(q, k, v, MIXED, scale=scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_of_minus_infinity_in_every_dtype_and_with_key_lengths(dtype):
    for share in (0.5, 0.97, 1.0):
        problem = Problem(129, 129, MIXED, dtype=dtype, batch=2, heads_q=2, kv_lengths=(129, 70), minus_inf=share)
        check_attention(problem, backend="cpu")
