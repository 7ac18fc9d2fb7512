"""The text of CPU kernels: complete, deterministic, free of what a plan does not need; nothing is compiled here."""

import ast

import pytest

from flurka_numba.operands import import_call
from flurka_numba.targets.cpu.backward import wanted
from flurka_numba.targets.cpu.plan import make_plan
from flurka_numba.targets.cpu.text import cpu_text, entries, render
from splat_numba.gen.plans.machine import Machine
from splat_numba.runtime.cpu.code import source_of
from tests.flurka.strategies import DTYPES, METHODS, Case
from tests.flurka.targets.cpu.plans import KINDS, WANTS, plan_of
from tests.gen.test_source import called, free_names, functions, unbound_locals


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wants", WANTS, ids="+".join)
@pytest.mark.parametrize(("method", "name"), KINDS)
def test_any_text_is_complete_deterministic_and_readable(method, name, wants, dtype):
    text = render(plan_of(method, name, dtype, wants))
    assert text == render(plan_of(method, name, dtype, wants))
    assert free_names(text) == set()
    assert unbound_locals(text) == []
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "\n\n\n\n" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("wants", WANTS, ids="+".join)
@pytest.mark.parametrize(("method", "name"), KINDS)
def test_every_function_is_documented_and_used(method, name, wants):
    """A function without a caller would be read, and compiled, for nothing."""
    plan = plan_of(method, name, "bfloat16", wants)
    tree = functions(render(plan))
    used = set().union(*(called(node) for node in tree.values()))
    for function, node in tree.items():
        assert ast.get_docstring(node), function
        assert function in used or function in entries(plan), f"{function} is never called"
    assert set(entries(plan)) <= set(tree)
    assert [one.name for one in cpu_text(plan).entries] == list(entries(plan))


def test_sizes_are_no_part_of_a_plan():
    """One text, compiled once, for all shapes of a method."""
    sizes = [{"seq_q": 5, "rank": 3}, {"seq_q": 70, "batch": 2, "head_dim": 33, "per_head": True}]
    problems = [import_call(Case(**size).call()).problem for size in sizes]
    assert len({make_plan(problem, ("out",), Machine()) for problem in problems}) == 1


@pytest.mark.parametrize("method", METHODS)
def test_what_is_frozen_is_not_printed(method):
    problem = import_call(Case(method=method).call()).problem
    assert wanted(problem, frozenset({"q", "v", "proj_k", "proj_v"})) == ("keys",)
    assert wanted(problem, frozenset({"k", "v"})) == (("q",) if method == "kernel" else ("q", "keys", "values"))
    text = render(plan_of(method, "softmax" if method == "low_rank" else "elu", wants=("values",)))
    assert "slopes_of" not in text  # no gradient goes through the feature map
    assert "slopes_of" in render(plan_of("flurka", "elu", wants=("q",)))


def test_a_shared_projection_wants_both_its_gradients():
    problem = import_call(Case(shared=True).call()).problem
    assert wanted(problem, frozenset({"q", "k", "v"})) == ("keys", "values")
    assert wanted(problem, frozenset({"q", "k", "v", "proj_k"})) == ()


def test_only_what_a_map_calls_is_printed():
    assert "def sine_cosine" not in render(plan_of("kernel", "elu"))
    assert "def exp(" not in render(plan_of("kernel", "relu"))
    assert "def exp(" in render(plan_of("kernel", "favor"))
    assert "def compress" not in render(plan_of("kernel", "elu"))
    assert "float16" not in render(plan_of("kernel", "elu")).split("real = ")[1]


def test_the_file_name_and_the_docstring_tell_the_kernel():
    source = source_of(cpu_text(plan_of("flurka", "softplus", "bfloat16", ("q", "keys"))))
    assert source.name.startswith("flurka_softplus_bfloat16_gradient_q_keys_")
    docstring = ast.get_docstring(ast.parse(source.text))
    assert "flurka attention, bfloat16, features softplus: log(1.0 + exp(x)); gradients of q, keys" in docstring
    assert source_of(cpu_text(plan_of("low_rank", "softmax"))).name.startswith("low_rank_softmax_float32_forward_")
