"""Scores of -inf, NaN and inf in a GPU's text: the same rows as on a CPU, in passes that resume as well."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import reference
from splat_numba.testing import Problem, check_attention
from tests.emulator.two_passes import STRIPES, take_two_passes

PROBLEM = Problem(130, 130, STRIPES, batch=2, heads_q=1, kv_lengths=(130, 18), minus_inf=0.6)
# Target, dtype, head_dim, value_dim, share of the keys whose scores are -inf.
RESUMED = (
    *(("sm_90a", "float16", 16, 16, share) for share in (0.0, 0.6, 1.0)),
    *(("simt", dtype, 12, 12, 0.6) for dtype in ("float32", "float64", "float16")),
    *(("sm80", "bfloat16", *dims, 0.6) for dims in ((12, 12), (16, 40))),
    ("sm80", "float32", 12, 20, 0.6),  # three products alone would have them as NaN
)


@pytest.mark.parametrize(("target", "dtype", "head_dim", "value_dim", "share"), RESUMED)
def test_scores_of_minus_infinity_weigh_nothing_in_passes_that_resume(
    target, dtype, head_dim, value_dim, share, monkeypatch
):
    take_two_passes(monkeypatch, target)
    problem = replace(PROBLEM, dtype=dtype, head_dim=head_dim, value_dim=value_dim, minus_inf=share)
    check_attention(problem, backend="emulate", target=target)


@pytest.mark.parametrize(
    ("target", "dtype", "head_dim"), [("sm_90a", "float16", 16), ("simt", "float32", 8), ("simt", "float64", 8)]
)
def test_rows_of_nan_stay_nan_where_a_later_pass_has_nothing_for_them(target, dtype, head_dim, monkeypatch):
    take_two_passes(monkeypatch, target)
    q, k, v = Problem(130, 130, STRIPES, dtype, batch=1, heads_q=1, head_dim=head_dim).arrays()
    lengths = np.array([10])  # stripes 10 to 15 keep no key
    q[0, 0, [3, 12]] = np.nan
    q[0, 0, 11] = np.inf
    kept = splat.ACSR.from_pattern(STRIPES, 130, 130).to_dense()
    wanted, wanted_lse = reference.attention(q, k, v, kept, kv_lengths=lengths, return_lse=True)
    given = {"kv_lengths": lengths, "return_lse": True, "backend": "emulate", "target": target}
    out, lse = splat.attention(q, k, v, STRIPES, **given)
    assert_array_equal(np.isnan(out), np.isnan(wanted))
    assert_array_equal(np.isnan(lse), np.isnan(wanted_lse))
    assert np.isnan(wanted_lse[0, 0, [3, 11, 12]]).all()
