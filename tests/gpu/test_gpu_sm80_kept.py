"""Gradients of target sm80 that keep dS, on a GPU: against the oracle, both sizes of row blocks, bits that repeat."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import attention_vjp
from splat_numba.gen.targets.sm80.backward import planning
from splat_numba.testing import Problem, check_gradients
from tests.gpu.device_views import forget
from tests.gradient_cases import CASES, KEPT, WINDOW, keep_slopes

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("_kept")]
GIVEN = {"backend": "cuda", "target": "sm80"}


@pytest.fixture
def _kept(monkeypatch):
    """Slopes are kept wherever they can be, and heads take turns."""
    keep_slopes(monkeypatch)
    forget()
    yield
    forget()


@pytest.mark.parametrize("name", KEPT)
def test_every_case_that_keeps_slopes(name):
    check_gradients(CASES[name], **GIVEN, frozen=KEPT[name])


LONG = {
    "causal": Problem(1100, 1100, splat.causal(), "bfloat16", 1, 2, head_dim=64),
    "full": Problem(700, 900, splat.full(), "float16", 1, 2, head_dim=128),
    "window, grouped": Problem(1500, 1500, splat.window(200), "bfloat16", 2, 4, 2, head_dim=128),
}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", LONG)
def test_many_tiles_with_both_row_blocks_of_queries(name, groups, monkeypatch):
    """More tiles than stages, in turns of the stages' ring."""

    readers = planning.KEEPING.readers

    def of_groups(problem, gpu):
        return tuple(one for one in readers(problem, gpu) if one.groups == groups)

    monkeypatch.setattr(planning, "KEEPING", replace(planning.KEEPING, readers=of_groups))
    check_gradients(LONG[name], **GIVEN)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_bits_repeat(dtype):
    problem = Problem(700, 650, WINDOW, dtype, 2, 4, 2, head_dim=64)
    arrays, (dout, dlse) = problem.arrays(), problem.gradients()
    found = [attention_vjp(*arrays, WINDOW, **GIVEN)[1](dout, dlse) for _ in range(3)]
    for others in found[1:]:
        for one, two in zip(found[0], others, strict=True):
            assert_array_equal(one, two)
            assert np.isfinite(one).all()
