"""Drawn problems through the emulated GPU: patterns, stored masks, lengths, head sizes, dtypes, layouts, groupings."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splat_numba.testing import check_attention, patterns, problems
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.profiles import draws

TYPES = ("float16", "bfloat16")
KINDS = ((1, 1), (20, 20), (64, 64), (80, 72), (32, 33), (128, 40), (192, 128), (256, 256))
drawn = settings(
    max_examples=draws(6), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("late", [False, True], ids=["copies at once", "copies late"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@drawn
@given(data=st.data())
def test_any_problem(kind, late, monkeypatch, data):
    problem = data.draw(problems(dtypes=TYPES, max_length=150, mask=data.draw(st.sampled_from([None, patterns]))))
    with monkeypatch.context() as patch:
        emulated(patch, late=late)
        check_attention(replace(problem, head_dim=kind[0], value_dim=kind[1]), backend="cuda")
    forget_emulated()
