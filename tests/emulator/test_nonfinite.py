"""Scores of -inf, NaN and inf in a GPU's text: the same rows as on a CPU, in passes that resume as well."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import reference
from splat_numba.executors.emulated import executor as emulated_kernel
from splat_numba.gen.boxes import search as box_search
from splat_numba.gen.targets.sm90.target import SM90
from splat_numba.testing import Problem, check_attention

MASK = splat.window(3) | splat.strided(16)


def in_two_passes(mask, problem, gpu, _request, conditions):
    """The plan that takes the window first and resumes for the stripes, however slow it is predicted to be."""
    found = splat.geometry(mask, problem.seq_q, problem.seq_kv)
    ways = SM90.candidates(found, problem, gpu, conditions, 100)
    way = next(one for one in ways if len(one.trials) > 1)
    return SM90.plan_of(way, found, problem, gpu, repr(mask), conditions, ())


@pytest.fixture
def two_passes(monkeypatch):
    monkeypatch.setattr(box_search, "WORTH_TRYING", 1e9)
    monkeypatch.setattr(emulated_kernel, "plan_for", in_two_passes)


@pytest.mark.usefixtures("two_passes")
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_scores_of_minus_infinity_weigh_nothing_in_passes_that_resume(share):
    problem = Problem(130, 130, MASK, "float16", batch=2, heads_q=1, kv_lengths=(130, 18), minus_inf=share)
    check_attention(problem, backend="emulate")


@pytest.mark.usefixtures("two_passes")
def test_rows_of_nan_stay_nan_where_a_later_pass_has_nothing_for_them():
    q, k, v = Problem(130, 130, MASK, "float16", batch=1, heads_q=1).arrays()
    lengths = np.array([10])  # stripes 10 to 15 keep no key
    q[0, 0, [3, 12]] = np.nan
    q[0, 0, 11] = np.inf
    kept = splat.ACSR.from_pattern(MASK, 130, 130).to_dense()
    wanted, wanted_lse = reference.attention(q, k, v, kept, kv_lengths=lengths, return_lse=True)
    out, lse = splat.attention(q, k, v, MASK, kv_lengths=lengths, return_lse=True, backend="emulate")
    assert_array_equal(np.isnan(out), np.isnan(wanted))
    assert_array_equal(np.isnan(lse), np.isnan(wanted_lse))
    assert np.isnan(wanted_lse[0, 0, [3, 11, 12]]).all()
