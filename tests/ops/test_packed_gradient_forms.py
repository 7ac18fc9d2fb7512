"""Gradients of the packed operators: shapes, memory, and the forms that arguments have.

Tests share head_dim and steps where they can, because a new one is a new kernel to compile.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from splat_numba import reference, sddmm_vjp, softmax_vjp, spmm_vjp
from splat_numba.executors.cpu import packed as cpu_packed
from splat_numba.executors.cpu.packed import CpuPackedExecutor
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import window
from splat_numba.testing import assert_close
from splat_numba.testing.error_bound import Roundoff
from tests.ops.packed_cases import (
    CHOSEN,
    DIM,
    WIDE,
    Case,
    all_gradients,
    gradient_of,
    listed,
    pack,
    unpack,
    views,
)


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
