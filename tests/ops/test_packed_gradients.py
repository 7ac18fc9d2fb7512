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
from splat_numba.errors import ArgumentError, ArgumentTypeError, SplatError
from splat_numba.executors import cpu_packed
from splat_numba.executors.cpu_packed import CpuPackedExecutor
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import causal, longformer, window
from splat_numba.gen.packed.problem import RunTable
from splat_numba.gen.targets.cpu import packed_schedule
from splat_numba.testing import DTYPES, assert_close, gradient_tolerance, lengths, masks
from splat_numba.testing.error_bound import Roundoff
from tests.bad_calls import HOSTILE
from tests.ops.packed_cases import (
    CATALOGUE,
    DIM,
    WIDE,
    Case,
    cases,
    pack,
    pairs,
    rounded,
    softmax_bound,
    stored,
    unpack,
    views,
)

CHOSEN = ACSR.from_pattern(WIDE, 41, 37)


def gradient_of(result, seed=7):
    """A drawn gradient of a result."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(result.shape).astype(result.dtype)


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


def listed(found):
    """The gradients that a vjp gave, one or two, as a tuple."""
    return found if isinstance(found, tuple) else (found,)


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


# Shapes, memory and forms.


def all_gradients(case, arrays=None, changes=None):
    """Of all operators: (dq, dk), dvalues, (dvalues, dv) in one list."""
    q, k, v, values = arrays or case.arrays()
    calls = sddmm_vjp(q, k, case.acsr), softmax_vjp(values, case.acsr), spmm_vjp(values, v, case.acsr)
    changes = changes or [gradient_of(np.asarray(result)) for result, _ in calls]
    found = [vjp(change) for (_, vjp), change in zip(calls, changes, strict=True)]
    return [*found[0], found[1], *found[2]]


def frozen_calls(arrays, acsr):
    """Of every operator: its vjp with ``frozen`` given, and the names of its inputs."""
    q, k, v, values = arrays
    return [
        (lambda frozen: sddmm_vjp(q, k, acsr, frozen=frozen), ("q", "k")),
        (lambda frozen: softmax_vjp(values, acsr, frozen=frozen), ("values",)),
        (lambda frozen: spmm_vjp(values, v, acsr, frozen=frozen), ("values", "v")),
    ]


def test_frozen_inputs_have_no_gradient_and_the_others_the_same_bits():
    for make, names in frozen_calls(Case(CHOSEN).arrays(), CHOSEN):
        result, vjp = make(())
        change = gradient_of(result)
        wanted = dict(zip(names, listed(vjp(change)), strict=True))
        for frozen in (*((name,) for name in names), names):
            again, vjp = make(frozen)
            assert_array_equal(again, result)
            for name, got in zip(names, listed(vjp(change)), strict=True):
                if name in frozen:
                    assert got is None
                else:
                    assert_array_equal(got, wanted[name])


def test_frozen_inputs_are_not_worked_for(monkeypatch):
    """Operators that run, and the transposed mask, which is made for dk and dv alone."""
    acsr, ran = ACSR.from_pattern(WIDE, 41, 37), []
    run = CpuPackedExecutor.run

    def recorded(self, problem, *rest):
        ran.append(problem.operator)
        run(self, problem, *rest)

    monkeypatch.setattr(CpuPackedExecutor, "run", recorded)
    work = ({("q",): ["spmm_transposed"], ("k",): ["spmm"]}, {}, {("values",): ["spmm_transposed"], ("v",): ["sddmm"]})
    for (make, names), wanted in zip(frozen_calls(Case(acsr).arrays(), acsr), work, strict=True):
        for frozen in (*((name,) for name in names[::-1]), names):
            result, vjp = make(frozen)
            ran.clear()
            vjp(gradient_of(result))
            assert ran == wanted.get(frozen, [])
            if frozen == ("k",):
                assert (id(acsr), True) not in cpu_packed._states


def test_leading_axes_may_be_missing_from_all():
    case = Case(CHOSEN, batch=1, heads=1, heads_kv=1)
    arrays, wanted = case.arrays(), all_gradients(case)
    for drop in (1, 2):
        at = (0,) * drop
        changes = [gradient_of(x)[at] for x in (arrays[3], arrays[3], arrays[0])]
        got = all_gradients(case, [x[at] for x in arrays], changes)
        for one, other in zip(got, wanted, strict=True):
            assert_array_equal(one, other[at])


@pytest.mark.parametrize(("seq_q", "seq_kv"), [(0, 0), (0, 5), (5, 0), (1, 1)])
@pytest.mark.parametrize(("batch", "heads"), [(0, 4), (2, 4), (2, 0)])
def test_empty_axes_give_gradients_of_their_shape(seq_q, seq_kv, batch, heads):
    case = Case(ACSR.from_pattern(window(2), seq_q, seq_kv), batch=batch, heads=heads)
    q, k, v, values = case.arrays()
    got = all_gradients(case)
    assert [x.shape for x in got] == [x.shape for x in (q, k, values, values, v)]
    if not case.acsr.nnz or not heads:
        for x in got:
            assert_array_equal(x, 0)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_gradients_of_any_strides_give_the_same_result(dtype):
    case = Case(CHOSEN, dtype)
    q, k, v, values = case.arrays()
    calls = sddmm_vjp(q, k, CHOSEN), softmax_vjp(values, CHOSEN), spmm_vjp(values, v, CHOSEN)
    for result, vjp in calls:
        change = gradient_of(result)
        wanted = listed(vjp(change))
        for name, other in views(change):
            other.flags.writeable = False
            for one, x in zip(listed(vjp(other)), wanted, strict=True):
                # Keys are added in another order where numbers are read one by one.
                allowed = 1e-5 + 2 * Roundoff.of(q.dtype).result * np.abs(x.astype(np.float64))
                assert_close(one, x, allowed, name=name)


def test_a_gradient_broadcast_by_stride_zero():
    out, vjp = spmm_vjp(*Case(CHOSEN).arrays()[:1:-1], CHOSEN)
    for got, wanted in zip(vjp(np.broadcast_to(np.float32(1), out.shape)), vjp(np.ones_like(out)), strict=True):
        assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_outside_the_arrays_never_reaches_anything(dtype):
    """The arrays are windows of larger ones full of NaN: reading past an end, or past a row, would show."""

    def framed(x):
        frame = np.full([n + 24 for n in x.shape], np.nan, x.dtype)
        inner = frame[(slice(12, -12),) * x.ndim]
        inner[...] = x
        return inner

    case = Case(CHOSEN, dtype)
    q, _, _, values = arrays = case.arrays()
    changes = [gradient_of(x) for x in (values, values, q)]
    wanted = all_gradients(case, arrays, changes)
    for got, one in zip(all_gradients(case, [*map(framed, arrays)], [*map(framed, changes)]), wanted, strict=True):
        assert_array_equal(got, one)


def test_inputs_are_left_alone_and_calls_repeat_their_bits():
    case = Case(CHOSEN)
    arrays = case.arrays()
    before = [x.copy() for x in arrays]
    q, k, v, values = arrays
    for result, vjp in (sddmm_vjp(q, k, CHOSEN), softmax_vjp(values, CHOSEN), spmm_vjp(values, v, CHOSEN)):
        change = gradient_of(result)
        for one, other in zip(listed(vjp(change)), listed(vjp(change)), strict=True):
            assert_array_equal(one, other)
            assert not any(np.shares_memory(one, x) for x in (*arrays, change, other, result))
        assert_array_equal(change, gradient_of(result))
    for x, old in zip(arrays, before, strict=True):
        assert_array_equal(x, old)


def test_a_pattern_and_an_array_are_masks_too():
    q, k, _, _ = Case(CHOSEN).arrays()
    _, vjp = sddmm_vjp(q, k, CHOSEN)
    values, by_pattern = sddmm_vjp(q, k, WIDE)
    for got, wanted in zip(by_pattern(gradient_of(values)), vjp(gradient_of(values)), strict=True):
        assert_array_equal(got, wanted)
    dense, by_array = sddmm_vjp(q, k, CHOSEN.to_dense())
    again = ACSR.from_dense(CHOSEN.to_dense())
    change = unpack(gradient_of(values), CHOSEN).astype(np.float32)
    for got, wanted in zip(by_array(pack(change, again)), vjp(gradient_of(values)), strict=True):
        assert dense.shape == values.shape
        assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_torch_arrays_come_back_as_torch_arrays():
    torch = pytest.importorskip("torch")
    shapes = (41, DIM), (37, DIM), (37, DIM), (CHOSEN.nnz,)
    q, k, v, values = (torch.randn(2, 3, *shape).to(torch.bfloat16) for shape in shapes)
    (scores, one), (weights, two), (out, three) = (
        sddmm_vjp(q, k, CHOSEN), softmax_vjp(values, CHOSEN), spmm_vjp(values, v, CHOSEN),
    )  # fmt: skip
    found = *one(scores), two(weights), *three(out)
    for got, like in zip(found, (q, k, values, values, v), strict=True):
        assert isinstance(got, torch.Tensor)
        assert (got.dtype, got.shape) == (torch.bfloat16, like.shape)
    wanted = reference.spmm_backward(
        out.double().numpy(), unpack(values.double().numpy(), CHOSEN), v.double().numpy(), CHOSEN
    )
    assert_allclose(found[4].double().numpy(), wanted[1], rtol=2**-7, atol=1e-3)


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


# What does not fit, in the words of the message.

Q, K, V = np.zeros((2, 4, 3, 8), np.float32), np.zeros((2, 2, 5, 8), np.float32), np.zeros((2, 2, 5, 7), np.float32)
SMALL = ACSR.from_pattern(window(1), 3, 5)  # 8 pairs
VALUES = np.zeros((2, 4, 8), np.float32)

REFUSED = {
    "dvalues of another shape": (
        lambda: sddmm_vjp(Q, K, SMALL)[1](VALUES[..., :7]),
        ArgumentError,
        "dvalues wanted of shape (2, 4, 8) as values is, got (2, 4, 7). Give one of this shape.",
    ),
    "dvalues of another dtype": (
        lambda: sddmm_vjp(Q, K, SMALL)[1](VALUES.astype(np.float64)),
        ArgumentTypeError,
        "dvalues wanted as float32 as values is, got float64. Convert one of them.",
    ),
    "dweights of another shape": (
        lambda: softmax_vjp(VALUES, SMALL)[1](VALUES[0]),
        ArgumentError,
        "dweights wanted of shape (2, 4, 8) as weights is, got (4, 8). Give one of this shape.",
    ),
    "dout of another shape": (
        lambda: spmm_vjp(VALUES, V, SMALL)[1](Q),
        ArgumentError,
        "dout wanted of shape (2, 4, 3, 7) as out is, got (2, 4, 3, 8). Give one of this shape.",
    ),
    "dout of text": (
        lambda: spmm_vjp(VALUES, V, SMALL)[1]("dout"),
        ArgumentTypeError,
        "dout wanted as an array (NumPy, or anything with DLPack), got str. "
        "Convert it, for example with np.asarray(dout, dtype=np.float32).",
    ),
    "softmax_vjp with a Pattern": (
        lambda: softmax_vjp(VALUES, causal()),
        ArgumentTypeError,
        "acsr wanted as an ACSR, got a Pattern, which has no size. "
        "Build it with splat.ACSR.from_pattern(pattern, seq_q, seq_kv).",
    ),
    "a frozen name of another operator": (
        lambda: spmm_vjp(VALUES, V, SMALL, frozen=("q",)),
        ArgumentError,
        "frozen wanted with names of values, v, got 'q'. Leave it out, or correct it.",
    ),
    "frozen as a word": (
        lambda: sddmm_vjp(Q, K, SMALL, frozen="k"),
        ArgumentTypeError,
        "frozen wanted as a collection of names, got 'k'. Give for example frozen=('q', 'k').",
    ),
}


def test_a_gradient_of_any_wrong_kind_is_refused_by_name():
    calls = {
        "dvalues": sddmm_vjp(Q, K, SMALL)[1],
        "dweights": softmax_vjp(VALUES, SMALL)[1],
        "dout": spmm_vjp(VALUES, V, SMALL)[1],
    }
    for name, vjp in calls.items():
        for value in HOSTILE:
            with pytest.raises(SplatError, match=f"^{name} "):
                vjp(value)


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_this_message(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
