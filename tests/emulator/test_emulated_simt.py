"""The texts for FMA units, run on NumPy: results against the oracle, by name and drawn; faults planted in a text."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import reference
from splat_numba.executors.emulated import executor as emulated_kernel
from splat_numba.gen.boxes import search as box_search
from splat_numba.gen.targets.simt.target import SIMT
from splat_numba.testing import Problem, check_attention, masks, patterns, problems
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.planted_faults import check_found
from tests.profiles import draws

TYPES = ("float32", "float64", "float16")
KINDS = ((1, 3), (20, 20), (16, 72), (33, 17))
STRIPES = splat.window(3) | splat.strided(16)
PROBLEMS = {
    "no mask": Problem(70, 100, splat.full(), "float32", 1, 2, 1, head_dim=24),
    "causal, another layout": Problem(90, 90, splat.causal(), "float64", 2, 1, head_dim=16, layout="bshd"),
    "wide values": Problem(40, 70, splat.causal(), "float32", 1, 1, head_dim=8, value_dim=136),
    "four rows a thread": Problem(40, 40, splat.causal(), "float64", 1, 1, head_dim=8, value_dim=136),
    "residue classes": Problem(260, 260, splat.dilated(10, 4), "float32", 1, 1, head_dim=8),
    "a grid": Problem(384, 384, splat.neighborhood((16, 24), 5), "float32", 1, 1, head_dim=8),
    "a mask a head": Problem(70, 70, [splat.causal(), splat.window(9)], "float32", batch=2, heads_q=2, head_dim=12),
    "key lengths": Problem(70, 90, splat.causal(), "float32", 3, 1, head_dim=12, kv_lengths=(0, 33, 90)),
    "negative scale": Problem(70, 70, splat.window(30), "float64", 1, 1, head_dim=12, scale=-0.3),
    "no scale": Problem(70, 70, splat.window(30), "float32", 1, 1, head_dim=12, scale=0.0),
    "no keys": Problem(64, 0, splat.full(), "float32", 1, 2, head_dim=16),
    "16 bits": Problem(70, 90, splat.causal().align_end(), "bfloat16", 1, 2, head_dim=20, kv_lengths=(77,)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_results_agree_with_the_oracle(name):
    check_attention(PROBLEMS[name], backend="emulate", target="simt")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(6), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_through_the_runtime(kind, monkeypatch, data):
    """Strides, copies and packed parameters as on a GPU."""
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES, max_length=80, mask=mask))
    with monkeypatch.context() as patch:
        emulated(patch)
        check_attention(replace(problem, head_dim=kind[0], value_dim=kind[1]), backend="cuda", target="simt")
    forget_emulated()


def in_two_passes(mask, problem, gpu, _request, conditions):
    """The plan that takes the window first and resumes for the stripes, however slow it is predicted to be."""
    found = splat.geometry(mask, problem.seq_q, problem.seq_kv)
    way = next(one for one in SIMT.candidates(found, problem, gpu, conditions, 100) if len(one.trials) > 1)
    return SIMT.plan_of(way, found, problem, gpu, repr(mask), conditions, ())


@pytest.fixture
def two_passes(monkeypatch):
    monkeypatch.setattr(box_search, "WORTH_TRYING", 1e9)
    monkeypatch.setattr(emulated_kernel, "plan_for", in_two_passes)


@pytest.mark.usefixtures("two_passes")
@pytest.mark.parametrize("dtype", TYPES)
def test_passes_that_resume(dtype):
    problem = Problem(130, 130, STRIPES, dtype, 2, 1, head_dim=12, kv_lengths=(130, 18), minus_inf=0.6)
    check_attention(problem, backend="emulate", target="simt")


@pytest.mark.usefixtures("two_passes")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_nan_stay_nan_where_a_later_pass_has_nothing_for_them(dtype):
    q, k, v = Problem(130, 130, STRIPES, dtype, batch=1, heads_q=1, head_dim=8).arrays()
    lengths = np.array([10])  # stripes 10 to 15 keep no key
    q[0, 0, [3, 12]] = np.nan
    q[0, 0, 11] = np.inf
    kept = splat.ACSR.from_pattern(STRIPES, 130, 130).to_dense()
    wanted, wanted_lse = reference.attention(q, k, v, kept, kv_lengths=lengths, return_lse=True)
    out, lse = splat.attention(
        q, k, v, STRIPES, kv_lengths=lengths, return_lse=True, backend="emulate", target="simt"
    )  # fmt: skip
    assert_array_equal(np.isnan(out), np.isnan(wanted))
    assert_array_equal(np.isnan(lse), np.isnan(wanted_lse))


FAULTY = Problem(135, 150, splat.causal(), "float32", 2, 2, 1, head_dim=12, kv_lengths=(150, 77))
FAULTS = {
    "tile bound": (r"while place < end:", "while place < end - u32(1):"),
    "tiles of a piece": (r"corner = u32\(corner \+ u32\(\d+\) \* inner_step\)", "pass"),
    "predicate": (r"u32\(mask_0 >> u32\(16\)\)", "u32(mask_0 >> u32(17))"),
    "lengths of keys": (r"(?<!def )limit_scores\(score, column[^\n]*", "pass"),
    "values beyond a length": (r"inside = u32\(1\) if token < limit else u32\(0\)", "inside = u32(1)"),
    "keys that are not there yet": (r"ptx\.block_barrier\(\)  # the keys are there", "pass"),
    "values that are not there yet": (r"ptx\.block_barrier\(\)  # values and weights are there", "pass"),
    "keys overwritten": (r"ptx\.block_barrier\(\)  # nobody reads the keys any more", "pass"),
    "sum of a row": (r"row_sum = sum_of_row\(added\[i\]\)", "row_sum = added[i]"),
    "new peak": (r"total\[(\d) \* i \+ n\] \*= rescale", "pass"),
    "key heads": (r"k_head\n", "k_head + k_row\n"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    check_found(monkeypatch, lambda: check_attention(FAULTY, backend="cuda", target="simt"), *FAULTS[fault])
