"""Generated text, run as ordinary Python on checked memory: right answers, and no byte outside the arrays is touched.

Nothing is compiled, so every kind of kernel can be tried; one tile takes milliseconds.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from splat_numba.emulator.cpu_memory import Pointer, address
from splat_numba.emulator.cpu_text import emulate
from splat_numba.errors import EmulationError
from splat_numba.formats import patterns as p
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.language.halves import narrow, widen
from splat_numba.gen.packed.groups import GroupTable
from splat_numba.gen.packed.problem import PackedProblem, RunTable
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.rows.passes import TablePass
from splat_numba.gen.targets.cpu.attention import attention_text
from splat_numba.gen.targets.cpu.packed import packed_text
from splat_numba.gen.targets.cpu.packed_plan import keys_to_share, make_packed_plan, rows_to_share
from splat_numba.gen.targets.cpu.packed_schedule import ARGUMENTS, packed_schedule
from splat_numba.runtime.cpu.machine import LoadedSchedule
from splat_numba.testing import DTYPES, Problem, check_attention, problems
from tests.gen.golden_plans import GOLDEN, SEQ_KV, SEQ_Q, golden_plan
from tests.gen.plan_cases import plan_of, table_plan_of
from tests.gen.plan_run import run_plan
from tests.profiles import EXPLORING, draws


def agrees(plan, problem):
    return check_attention(problem, attention=run_plan(plan, emulate(attention_text(plan)), threads=1))


@pytest.mark.parametrize("name", GOLDEN)
def test_every_golden_source_agrees_with_the_oracle(name):
    mask, dtype = GOLDEN[name]
    agrees(golden_plan(name), Problem(SEQ_Q, SEQ_KV, mask, dtype, batch=1, heads_q=1, head_dim=8))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [(1, 1), (3, 17), (9, 2)], ids=str)
def test_dims_that_fill_no_vector(dtype, dims):
    mask = p.window(5, 3) | p.sinks(2)
    problem = Problem(19, 23, mask, dtype, batch=1, heads_q=2, heads_kv=1, head_dim=dims[0], value_dim=dims[1])
    plan = plan_of(mask, 19, 23, dtype)
    agrees(replace(plan, problem=replace(plan.problem, head_dim=dims[0], value_dim=dims[1])), problem)


@pytest.mark.parametrize("by_table", [False, True])
def test_key_lengths(by_table):
    mask = p.window(5, 3) | p.strided(4)
    plan = (table_plan_of if by_table else plan_of)(mask, 20, 30)
    agrees(plan, Problem(20, 30, mask, batch=4, heads_q=1, head_dim=8, kv_lengths=(0, 1, 29, 30)))


@pytest.mark.parametrize("mask", [p.window(2**40), p.prefix(2**40), p.dilated(2**33, 3) | p.sinks(2**35)], ids=str)
def test_sizes_beyond_int32(mask):
    """Edges of tiles are int32; NumPy refuses what does not fit, where machine code would wrap around."""
    agrees(plan_of(mask, 20, 30), Problem(20, 30, mask, batch=1, heads_q=1, head_dim=8))


def small(problem):
    """One batch and head, few dims: the emulator does a few thousand operations a second."""
    return replace(problem, batch=1, heads_q=1, heads_kv=None, head_dim=min(problem.head_dim, 5), value_dim=None,
                   kv_lengths=problem.kv_lengths[:1] if problem.kv_lengths else None, layout="bhsd",
                   mask=problem.mask[0] if isinstance(problem.mask, list) else problem.mask)  # fmt: skip


@settings(max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=DTYPES, max_length=90 if EXPLORING else 40).map(small))
def test_any_problem(problem):
    agrees(plan_of(problem.mask, problem.seq_q, problem.seq_kv, problem.dtype, problem.head_dim), problem)


def test_the_emulator_refuses_what_lies_outside():
    inner = address(np.zeros((3, 4))[1:, 2:], 0)
    assert inner.place == 6
    assert Pointer(np.zeros(4), 2).span(0, 2) == slice(2, 4)
    for pointer, offset, count in [(inner, 5, 2), (inner, -7, 1)]:
        with pytest.raises(EmulationError):
            pointer.span(offset, count)


def test_the_emulator_would_notice_a_wrong_table():
    """A column beyond the keys, as a fault in the cover would list it."""
    plan = table_plan_of(p.causal(), 16, 16)
    (one,) = plan.passes
    assert isinstance(one, TablePass)
    piece = one.table.piece.copy()
    piece[:, 0] += 1
    wrong = replace(plan, passes=(replace(one, table=replace(one.table, piece=piece)),))
    assert attention_text(wrong).source == attention_text(plan).source
    with pytest.raises(AssertionError):
        agrees(wrong, Problem(16, 16, p.causal(), batch=1, heads_q=1, head_dim=8))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_operators(dtype, grouped):
    """Several runs a row, of several steps; dims that fill no whole vector; values at any stride, or rows in groups."""
    rng, acsr = np.random.default_rng(0), ACSR.from_pattern(p.window(5, 3) | p.strided(7), 12, 17)
    table, turned = RunTable.of(acsr), RunTable.transposed(acsr)
    to_bits = (lambda x: x) if dtype == "float32" else (lambda x: narrow(x, dtype))

    def run(operator, *given, shape, dim, scale=1.0, heads=2):
        problem = PackedProblem(operator, dtype, 1, heads, dim, scale, contiguous=grouped, group=2 // heads)
        walked, host = turned if problem.transposed else table, Machine()
        plan = make_packed_plan(problem, walked, host)
        if grouped and dim:
            walked = GroupTable.of(walked, rows_to_share(problem, host), keys_to_share(problem, host))
            assert walked.shared
            plan = replace(plan, shared_rows=walked.size, regular=False)
        out = to_bits(np.full((1, heads, *shape), np.nan, np.float32))
        loaded = LoadedSchedule(packed_schedule(plan, problem, walked, 4), emulate(packed_text(plan)))
        loaded.run(dict(zip(ARGUMENTS[operator], (*map(to_bits, given), out), strict=True)), threads=1)
        return widen(out, dtype)

    def drawn(*shape):
        return widen(to_bits(rng.standard_normal(shape, np.float32)), dtype)

    q, k, v = drawn(1, 2, 12, 5), drawn(1, 1, 17, 10)[..., :: 1 if grouped else 2][..., :5], drawn(1, 1, 17, 3)
    kept = acsr.to_dense()
    values = run("sddmm", q, k, shape=(acsr.nnz,), dim=5, scale=0.5)
    weights = run("softmax", values, shape=(acsr.nnz,), dim=0)
    close = {"rtol": 1e-5 if dtype == "float32" else 1e-2, "atol": 1e-6 if dtype == "float32" else 1e-2}
    np.testing.assert_allclose(values[0], (0.5 * q @ k.swapaxes(2, 3))[0][:, kept], **close)
    dense = np.zeros((1, 2, 12, 17), np.float32)
    dense[..., kept] = np.exp(values)
    np.testing.assert_allclose(weights, (dense / dense.sum(axis=3, keepdims=True))[..., kept], **close)
    dense[..., kept] = weights
    np.testing.assert_allclose(run("spmm", weights, v, shape=(12, 3), dim=3), dense @ v, **close)
    dweights, dout = drawn(1, 2, acsr.nnz * 2)[..., :: 1 if grouped else 2][..., : acsr.nnz], drawn(1, 2, 12, 3)
    mean, changes = np.zeros_like(dense), np.zeros_like(dense)
    mean[..., kept] = changes[..., kept] = dweights
    changes -= (dense * mean).sum(axis=3, keepdims=True)
    dvalues = run("softmax_backward", weights, dweights, shape=(acsr.nnz,), dim=0)
    np.testing.assert_allclose(dvalues, (dense * changes)[..., kept], **close)
    dv = run("spmm_transposed", weights, dout, shape=(17, 3), dim=3, scale=0.5, heads=1)
    np.testing.assert_allclose(dv[0, 0], 0.5 * (dense.swapaxes(2, 3) @ dout).sum(axis=(0, 1)), **close)
