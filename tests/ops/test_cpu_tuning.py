"""autotune=True on a CPU: the fastest candidate wins, forward and back, is kept on disk, and gives right results."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.executors.cpu import backward as cpu_backward
from splat_numba.executors.cpu import executor as cpu
from splat_numba.executors.cpu import tuning as cpu_tuning
from splat_numba.executors.cpu.executor import CpuExecutor
from splat_numba.executors.cpu.tuning import least_seconds, tuned_plan
from splat_numba.executors.given import Given, split_parts
from splat_numba.formats.geometry import geometry
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.targets.cpu import planning
from splat_numba.kernel import Kernel
from splat_numba.settings import current
from splat_numba.testing import Problem, check_attention, check_gradients
from tests.ops.attention_cases import MIXED, dense

SIZES = {"seq_q": 60, "seq_kv": 60, "head_dim": 16, "heads_q": 2, "dtype": "float32"}
MASK = splat.window(3)  # its first candidate's kernels are shared with other tests


def forget():
    for one in (tuned_plan, cpu.compiled_for, cpu_backward.compiled_backward):
        one.cache_clear()


MOST = 2


@pytest.fixture
def few(monkeypatch):
    """Candidates that are compiled."""
    monkeypatch.setattr(cpu_tuning, "MOST", MOST)


@pytest.fixture(autouse=True)
def choices(tmp_path, monkeypatch):
    """Kernels stay in the run's cache; choices are the test's own."""
    monkeypatch.setattr("splat_numba.executors.measured.cache.folder", lambda _: tmp_path)
    forget()
    yield tmp_path
    forget()


class Timer:
    """Runs every call once, so that a candidate that cannot run fails, and says that number ``fastest`` is fastest."""

    def __init__(self, fastest):
        self.fastest, self.asked = fastest, 0

    def __call__(self, calls):
        self.asked += 1
        for call in calls:
            call()
        return [1e-6 if number == self.fastest else (number + 2) * 1e-6 for number in range(len(calls))]


def kernel_of(timer, mask=MASK):
    problem = splat.plan(mask, **SIZES).problem
    executor = CpuExecutor(timer=timer)
    return Kernel(split_parts(executor, mask, problem, 0.25, current()), problem, 0.25, "bhsd", executor)


def found(mask, most=99):
    problem = splat.plan(mask, seq_q=700, seq_kv=700, head_dim=16, dtype="float32").problem
    return planning.candidates(geometry(mask, 700, 700), problem, Machine(), most)


@pytest.mark.parametrize(
    "mask",
    [MIXED, splat.window(9), splat.documents((300, 400)), dense(splat.strided(9), 700, 700)],
    ids=["terms", "one term", "table", "regrouped"],
)
def test_the_candidates_begin_with_the_plan(mask):
    stored = mask if isinstance(mask, splat.Pattern) else splat.from_dense(mask)
    candidates = found(stored)
    plan = planning.plan(geometry(stored, 700, 700), splat.plan(stored, seq_q=700, seq_kv=700, head_dim=16,
                         dtype="float32").problem, Machine(), "")  # fmt: skip
    tiles = [[(one.tile_q, one.tile_kv) for one in passes] for passes in (candidates[0].passes, plan.passes)]
    assert tiles[0] == tiles[1]
    seconds = [one.seconds for one in candidates]
    assert seconds[1:] == sorted(seconds[1:])  # the plan's own may be one that most masks share
    assert seconds[0] <= 1.06 * min(seconds)
    assert len({one.name for one in candidates}) == len(candidates) >= 2
    assert found(stored, 2)[0].name == candidates[0].name
    assert len(found(stored, 2)) == 2
    again = planning.plan_of(candidates[0], plan, plan.choices[:-1])
    assert (again.cost, again.covered, again.out_dtype) == (plan.cost, plan.covered, plan.out_dtype)


@pytest.mark.parametrize("fastest", [0, 1])
@pytest.mark.usefixtures("few")
def test_the_fastest_candidate_is_the_plan_both_ways(fastest, choices):
    timer = Timer(fastest)
    kernel = kernel_of(timer).with_backward()
    assert timer.asked == 2
    wanted = found_at_60()[fastest]
    for plan in (kernel.plan, kernel.plan.backward):
        (choice,) = [one for one in plan.choices if "measured" in one.reason]
        assert choice.chosen == wanted.name
        passes = plan.passes if plan is kernel.plan else plan.queries
        assert [(one.tile_q, one.tile_kv) for one in passes] == [(one.tile_q, one.tile_kv) for one in wanted.passes]
    assert f"the least of {MOST} timed on this CPU" in kernel.explain()
    assert "forward predicted" in kernel.plan.backward.explain()
    assert "measured" not in splat.plan(MASK, **SIZES, backward=True).explain()
    assert len([*choices.glob("measured_*.json")]) == 2
    forget()
    kernel_of(timer).with_backward()  # as another process would
    assert timer.asked == 2


def found_at_60():
    problem = splat.plan(MASK, **SIZES).problem
    return planning.candidates(geometry(MASK, 60, 60), problem, cpu.machine(None), MOST)


@pytest.mark.usefixtures("few")
def test_results_are_right():
    problem = Problem(60, 60, MASK, heads_q=2)
    executor = CpuExecutor(timer=Timer(1))

    def recipe(mask, scale, layout):
        return Given(mask, executor, layout, scale)

    def attention(q, k, v, mask, *, scale=None, return_lse=False, layout="bhsd", kv_lengths=None, **_):
        return executor.attend(recipe(mask, scale, layout), q, k, v, kv_lengths, None, return_lse)

    check_attention(problem, attention=attention)
    kernel = kernel_of(executor.timer)
    check_gradients(
        problem, attention_vjp=lambda q, k, v, _, **given: kernel.vjp(q, k, v, kv_lengths=given["kv_lengths"])
    )


@pytest.mark.usefixtures("few")
def test_what_is_frozen_is_not_timed():
    timer = Timer(0)
    kernel = kernel_of(timer)
    q, k, v = Problem(60, 60, MASK, batch=1, heads_q=2).arrays()
    for frozen in ((), ("q",), ("q",)):
        kernel.vjp(q, k, v, frozen=frozen)[1](q)
    assert timer.asked == 3  # the forward pass, and two kinds of gradients


def test_nothing_to_run_is_not_timed():
    timer = Timer(0)
    for name in ("seq_q", "batch"):
        problem = replace(splat.plan(MASK, **SIZES).problem, **{name: 0})
        for wanted in (None, Wanted()):
            plan = tuned_plan(MASK, None, problem, current(), timer, wanted, None)
            assert plan == cpu_tuning.host_plan_for(MASK, problem, current().threads, None)
    assert timer.asked == 0


@pytest.mark.usefixtures("few")
def test_the_public_way(choices, monkeypatch):
    """Real times. A pickled kernel has its choices on disk."""
    monkeypatch.setattr(cpu_tuning, "ENOUGH_SECONDS", 0)
    q, k, v = Problem(60, 60, MASK, batch=1, heads_q=2).arrays()
    out, vjp = splat.attention_vjp(q, k, v, MASK, autotune=True)
    np.testing.assert_allclose(out, splat.attention(q, k, v, MASK, autotune=True), rtol=1e-5, atol=1e-6)
    for got, wanted in zip(vjp(q), splat.attention_vjp(q, k, v, MASK)[1](q), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    kernel = splat.compile(MASK, **SIZES, autotune=True, backward=True)
    assert kernel.executor.timer is least_seconds
    assert pickle.loads(pickle.dumps(kernel)).explain() == kernel.explain()  # noqa: S301 - our own
    assert len([*choices.glob("measured_*.json")]) == 2
