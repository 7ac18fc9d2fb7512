"""Each kind of pass over boxes is there in a named problem, and right: small drawn ones have most of them never."""

import pytest

import splat_numba as splat
from splat_numba.gen.shown.kinds import BOX_KINDS
from splat_numba.testing import Problem, check_attention
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.ops.kind_cases import kinds_of


def problem(mask, length, dim, **options):
    return Problem(length, length, mask, "float16", batch=1, heads_q=1, head_dim=dim, **options)


PROBLEMS = {
    "several groups": (problem(splat.full(), 130, 128), {"several groups", "whole tiles", "masked tiles"}),
    "skipped tiles": (problem(splat.window(20) | splat.strided(16), 260, 128), {"several groups", "skipped tiles"}),
    "several tiles a piece": (problem(splat.causal(), 300, 64), {"boxes in order", "several tiles a piece"}),
    "by residue, in views of unequal lines": (
        problem(splat.strided(8), 350, 64), {"boxes by residue", "several views", "one group"},
    ),
    "resumed by residue": (
        problem(splat.window(20) | splat.strided(16), 515, 128),
        {"boxes in order", "boxes by residue", "resumed boxes"},
    ),
    "on a grid": (problem(splat.neighborhood((32, 32), 7), 1024, 64), {"boxes on a grid"}),
    "key lengths, negative scale": (
        problem(splat.window(30), 130, 64, scale=-0.3, kv_lengths=(97,)), {"key lengths", "negative scale"},
    ),
}  # fmt: skip


@pytest.fixture
def gpu(monkeypatch):
    yield emulated(monkeypatch)
    forget_emulated()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_plan_has_its_kinds_and_agrees_with_the_oracle(name):
    case, wanted = PROBLEMS[name]
    assert wanted <= kinds_of(case, "cuda") | of_the_call(case)
    check_attention(case, backend="cuda")


def of_the_call(case):
    """Kinds that depend on more than a plan for shapes knows."""
    found = {"key lengths"} if case.kv_lengths else set()
    return found | ({"negative scale"} if (case.scale or 0) < 0 else set())


@pytest.mark.usefixtures("gpu")
def test_every_kind_has_a_problem():
    found = set().union(*(kinds_of(case, "cuda") | of_the_call(case) for case, _ in PROBLEMS.values()))
    assert found == set(BOX_KINDS)
