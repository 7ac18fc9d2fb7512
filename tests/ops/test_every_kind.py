"""Each kind of pass, piece, coverage and boundary is there in a named problem, and right: drawn ones may miss some."""

import pytest

from splat_numba.gen.shown.kinds import CLOSED_KINDS, TABLE_KINDS
from splat_numba.testing import check_attention
from tests.ops.kind_cases import PROBLEMS, kinds_of


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_plan_has_its_kinds_and_agrees_with_the_oracle(name):
    problem, wanted = PROBLEMS[name]
    assert wanted <= kinds_of(problem, "cpu")
    check_attention(problem, backend="cpu")


def test_every_kind_has_a_problem():
    assert set().union(*(kinds_of(problem, "cpu") for problem, _ in PROBLEMS.values())) == {*CLOSED_KINDS, *TABLE_KINDS}
