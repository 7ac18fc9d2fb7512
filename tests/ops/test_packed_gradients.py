"""`sddmm_vjp`, `softmax_vjp` and `spmm_vjp` on the CPU against the oracle, finite differences and identities.

Tests share head_dim and steps where they can, because a new one is a new kernel to compile.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from splat_numba import reference, sddmm, sddmm_vjp, softmax, softmax_vjp, spmm, spmm_vjp
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import longformer, window
from splat_numba.gen.packed.problem import RunTable
from splat_numba.gen.targets.cpu import packed_schedule
from splat_numba.testing import DTYPES, assert_close, gradient_tolerance, lengths, masks
from splat_numba.testing.error_bound import Roundoff
from tests.ops.packed_cases import (
    CATALOGUE,
    CHOSEN,
    DIM,
    Case,
    all_gradients,
    cases,
    gradient_of,
    listed,
    pack,
    pairs,
    rounded,
    softmax_bound,
    stored,
    unpack,
)


def per_head(x, heads):
    """x (batch, heads_kv, ...) repeated for every query head, and the sum over the group that takes such back."""
    return np.repeat(x, heads // x.shape[-3], axis=-3) if x.ndim > 2 else x


def summed(x, like):
    """The other way round: (batch, heads, ...) added up to the heads of ``like``."""
    if x.ndim == 2:
        return x
    heads = like.shape[-3]
    return x.reshape(*x.shape[:-3], heads, x.shape[-3] // heads, *x.shape[-2:]).sum(axis=-3)


def check_product(got, wanted, weights, dense, count, loss, name):
    """``count`` products and sums in any order, and the scale: u (count + 6) of the sum of sizes."""
    terms = np.abs(weights) @ np.abs(np.asarray(dense, np.float64))
    terms = summed(terms, wanted)
    assert_close(got, wanted, rounded(wanted, loss.unit * (count + 6) * terms, loss), name=name)


def check_sddmm(case, scale=1.0, **options):
    q, k, _, _ = case.arrays()
    values, vjp = sddmm_vjp(q, k, case.acsr, scale=scale, **options)
    assert_array_equal(values, sddmm(q, k, case.acsr, scale=scale, **options))
    dvalues = gradient_of(values)
    dq, dk = vjp(dvalues)
    assert (dq.dtype, dk.dtype) == (q.dtype, k.dtype)
    mask, loss, dense = case.acsr.to_dense(), Roundoff.of(q.dtype), unpack(dvalues, case.acsr)
    wanted = reference.sddmm_backward(dense, q, k, mask, scale=scale)
    heads = q.shape[-3] if q.ndim > 2 else 1
    group = heads // max(k.shape[-3] if k.ndim > 2 else 1, 1)
    check_product(dq, wanted[0], scale * dense, per_head(k, heads), mask.sum(axis=1)[:, None], loss, "dq")
    keepers = mask.sum(axis=0)[:, None] * group + group
    check_product(dk, wanted[1], scale * dense.swapaxes(-1, -2), q, keepers, loss, "dk")


def check_softmax(case, **options):
    """With W the allowed errors of the weights w as they are stored: the row's sum D of w dw is off by at most
    sum W |dw| + u (n + 8) sum (w + W) |dw|, and w (dw - D) by that of w, of D and of three operations.
    """
    values = case.arrays()[3]
    weights, vjp = softmax_vjp(values, case.acsr, **options)
    assert_array_equal(weights, softmax(values, case.acsr, **options))
    dweights = gradient_of(values)
    got = vjp(dweights)
    assert got.dtype == values.dtype
    mask, loss = case.acsr.to_dense(), Roundoff.of(values.dtype)
    changes = unpack(dweights, case.acsr)
    wanted = reference.softmax_backward(changes, unpack(values, case.acsr), mask)
    exact, off = softmax_bound(values, case.acsr)
    count = mask.sum(axis=-1)[:, None]
    mean = (exact * changes).sum(axis=-1, keepdims=True)
    sizes = np.abs(changes)
    mean_off = (off * sizes + loss.unit * (count + 8) * (exact + off) * sizes).sum(axis=-1, keepdims=True)
    rounding = 3 * loss.unit * (sizes + np.abs(mean) + mean_off)
    allowed = off * np.abs(changes - mean) + (exact + off) * (mean_off + rounding)
    assert_close(
        got, pack(wanted, case.acsr), pack(rounded(wanted, allowed, loss), case.acsr), name="dvalues of softmax"
    )


def check_spmm(case, **options):
    _, _, v, values = case.arrays()
    out, vjp = spmm_vjp(values, v, case.acsr, **options)
    assert_array_equal(out, spmm(values, v, case.acsr, **options))
    dout = gradient_of(out)
    dvalues, dv = vjp(dout)
    assert (dvalues.dtype, dv.dtype) == (values.dtype, v.dtype)
    mask, loss, dense = case.acsr.to_dense(), Roundoff.of(v.dtype), unpack(values, case.acsr)
    wanted = reference.spmm_backward(dout, dense, v, mask)
    terms = reference.sddmm(np.abs(dout), np.abs(v), mask)
    allowed = rounded(wanted[0], loss.unit * (case.value_dim + 6) * terms, loss)
    assert_close(dvalues, pack(wanted[0], case.acsr), pack(allowed, case.acsr), name="dvalues of spmm")
    group = (out.shape[-3] if out.ndim > 2 else 1) // max(v.shape[-3] if v.ndim > 2 else 1, 1)
    keepers = mask.sum(axis=0)[:, None] * group + group
    check_product(dv, wanted[1], dense.swapaxes(-1, -2), dout, keepers, loss, "dv")


def check(case):
    check_sddmm(case)
    check_softmax(case)
    check_spmm(case)


def of_shared_steps(acsr):
    """The mask, with rows and columns added until the transpose too has steps that other cases have."""
    if RunTable.transposed(acsr).one_step in {1, None}:
        return acsr
    dense = acsr.to_dense()
    dense[:3, 0] = True
    dense[0, :3] = True
    return ACSR.from_dense(dense)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.sampled_from([1.0, 0.25, -3.0, 0.0]))
def test_any_case_agrees_with_the_oracle(case, scale):
    case = replace(case, acsr=of_shared_steps(case.acsr))
    check_sddmm(case, scale)
    check_softmax(case)
    check_spmm(case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype):
    check(Case(CHOSEN, dtype))


@pytest.mark.parametrize("name", CATALOGUE)
def test_one_run_a_row_or_several_of_one_step_or_several(name):
    check(Case(ACSR.from_pattern(CATALOGUE[name], 90, 70)))


def test_more_panels_than_registers_and_a_rest():
    case = Case(CHOSEN, head_dim=129, value_dim=129)
    check_sddmm(case)
    check_spmm(case)


# Derivatives by other ways.


def test_gradients_are_finite_differences(rng):
    """In float64, along a drawn direction. Products are linear in each input, so steps matter to softmax alone."""
    q, k, v, values = Case(CHOSEN, "float64").arrays()
    calls = {
        "sddmm": (lambda q, k: sddmm(q, k, CHOSEN, scale=0.3), sddmm_vjp(q, k, CHOSEN, scale=0.3), (q, k)),
        "softmax": (lambda values: softmax(values, CHOSEN), softmax_vjp(values, CHOSEN), (values,)),
        "spmm": (lambda values, v: spmm(values, v, CHOSEN), spmm_vjp(values, v, CHOSEN), (values, v)),
    }
    for name, (function, (result, vjp), inputs) in calls.items():
        change = gradient_of(result)
        for at, gradient in enumerate(listed(vjp(change))):
            direction, step, sides = rng.standard_normal(inputs[at].shape), 1e-5, []
            for sign in (1, -1):
                moved = list(inputs)
                moved[at] = inputs[at] + sign * step * direction
                sides.append((change * function(*moved)).sum())
            slope = (sides[0] - sides[1]) / (2 * step)
            assert_allclose((gradient * direction).sum(), slope, rtol=1e-7, atol=1e-7, err_msg=f"{name} {at}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_three_compose_to_the_gradients_of_attention(dtype):
    q, k, v, _ = Case(CHOSEN, dtype).arrays()
    scores, back_to_inputs = sddmm_vjp(q, k, CHOSEN, scale=DIM**-0.5)
    weights, back_to_scores = softmax_vjp(scores, CHOSEN)
    out, back_to_weights = spmm_vjp(weights, v, CHOSEN)
    dout = gradient_of(out)
    dweights, dv = back_to_weights(dout)
    dq, dk = back_to_inputs(back_to_scores(dweights))
    mask = CHOSEN.to_dense()
    allowed = gradient_tolerance(dout, q, k, v, mask)
    for got, wanted, limit in zip(
        (dq, dk, dv), reference.attention_backward(dout, q, k, v, mask), allowed, strict=True
    ):
        # Scores, weights and their gradients are rounded to memory in between: as much again covers it.
        assert_close(got, wanted, 2 * limit)


@given(st.integers(0, 99), st.sampled_from([2.0, 0.5, -1.0]))
@settings(max_examples=10)
def test_gradients_are_linear(seed, factor):
    """In the gradient of the result, for factors that round nothing: bit by bit. Of 0 they are 0."""
    q, k, v, values = Case(CHOSEN, seed=seed).arrays()
    calls = sddmm_vjp(q, k, CHOSEN), softmax_vjp(values, CHOSEN), spmm_vjp(values, v, CHOSEN)
    for result, vjp in calls:
        change = gradient_of(result, seed)
        one, scaled, nothing = (listed(vjp(x)) for x in (change, np.float32(factor) * change, 0 * change))
        for a, b, c in zip(one, scaled, nothing, strict=True):
            assert_array_equal(b, np.float32(factor) * a)
            assert_array_equal(c, 0)


def test_gradients_of_softmax_add_up_to_nothing_in_every_row():
    """The weights of a row add up to 1, whatever its values are."""
    values = Case(CHOSEN, "float64").arrays()[3]
    weights, vjp = softmax_vjp(values, CHOSEN)
    assert_allclose(unpack(vjp(gradient_of(weights)), CHOSEN).sum(axis=-1), 0, atol=1e-14)
    assert_allclose(vjp(np.ones_like(weights)), 0, atol=1e-14)


# The transposed mask.


@given(st.data())
@settings(max_examples=60)
def test_every_pair_of_the_transposed_mask_has_its_place(data):
    acsr = stored(data.draw(masks(seq_q := data.draw(lengths()), seq_kv := data.draw(lengths()))), seq_q, seq_kv)
    table = RunTable.transposed(acsr)
    keys = np.repeat(np.arange(seq_kv), np.diff(table.slot_ptr))
    assert_array_equal(table.place, acsr.slot(acsr.transpose().columns(), keys))


def test_work_that_is_cut_into_ranges_gives_the_same_as_one_range(monkeypatch):
    case = Case(ACSR.from_pattern(longformer(20, 5), 200, 200), batch=1)
    q, k, v, values = case.arrays()
    monkeypatch.setenv("SPLAT_NUM_THREADS", "1")

    def found():
        (scores, one), (weights, two), (out, three) = (
            sddmm_vjp(q, k, case.acsr), softmax_vjp(values, case.acsr), spmm_vjp(values, v, case.acsr),
        )  # fmt: skip
        return *one(gradient_of(scores)), two(gradient_of(weights)), *three(gradient_of(out))

    wanted = found()
    monkeypatch.setattr(packed_schedule, "SMALLEST_RANGE", 100)
    for threads in ("2", "5"):
        monkeypatch.setenv("SPLAT_NUM_THREADS", threads)
        for got, one in zip(found(), wanted, strict=True):
            assert_array_equal(got, one)


# Non-finite numbers, and rows and keys that keep nothing.


def test_rows_and_keys_that_keep_nothing_get_zero():
    dense = CHOSEN.to_dense()
    dense[[0, 31, 40]] = False
    dense[:, [0, 5, 36]] = False
    case = Case(of_shared_steps(ACSR.from_dense(dense)))
    check(case)
    q, k, v, values = case.arrays()
    q[..., [31, 40], :] = np.nan
    k[..., [5, 36], :] = np.inf
    v[..., [5, 36], :] = np.nan
    dout = gradient_of(q)
    dout[..., [31, 40], :] = np.nan
    dq, dk, _, dvalues, dv = all_gradients(case, (q, k, v, values), [values, values, dout])
    for x, empty in ((dq, [31, 40]), (dk, [5, 36]), (dv, [5, 36])):
        assert_array_equal(x[..., empty, :], 0)
        assert np.isfinite(x).all()
    assert np.isfinite(dvalues).all()


def test_a_non_finite_number_reaches_what_depends_on_it_only():
    case = Case(CHOSEN)
    q, k, v, values = case.arrays()
    mask, dout = CHOSEN.to_dense(), gradient_of(q)
    clean = all_gradients(case, changes=[values, values, dout])
    near = mask[[3, 20]].any(axis=0)  # the keys of the rows that are made NaN

    bad = q.copy()
    bad[..., [3, 20], :] = np.nan
    _, dk, *_ = all_gradients(case, (bad, k, v, values), [values, values, dout])
    assert np.isnan(dk[..., near, :]).all()
    assert_array_equal(dk[..., ~near, :], clean[1][..., ~near, :])

    bad = dout.copy()
    bad[..., [3, 20], :] = np.nan
    *_, dvalues, dv = all_gradients(case, changes=[values, values, bad])
    hit = np.isin(pairs(CHOSEN)[0], [3, 20])
    assert np.isnan(dvalues[..., hit]).all()
    assert_array_equal(dvalues[..., ~hit], clean[3][..., ~hit])
    assert np.isnan(dv[..., near, :]).all()
    assert_array_equal(dv[..., ~near, :], clean[4][..., ~near, :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_nothing_get_nothing(dtype):
    """Values of -inf weigh 0: they get 0 and add nothing, whatever their dweights hold; NaN elsewhere takes the row."""
    acsr = ACSR.from_pattern(window(20, 9), 60, 60)
    values = Case(acsr, dtype, batch=None, heads=None).arrays()[3]
    rows, _ = pairs(acsr)
    first = RunTable.of(acsr).slot_ptr
    dweights = gradient_of(values)
    values[first[20] : first[20] + 3] = -np.inf
    dweights[first[20] : first[20] + 3] = [np.nan, np.inf, -np.inf]
    values[first[30] : first[31]] = -np.inf
    dweights[first[30] : first[31]] = np.nan
    values[first[40]] = -np.inf
    dweights[first[40] + 5] = np.nan
    values[first[50]] = np.nan
    got = np.asarray(softmax_vjp(values, acsr)[1](dweights), np.float64)
    wanted = pack(reference.softmax_backward(unpack(dweights, acsr), unpack(values, acsr), acsr), acsr)
    loss = Roundoff.of(values.dtype).result
    assert_allclose(got, wanted, rtol=8 * loss + 1e-5, atol=4 * loss)
    assert_array_equal(got[first[20] : first[20] + 3], 0)
    assert np.isfinite(got[rows == 20]).all()
    assert_array_equal(got[rows == 30], 0)
    assert_array_equal(np.isnan(got[rows == 40]), [False] + [True] * (first[41] - first[40] - 1))
    assert np.isnan(got[rows == 50]).all()


def test_the_example_learns_from_edges():
    from examples.graph_attention import train

    (losses, accuracies, _), (_, alone, _) = (train(600, 25, edges=edges) for edges in (True, False))
    assert losses[0] > 2
    assert losses[-1] < 0.5
    assert accuracies[-1] > alone[-1] + 0.15
