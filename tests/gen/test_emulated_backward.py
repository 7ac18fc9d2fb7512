"""Generated backward texts, run as ordinary Python on checked memory: as test_emulated.py for the forward pass."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from splat_numba.emulator.cpu_text import emulate
from splat_numba.formats import patterns as p
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.targets.cpu.backward import backward_text
from splat_numba.testing import Problem, check_gradients, problems
from tests.gen.golden_plans import GOLDEN, SEQ_KV, SEQ_Q, golden_plan
from tests.gen.plan_cases import plan_of, table_plan_of
from tests.gen.plan_run import run_backward
from tests.gen.test_emulated import small
from tests.profiles import EXPLORING, draws

EXACT = ["float32", "float64"]


ALL = Wanted()


def agrees(plan, problem, wanted=ALL, shares=1, edit=lambda source: source):
    text = backward_text(plan, wanted)
    functions = emulate(replace(text, source=edit(text.source)))
    frozen = tuple(name for name in "qkv" if f"d{name}" not in wanted.names)
    ours = run_backward(plan, functions, wanted, shares)
    return check_gradients(problem, attention_vjp=ours, frozen=frozen)


@pytest.mark.parametrize("name", [name for name, (_, dtype) in GOLDEN.items() if dtype in EXACT])
def test_every_kind_of_plan_agrees_with_the_oracle(name):
    mask, dtype = GOLDEN[name]
    agrees(golden_plan(name), Problem(SEQ_Q, SEQ_KV, mask, dtype, batch=1, heads_q=1, head_dim=8), shares=3)


MASK = p.window(5, 3) | p.strided(4)


def case(**changes):
    return Problem(**{"seq_q": 20, "seq_kv": 30, "mask": MASK, "batch": 1, "heads_q": 1, "head_dim": 8, **changes})


@pytest.mark.parametrize("plan", [plan_of, table_plan_of])
@pytest.mark.parametrize("dims", [(1, 1), (3, 17), (9, 2)], ids=str)
def test_dims_that_fill_no_vector(plan, dims):
    one = plan(MASK, 20, 30)
    one = replace(one, problem=replace(one.problem, head_dim=dims[0], value_dim=dims[1]))
    agrees(one, case(heads_q=2, heads_kv=1, head_dim=dims[0], value_dim=dims[1]))


@pytest.mark.parametrize("plan", [plan_of, table_plan_of])
def test_key_lengths(plan):
    agrees(plan(MASK, 20, 30), case(batch=4, kv_lengths=(0, 1, 29, 30)), shares=2)


@pytest.mark.parametrize("names", ["q", "k", "v", "qk", "qv", "kv"])
def test_every_choice_of_gradients(names):
    agrees(plan_of(MASK, 20, 30), case(), Wanted(*(name in names for name in "qkv")))


@settings(max_examples=draws(15), suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=EXACT, max_length=90 if EXPLORING else 40).map(small))
def test_any_problem(problem):
    agrees(plan_of(problem.mask, problem.seq_q, problem.seq_kv, problem.dtype, problem.head_dim), problem, shares=2)


FAULTS = {
    "a share that begins late": ("* share // shares", "* share // shares + share"),
    "delta left out": ("(load(products, key * 32 + lane) - less)", "load(products, key * 32 + lane)"),
    "the last keys of a tile left out": ("for key in range(whole, count):", "for key in range(whole, count - 1):"),
    "a mask that is one key off": ("inside(low, high, lane, first + key)", "inside(low, high, lane, first + key + 1)"),
    "a scale left out": ("weight * times_all *", "weight *"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_seen(fault):
    right, wrong = FAULTS[fault]
    plan = plan_of(p.window(9, 0), 70, 70)
    problem = Problem(70, 70, p.window(9, 0), batch=1, heads_q=1, head_dim=8)
    agrees(plan, problem, shares=2)

    def edit(source):
        assert right in source
        return source.replace(right, wrong)

    with pytest.raises(AssertionError):
        agrees(plan, problem, shares=2, edit=edit)
