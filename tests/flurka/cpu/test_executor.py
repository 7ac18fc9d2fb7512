"""The CPU executor: the same bits for any number of threads, sums over many splits, kernels compiled once."""

import numpy as np
import pytest

from flurka_numba.cpu import executor as cpu_kernel
from flurka_numba.cpu.executor import compiled_for
from flurka_numba.operands import import_call
from flurka_numba.targets.cpu.plan import make_plan
from flurka_numba.targets.cpu.recorder import split_count
from splat_numba.runtime.cpu import code
from splat_numba.runtime.device import machine
from splat_numba.settings import current
from tests.flurka.agreement import check_gradients
from tests.flurka.strategies import METHODS, Case

LONG = Case(seq_q=3 * 1024 + 5, seq_kv=4 * 1024 + 77, rank=70, head_dim=24, value_dim=40, rows=20)  # several splits
KINDS = [(method, phi) for method in METHODS for phi in ("elu", "favor") if method != "low_rank" or phi == "elu"]


def results(case):
    out, vjp = case.run_vjp()
    return [out, *(gradient for gradient in vjp(case.dout()) if gradient is not None)]


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_any_number_of_threads_gives_the_same_bits(method, phi, monkeypatch):
    case = LONG.but(method=method, feature_map=phi, batch=2, kv_lengths=(2000, LONG.seq_kv))
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("SPLAT_NUM_THREADS", threads)
        found.append(results(case))
    for one in found[1:]:
        for a, b in zip(found[0], one, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_sums_over_many_splits_agree_with_the_oracle(method, phi):
    assert split_count(1, LONG.seq_q) > 2
    check_gradients(LONG.but(method=method, feature_map=phi))


def test_splits_depend_on_the_problem_alone():
    assert split_count(0, 0) == 1
    assert split_count(4, 16384) == 16
    assert split_count(64, 10**6) == 1


# What is frozen is not printed, so every choice is a kernel of its own, 5 s each.
CHOICES = [
    ("flurka", False, ("q",)), ("flurka", False, ("k", "proj_v")), ("flurka", True, ("q", "k", "v")),
    ("flurka", True, ("proj_k",)), ("low_rank", False, ("proj_k", "proj_v")), ("low_rank", True, ("v",)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "shared", "frozen"), CHOICES)
def test_any_choice_of_frozen_arguments(method, shared, frozen):
    check_gradients(Case(method=method, shared=shared, seq_kv=40), frozen=frozen)


def test_a_kernel_is_compiled_once_and_found_on_disk_afterwards():
    problem = import_call(Case().call()).problem
    plan = make_plan(problem, ("out",), machine())
    assert compiled_for(plan, current()) is compiled_for(plan, current())
    compiled_for.cache_clear()
    code._compiled.clear()
    again = compiled_for(plan, current())
    assert again.cached
    assert again.path.name.startswith("flurka_elu_float32_forward_")


def test_gradients_do_not_run_the_forward_pass_again(monkeypatch):
    _, vjp = Case().run_vjp()
    monkeypatch.setattr(cpu_kernel, "forward_for", None)
    dout = Case().dout()
    for first, second in zip(vjp(dout), vjp(dout), strict=True):
        np.testing.assert_array_equal(first, second)
