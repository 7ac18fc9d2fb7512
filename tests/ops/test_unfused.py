"""Attention by the packed operators: right for every problem, chosen by the plan for graphs, forced by ``fused``.

Tests share head_dim and steps with those of the packed operators, because a new one is a new kernel to compile.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.executors.cpu import executor as cpu
from splat_numba.executors.cpu import unfused as cpu_unfused
from splat_numba.formats.acsr import ACSR
from splat_numba.testing import DTYPES, Problem, check_attention, check_gradients, problems
from tests.ops.attention_cases import MIXED
from tests.ops.packed_cases import DIM, stored
from tests.profiles import draws


def graph(nodes, neighbours, seed=0):
    """A mask without any order: every row keeps itself and some others."""
    rng = np.random.default_rng(seed)
    dense = np.eye(nodes, dtype=bool)
    dense[np.repeat(np.arange(nodes), neighbours), rng.integers(0, nodes, nodes * neighbours)] = True
    return ACSR.from_dense(dense)


def of_few_kernels(problem):
    """The problem with masks whose runs have step 1 or several, and one head_dim."""
    several = isinstance(problem.mask, list)
    made = [stored(one, problem.seq_q, problem.seq_kv) for one in (problem.mask if several else [problem.mask])]
    dtype = "float32" if problem.dtype == "float64" else problem.dtype
    return replace(problem, mask=made if several else made[0], head_dim=DIM, value_dim=None, dtype=dtype)


@settings(max_examples=draws(40), suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=DTYPES).map(of_few_kernels))
def test_any_problem_agrees_with_the_oracle(problem):
    check_attention(problem, backend="cpu", fused=False)


@pytest.mark.parametrize("fused", [True, False, None])
def test_both_ways_and_the_plans_agree_with_the_oracle(fused):
    mask = graph(300, 4)
    check_attention(Problem(300, 300, mask, heads_q=2, head_dim=DIM), backend="cpu", fused=fused)


@pytest.mark.parametrize("heads_kv", [1, 2, 4])
def test_a_mask_a_head_grouped_heads_and_key_lengths(heads_kv):
    several = [graph(90, 3), graph(90, 5, 1), graph(90, 3), MIXED]
    problem = Problem(90, 90, several, batch=3, heads_q=4, heads_kv=heads_kv, head_dim=DIM, kv_lengths=(90, 0, 33))
    for layout in ("bhsd", "bshd"):
        check_attention(replace(problem, layout=layout), backend="cpu", fused=False)


def test_heads_and_entries_take_turns_where_values_are_many(monkeypatch):
    mask = graph(90, 3)
    q, k, v = Problem(90, 90, mask, batch=3, heads_q=6, heads_kv=3, head_dim=DIM).arrays()
    wanted = splat.attention(q, k, v, mask, fused=False, return_lse=True)
    turns = []
    attend = cpu_unfused._attend
    monkeypatch.setattr(cpu_unfused, "_attend", lambda *given: turns.append(given[3].shape[:2]) or attend(*given))
    for heads, shapes in ((2, [(1, 2)] * 9), (4, [(1, 4), (1, 2)] * 3), (12, [(2, 6), (1, 6)])):
        turns.clear()
        monkeypatch.setattr(cpu_unfused, "LARGEST_VALUES", heads * mask.nnz * 4)
        for one, two in zip(splat.attention(q, k, v, mask, fused=False, return_lse=True), wanted, strict=True):
            assert_array_equal(one, two)
        assert turns == shapes


def test_what_a_row_does_not_keep_never_reaches_it():
    mask = graph(90, 3)
    dense = mask.to_dense()
    q, k, v = Problem(90, 90, mask, batch=2, heads_q=2, head_dim=DIM).arrays()
    wanted = splat.attention(q, k, v, mask, fused=False, kv_lengths=[90, 60])
    k[1, :, 60:], v[1, :, 60:], k[0, :, 7], v[0, :, 7] = np.nan, np.nan, np.nan, np.inf
    found = splat.attention(q, k, v, mask, fused=False, kv_lengths=[90, 60])
    assert_array_equal(found[1], wanted[1])
    assert_array_equal(found[0][:, ~dense[:, 7]], wanted[0][:, ~dense[:, 7]])
    assert np.isnan(found[0][:, dense[:, 7]]).all()


def test_rows_that_keep_nothing_and_scores_of_minus_infinity():
    dense = graph(60, 3).to_dense()
    dense[[0, 31, 59]] = False
    q, k, v = Problem(60, 60, dense, batch=1, heads_q=2, head_dim=DIM).arrays()
    q[..., 5, :] = np.abs(q[..., 5, :])
    k[..., dense[5], :] = -np.inf
    out, lse = splat.attention(q, k, v, dense, fused=False, return_lse=True)
    for row in (0, 5, 31, 59):
        assert_array_equal(out[0, :, row], 0)
        assert_array_equal(lse[0, :, row], -np.inf)


SIZES = {"head_dim": DIM, "heads_q": 8, "dtype": "float32"}


def test_the_plan_decides_and_says_why():
    scattered, regular = graph(900, 8), splat.window(50)
    plan = splat.plan(scattered, seq_q=900, seq_kv=900, **SIZES)
    assert not plan.fused
    assert plan.as_dict()["fused"] is False
    assert "chosen      fused or unfused: unfused: sddmm, softmax, spmm on packed values (predicted" in plan.explain()
    assert "  refused   fused: one kernel: predicted" in plan.explain()
    closed = splat.plan(regular, seq_q=900, seq_kv=900, **SIZES)
    assert closed.fused
    assert "closed forms stay so" in closed.explain()
    assert splat.plan(splat.documents((300, 600)), seq_q=900, seq_kv=900, **SIZES).fused
    forced = splat.plan(scattered, seq_q=900, seq_kv=900, **SIZES, fused=True)
    assert forced.fused
    assert "(asked for by fused=True)" in forced.explain()
    assert "predicted to" not in forced.explain()


def test_only_what_runs_is_compiled(monkeypatch):
    mask = graph(900, 8)
    q, k, v = Problem(900, 900, mask, batch=1, heads_q=8, head_dim=DIM).arrays()

    def refuse(*_):
        raise AssertionError("the fused kernel was wanted")

    cpu.compiled_for.cache_clear()
    monkeypatch.setattr(cpu, "compile_plan", refuse)
    assert np.isfinite(splat.attention(q, k, v, mask)).all()
    with pytest.raises(AssertionError, match="fused kernel"):
        splat.attention(q, k, v, mask, fused=True)


def test_gradients_go_on_from_it():
    mask = graph(900, 8)
    assert not splat.plan(mask, seq_q=900, seq_kv=900, head_dim=16, heads_q=2, dtype="float32").fused
    check_gradients(Problem(900, 900, mask, batch=1, heads_q=2), backend="cpu")


def test_a_kernel_is_fused():
    mask = graph(300, 4)
    kernel = splat.compile(mask, seq_q=300, seq_kv=300, head_dim=DIM, dtype="float32")
    q, k, v = Problem(300, 300, mask, batch=1, heads_q=2, head_dim=DIM).arrays()
    assert_array_equal(kernel(q, k, v), splat.attention(q, k, v, mask, fused=True))


Q = np.zeros((2, 8, DIM), np.float32)
REFUSED = {
    "a word": (
        lambda: splat.attention(Q, Q, Q, splat.causal(), fused="no"), ArgumentTypeError,
        "fused wanted as True or False, got 'no' of type str. Give a bool.",
    ),
    "on a GPU": (
        lambda: splat.attention(Q, Q, Q, splat.causal(), fused=False, backend="cuda"), ArgumentError,
        "fused wanted as True or left out with backend 'cuda', which has attention as one kernel alone, got False. "
        "Leave it out, or give arrays on the CPU.",
    ),
    "a plan for a GPU": (
        lambda: splat.plan(splat.causal(), seq_q=8, seq_kv=8, head_dim=16, dtype="float16", backend="emulate",
                           fused=False),
        ArgumentError,
        "fused wanted as True or left out with backend 'emulate', which has attention as one kernel alone, got False. "
        "Leave it out, or give arrays on the CPU.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_with_this_message(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message


def test_pytorchs_and_jaxs_transforms_ask_the_plan():
    torch = pytest.importorskip("torch")
    q = torch.zeros(2, 8, DIM, requires_grad=True)
    with pytest.raises(ArgumentError, match=r"^fused wanted left out where PyTorch records"):
        splat.attention(q, q, q, splat.causal(), fused=False)
    with pytest.raises(ArgumentError, match=r"^precision wanted as 'ieee' or 'tf32', got 'high'"):
        splat.attention(q, q, q, splat.causal(), precision="high")
    with pytest.raises(ArgumentError, match=r"^fused wanted as True or False, got 'no'"):
        splat.attention(q, q, q, splat.causal(), fused="no")
    jax = pytest.importorskip("jax")
    with pytest.raises(ArgumentError, match=r"^fused wanted left out where JAX transforms"):
        jax.jit(lambda x: splat.attention(x, x, x, splat.causal(), fused=False))(Q)
