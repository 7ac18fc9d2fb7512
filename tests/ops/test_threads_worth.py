"""How many threads a call on a CPU asks for."""

from dataclasses import replace

import pytest

import splat_numba as splat
from splat_numba.executors.cpu.executor import CpuExecutor, threads_worth
from splat_numba.executors.given import Given
from splat_numba.gen.plans.problem import Problem
from splat_numba.settings import current

SMALL = Problem(16, 16, 16, 16, "float32", 1, 2, 2)


def plans_for(problem):
    recipe = Given(splat.window(4), CpuExecutor(), "bhsd", None)
    return [part.plan for part in recipe.parts_for(problem, 0.25, current(), ragged=False)]


def test_a_small_call_stays_on_its_own_thread_and_a_large_one_does_not():
    large = replace(SMALL, seq_q=65536, seq_kv=65536)
    assert threads_worth(plans_for(SMALL), SMALL, 8) == 1
    assert threads_worth(plans_for(large), large, 8) == 8


def test_a_plan_for_other_sizes_says_nothing():
    assert threads_worth(plans_for(SMALL), replace(SMALL, batch=4096), 8) == 8


@pytest.mark.parametrize("name", ["SPLAT_NUM_THREADS", "SPLAT_CACHE"])
def test_settings_follow_the_environment(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    before = current()
    assert current() is before
    monkeypatch.setenv(name, "0" if name == "SPLAT_CACHE" else "3")
    assert current() != before
    monkeypatch.delenv(name)
    monkeypatch.setenv(name, "1")
    assert current() == before
