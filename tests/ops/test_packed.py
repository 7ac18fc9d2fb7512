"""`sddmm`, `softmax` and `spmm` on the CPU against the oracle: fuzzed, and every promise of the interface by name.

Tests share head_dim and steps where they can, because a new one is a new kernel to compile.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from splat_numba import reference
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import longformer, window
from splat_numba.gen.packed.problem import RunTable
from splat_numba.gen.targets.cpu import packed_schedule
from splat_numba.packed import sddmm, softmax, spmm
from splat_numba.testing import DTYPES, assert_close, tolerance
from splat_numba.testing.error_bound import Roundoff
from tests.ops.packed_cases import (
    CATALOGUE,
    DIM,
    MIXED,
    WIDE,
    Case,
    cases,
    pack,
    pairs,
    rounded,
    softmax_bound,
    unpack,
    views,
)


def check_sddmm(case, scale=1.0, **options):
    """d products and sums in any order, and the scale: u (d + 6) sum |scale q k|, as in the project's rule."""
    q, k, _, _ = case.arrays()
    mask, loss = case.acsr.to_dense(), Roundoff.of(q.dtype)
    wanted = reference.sddmm(q, k, mask, scale=scale)
    terms = reference.sddmm(np.abs(q), np.abs(k), mask, scale=abs(scale))
    got = sddmm(q, k, case.acsr, scale=scale, **options)
    assert got.dtype == q.dtype
    allowed = rounded(wanted, loss.unit * (case.head_dim + 6) * terms, loss)
    assert_close(got, pack(wanted, case.acsr), pack(allowed, case.acsr), name="sddmm")


def check_softmax(case, **options):
    values = case.arrays()[3]
    wanted, allowed = softmax_bound(values, case.acsr)
    got = softmax(values, case.acsr, **options)
    assert got.dtype == values.dtype
    assert_close(got, pack(wanted, case.acsr), pack(allowed, case.acsr), name="softmax")


def check_spmm(case, **options):
    """n products and sums in any order: u (n + 6) sum |w v|."""
    _, _, v, values = case.arrays()
    mask, loss = case.acsr.to_dense(), Roundoff.of(v.dtype)
    weights = unpack(values, case.acsr)
    wanted = reference.spmm(weights, v, mask)
    terms = reference.spmm(np.abs(weights), np.abs(v), mask)
    count = mask.sum(axis=-1)[:, None]
    got = spmm(values, v, case.acsr, **options)
    assert got.dtype == v.dtype
    assert_close(got, wanted, rounded(wanted, loss.unit * (count + 6) * terms, loss), name="spmm")


def check_transposed(case, **options):
    """The same over the columns: as v an array over the rows, with a head for each of the values'."""
    q, _, _, values = case.arrays()
    mask, loss = case.acsr.to_dense(), Roundoff.of(q.dtype)
    weights = unpack(values, case.acsr).swapaxes(-1, -2)
    wanted = reference.spmm(weights, q, mask.T)
    terms = reference.spmm(np.abs(weights), np.abs(q), mask.T)
    got = spmm(values, q, case.acsr, transpose=True, **options)
    assert got.dtype == q.dtype
    count = mask.sum(axis=0)[:, None]
    assert_close(got, wanted, rounded(wanted, loss.unit * (count + 6) * terms, loss), name="spmm over columns")


def check(case):
    check_sddmm(case)
    check_softmax(case)
    check_spmm(case)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from([1.0, 0.25, -3.0, 0.0]))
def test_any_case_agrees_with_the_oracle(case, scale):
    check_sddmm(case, scale)
    check_softmax(case)
    check_spmm(case)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype, name):
    check(Case(ACSR.from_pattern(CATALOGUE[name], 90, 70), dtype))


@pytest.mark.parametrize(("head_dim", "value_dim"), [(1, 1), (3, 7), (33, 64), (256, 129)])
def test_any_head_dim_and_value_dim(head_dim, value_dim):
    acsr = ACSR.from_pattern(MIXED, 50, 70)
    check_sddmm(Case(acsr, head_dim=head_dim))
    check_spmm(Case(acsr, value_dim=value_dim))


def test_spmm_over_columns():
    check_transposed(Case(ACSR.from_pattern(MIXED, 90, 70)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_three_compose_to_attention(dtype):
    case = Case(ACSR.from_pattern(MIXED, 60, 60), dtype)
    q, k, v, _ = case.arrays()
    scores = sddmm(q, k, case.acsr, scale=DIM**-0.5)
    out = spmm(softmax(scores, case.acsr), v, case.acsr)
    mask = case.acsr.to_dense()
    allowed = tolerance(q, k, v, mask)[0]
    # Scores and weights are rounded to memory in between, which attention does not do: as much again covers it.
    assert_close(out, reference.attention(q, k, v, mask), 2 * allowed)


def test_work_that_is_cut_into_ranges_gives_the_same_as_one_range(monkeypatch):
    case = Case(ACSR.from_pattern(longformer(20, 5), 400, 400), batch=1)
    q, k, v, values = case.arrays()
    wanted = sddmm(q, k, case.acsr), softmax(values, case.acsr), spmm(values, v, case.acsr)
    check(case)
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("SPLAT_NUM_THREADS", threads)
        monkeypatch.setattr(packed_schedule, "SMALLEST_RANGE", 100)
        got = sddmm(q, k, case.acsr), softmax(values, case.acsr), spmm(values, v, case.acsr)
        for one, other in zip(got, wanted, strict=True):
            assert_array_equal(one, other)


# Shapes and forms.


def test_leading_axes_may_be_missing_from_all():
    acsr = ACSR.from_pattern(MIXED, 30, 40)
    q, k, v, values = Case(acsr, batch=1, heads=1, heads_kv=1).arrays()
    for drop in (1, 2):
        at = (0,) * drop
        assert_array_equal(sddmm(q[at], k[at], acsr), sddmm(q, k, acsr)[at])
        assert_array_equal(softmax(values[at], acsr), softmax(values, acsr)[at])
        assert_array_equal(spmm(values[at], v[at], acsr), spmm(values, v, acsr)[at])


@pytest.mark.parametrize(("seq_q", "seq_kv"), [(0, 0), (0, 5), (5, 0), (1, 1)])
@pytest.mark.parametrize("batch", [0, 2])
def test_empty_axes_give_results_of_their_shape(seq_q, seq_kv, batch):
    case = Case(ACSR.from_pattern(window(2), seq_q, seq_kv), batch=batch)
    q, k, v, values = case.arrays()
    assert sddmm(q, k, case.acsr).shape == (batch, 4, case.acsr.nnz)
    assert softmax(values, case.acsr).shape == (batch, 4, case.acsr.nnz)
    out = spmm(values, v, case.acsr)
    assert out.shape == (batch, 4, seq_q, DIM)
    if not seq_kv:
        assert_array_equal(out, 0)


def test_no_heads_at_all_give_empty_results():
    acsr = ACSR.from_pattern(window(2), 5, 5)
    q, v = np.zeros((2, 0, 5, DIM), np.float32), np.zeros((2, 0, 5, DIM), np.float32)
    assert sddmm(q, q, acsr).shape == (2, 0, acsr.nnz)
    assert spmm(np.zeros((2, 0, acsr.nnz), np.float32), v, acsr).shape == (2, 0, 5, DIM)


@pytest.mark.parametrize("name", CATALOGUE)
def test_pattern_acsr_and_array_are_the_same_mask(name):
    acsr = ACSR.from_pattern(CATALOGUE[name], 40, 50)
    q, k, _, _ = Case(acsr).arrays()
    wanted = sddmm(q, k, acsr)
    assert_array_equal(sddmm(q, k, CATALOGUE[name]), wanted)
    dense = acsr.to_dense()
    got = ACSR.from_dense(dense).values_to_csr(sddmm(q, k, dense))
    assert_close(got, acsr.values_to_csr(wanted), np.full(got.shape, 1e-5))


def test_values_are_in_packed_order_where_runs_interleave():
    acsr = ACSR.from_pattern(MIXED, 40, 50)
    assert not acsr.is_regular
    q, k, _, _ = Case(acsr).arrays()
    values = sddmm(q, k, acsr)
    for row, col in [(0, 0), (20, 1), (20, 6), (20, 22), (39, 46)]:
        slot = acsr.slot(row, col)
        assert slot >= 0
        np.testing.assert_allclose(values[..., slot], (q[:, :, row] * k[:, [0, 0, 1, 1], col]).sum(-1), rtol=1e-4)


# Memory: strides, what is read and what is written.


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_arrays_of_any_strides_give_the_same_result(dtype):
    case = Case(ACSR.from_pattern(WIDE, 30, 40), dtype)
    q, k, v, values = case.arrays()
    wanted = sddmm(q, k, case.acsr), softmax(values, case.acsr), spmm(values, v, case.acsr)
    for (name, q1), (_, k1), (_, v1), (_, values1) in zip(*map(views, (q, k, v, values)), strict=True):
        for x in (q1, k1, v1, values1):
            x.flags.writeable = False
        assert_array_equal(sddmm(q1, k1, case.acsr), wanted[0], err_msg=name)
        assert_array_equal(softmax(values1, case.acsr), wanted[1], err_msg=name)
        # Keys are added in another order where numbers are read one by one.
        allowed = 1e-5 + 2 * Roundoff.of(q.dtype).result * np.abs(wanted[2].astype(np.float64))
        assert_close(spmm(values1, v1, case.acsr), wanted[2], allowed, name=name)


def test_a_head_broadcast_by_stride_zero():
    case = Case(ACSR.from_pattern(MIXED, 30, 40))
    q, k, v, values = case.arrays()
    k1, v1 = (np.broadcast_to(x[:, :1], x.shape) for x in (k, v))
    assert_array_equal(sddmm(q, k1, case.acsr), sddmm(q, k[:, :1], case.acsr))
    assert_array_equal(spmm(values, v1, case.acsr), spmm(values, v[:, :1], case.acsr))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_memory_outside_the_arrays_never_reaches_anything(name, dtype):
    """The arrays are windows of larger ones full of NaN: reading past an end, or past a row, would show."""
    case = Case(ACSR.from_pattern(CATALOGUE[name], 41, 37), dtype)
    framed = []
    for x in case.arrays():
        frame = np.full([n + 24 for n in x.shape], np.nan, x.dtype)
        inner = frame[(slice(12, -12),) * x.ndim]
        inner[...] = x
        framed.append(inner)
    q, k, v, values = case.arrays()
    assert_array_equal(sddmm(framed[0], framed[1], case.acsr), sddmm(q, k, case.acsr))
    assert_array_equal(softmax(framed[3], case.acsr), softmax(values, case.acsr))
    assert_array_equal(spmm(framed[3], framed[2], case.acsr), spmm(values, v, case.acsr))


def test_inputs_are_left_alone_and_results_are_fresh():
    case = Case(ACSR.from_pattern(MIXED, 30, 40))
    arrays = case.arrays()
    before = [x.copy() for x in arrays]
    q, k, v, values = arrays
    for result in (sddmm(q, k, case.acsr), softmax(values, case.acsr), spmm(values, v, case.acsr)):
        assert not any(np.shares_memory(result, x) for x in arrays)
        result[...] = np.nan
    for x, old in zip(arrays, before, strict=True):
        assert_array_equal(x, old)


def test_torch_arrays_come_back_as_torch_arrays():
    torch = pytest.importorskip("torch")
    acsr = ACSR.from_pattern(MIXED, 30, 40)
    for dtype in ("float32", "bfloat16"):
        shapes = (30, DIM), (40, DIM), (40, DIM), (acsr.nnz,)
        q, k, v, values = (torch.randn(2, 3, *shape).to(getattr(torch, dtype)) for shape in shapes)
        for result, shape in (
            (sddmm(q, k, MIXED), values.shape),
            (softmax(values, acsr), values.shape),
            (spmm(values, v, acsr), q.shape),
        ):
            assert isinstance(result, torch.Tensor)
            assert (result.dtype, result.shape) == (q.dtype, shape)
    wanted = reference.sddmm(q.double().numpy(), k.double().numpy(), acsr)
    np.testing.assert_allclose(sddmm(q, k, acsr).double().numpy(), pack(wanted, acsr), rtol=2**-7, atol=1e-4)


# Non-finite numbers.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_non_finite_query_or_key_reaches_its_own_pairs_only(name, bad):
    case = Case(ACSR.from_pattern(CATALOGUE[name], 60, 60))
    q, k, _, _ = case.arrays()
    rows, cols = pairs(case.acsr)
    clean = sddmm(q, k, case.acsr)
    for array, index in ((q, rows), (k, cols)):
        poisoned = array.copy()
        poisoned[..., [0, 17, 59], 4] = bad
        got = sddmm(*((poisoned, k) if array is q else (q, poisoned)), case.acsr)
        hit = np.isin(index, [0, 17, 59])
        assert not np.isfinite(got[..., hit]).any()
        assert_array_equal(got[..., ~hit], clean[..., ~hit])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_non_finite_value_reaches_the_rows_that_keep_it_only(name, bad):
    case = Case(ACSR.from_pattern(CATALOGUE[name], 60, 60))
    _, _, v, values = case.arrays()
    values[..., 0] = 0.0  # 0 x NaN and 0 x inf are NaN
    clean = spmm(values, v, case.acsr)
    v[..., [0, 17], :] = bad
    got = spmm(values, v, case.acsr)
    hit = case.acsr.to_dense()[:, [0, 17]].any(axis=1)
    assert not np.isfinite(got[..., hit, :]).any()
    assert np.isnan(got[..., 0, :]).all()
    assert_array_equal(got[..., ~hit, :], clean[..., ~hit, :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_non_finite_values_follows_ieee_in_their_own_rows(dtype):
    acsr = ACSR.from_pattern(window(20, 9), 60, 60)
    values = Case(acsr, dtype, batch=None, heads=None).arrays()[3]
    rows, _ = pairs(acsr)
    first = RunTable.of(acsr).slot_ptr
    values[first[3]] = np.nan
    values[first[20] + 4] = np.inf
    values[first[30] : first[31]] = -np.inf
    values[first[40] : first[41] - 1] = -np.inf
    wanted = pack(reference.softmax(unpack(values, acsr), acsr), acsr)
    got = np.asarray(softmax(values, acsr), np.float64)
    assert np.isnan(got[np.isin(rows, [3, 20])]).all()
    assert_array_equal(got[rows == 30], 0)  # as in attention: scores of -inf weigh nothing
    np.testing.assert_allclose(got, wanted, rtol=2 * Roundoff.of(values.dtype).result + 1e-6, atol=1e-7)
    assert_array_equal(got[rows == 40], [0.0] * (first[41] - first[40] - 1) + [1.0])


def test_softmax_of_large_values_does_not_overflow():
    acsr = ACSR.from_pattern(window(20, 9), 60, 60)
    values = Case(acsr).arrays()[3] * np.float32(1e30)
    got = softmax(values, acsr)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(unpack(got, acsr).sum(-1), 1, rtol=1e-6)


def test_rows_that_keep_nothing_have_no_values_and_give_zero():
    dense = ACSR.from_pattern(MIXED, 60, 60).to_dense()
    dense[[0, 31, 59]] = False
    case = Case(ACSR.from_dense(dense))
    check(case)
    _, _, v, values = case.arrays()
    assert_array_equal(spmm(values, np.full_like(v, np.nan), case.acsr)[..., [0, 31, 59], :], 0)
