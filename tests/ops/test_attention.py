"""`attention` on the CPU against the oracle: fuzzed, and every promise about values by name.

Tests share masks and head_dim where they can, because a new pattern, dtype or head_dim is a new kernel to compile.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.testing import assert_allclose, assert_array_equal

from splat_numba import reference
from splat_numba.api import compile
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import (
    causal,
    sinks,
    window,
)
from splat_numba.testing import DTYPES, Problem, check_attention, problems
from tests.ops.attention_cases import CATALOGUE, EDGES, MIXED, assert_same, run, stored_masks
from tests.profiles import draws


# Few, because nearly every one is a kernel of its own, which takes seconds to compile.
@settings(max_examples=draws(12), suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=DTYPES))
def test_any_problem_agrees_with_the_oracle(problem):
    check_attention(problem, backend="cpu")


@settings(max_examples=draws(60), suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=["float32"], mask=stored_masks))
def test_any_stored_mask_agrees_with_the_oracle(problem):
    check_attention(replace(problem, head_dim=16, value_dim=None), backend="cpu")


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "bigbird"])
def test_one_kernel_of_a_closed_form_serves_every_length(name):
    mask = CATALOGUE[name]
    kernel = compile(mask, seq_q=128, seq_kv=128, head_dim=16, dtype="float32", heads_q=2, backend="cpu")
    lengths = [*zip(EDGES, EDGES, strict=True), *zip(EDGES, reversed(EDGES), strict=True), (300, 257), (64, 511)]
    for seq_q, seq_kv in lengths:
        if name != "global" or max(seq_q, seq_kv) > 34:
            problem = Problem(seq_q, seq_kv, mask, batch=1, heads_q=2, seed=seq_q)
            check_attention(
                problem, attention=lambda q, k, v, _, **given: kernel(q, k, v, return_lse=given["return_lse"])
            )


@pytest.mark.parametrize("lengths", [(64, 64), (65, 129), (127, 31)], ids=str)
def test_a_pattern_without_closed_form_agrees(lengths):
    check_attention(Problem(*lengths, CATALOGUE["bigbird"], batch=1, heads_q=2), backend="cpu")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_with_grouped_heads_in_both_layouts(dtype):
    for layout, heads_kv in product(("bhsd", "bshd"), (1, 2, 6)):
        problem = Problem(
            70,
            90,
            MIXED,
            dtype=dtype,
            batch=2,
            heads_q=6,
            heads_kv=heads_kv,
            value_dim=24,
            layout=layout,
            kv_lengths=(90, 33),
        )
        check_attention(problem, backend="cpu")


@pytest.mark.parametrize(("head_dim", "value_dim"), [(1, 1), (3, 5), (64, 1), (1, 64), (80, 33), (256, 256)])
def test_any_head_dim_and_value_dim(head_dim, value_dim):
    check_attention(Problem(66, 66, MIXED, heads_q=2, head_dim=head_dim, value_dim=value_dim), backend="cpu")


@pytest.mark.parametrize("scale", [0.0, 1.0, -0.5, 3.0])
def test_scale_is_used_as_given(scale):
    check_attention(Problem(50, 50, MIXED, scale=scale), backend="cpu")


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float32", 1.2e-38), ("float32", -1e37), ("float64", 1e39), ("float64", 2.3e-308)]
)
def test_scales_at_the_ends_of_the_range(dtype, scale):
    """Scores are of a usual size: keys are as small as the scale is large."""
    q, k, v = Problem(50, 50, MIXED, dtype=dtype).arrays()
    tiny = np.asarray(0.25 / abs(scale), dtype)
    wanted = run(q, k, v, MIXED, scale=float(np.sign(scale)) * 0.25)
    assert_allclose(run(q, k * tiny, v, MIXED, scale=scale), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize(("batch", "heads"), [(None, None), (None, 3), (2, 3), (0, 3)])
def test_leading_axes_may_be_missing(layout, batch, heads):
    problem = Problem(40, 50, MIXED, batch=batch, heads_q=heads, layout=layout)
    check_attention(problem, backend="cpu")
    q, k, v = problem.arrays()
    out = run(q, k, v, MIXED, layout=layout)
    assert out.shape == q.shape
    assert isinstance(out, np.ndarray)


def test_lse_is_float32_and_float64_for_float64():
    for dtype in DTYPES:
        _, lse = run(*Problem(8, 8, MIXED, dtype=dtype).arrays(), MIXED, return_lse=True)
        assert lse.dtype == (np.float64 if dtype == "float64" else np.float32)


def test_pattern_acsr_and_array_are_the_same_mask():
    q, k, v = Problem(100, 70, MIXED, heads_q=2).arrays()
    stored = ACSR.from_pattern(MIXED, 100, 70)
    for mask in (MIXED, stored, stored.to_dense()):
        problem = Problem(100, 70, mask, heads_q=2)
        check_attention(problem, backend="cpu")
    assert_same(run(q, k, v, stored), run(q, k, v, MIXED))


def test_one_mask_per_query_head_in_any_mixture_of_forms(rng):
    forms = [causal(), ACSR.from_pattern(MIXED, 33, 65), rng.random((33, 65)) < 0.3, causal()]
    for layout in ("bhsd", "bshd"):
        check_attention(Problem(33, 65, forms, batch=2, heads_q=4, heads_kv=2, layout=layout), backend="cpu")


def test_kv_lengths_of_any_integer_dtype_and_of_zero():
    problem = Problem(40, 60, MIXED.align_end(), batch=4, heads_q=2, kv_lengths=(0, 1, 59, 60))
    for dtype in (np.int32, np.int64, np.uint8):
        check_attention(problem, backend="cpu", kv_lengths=np.array(problem.kv_lengths, dtype))
    check_attention(problem, backend="cpu", kv_lengths=list(problem.kv_lengths))


def test_a_batch_and_rows_are_independent_of_each_other():
    q, k, v = Problem(65, 65, MIXED, batch=3, heads_q=2).arrays()
    out = run(q, k, v, MIXED)
    for b in range(3):
        assert_same(run(q[b], k[b], v[b], MIXED), out[b])


def test_large_scores_do_not_overflow():
    q, k, v = Problem(65, 65, MIXED).arrays()
    out, lse = run(q * 1e4, k * 1e4, v, MIXED, return_lse=True)
    assert np.isfinite(out).all()
    assert np.isfinite(lse).all()
    assert np.abs(out).max() <= np.abs(v).max() * (1 + 1e-5)


def test_results_repeat_bit_for_bit():
    q, k, v = Problem(129, 129, MIXED, batch=2, heads_q=3).arrays()
    first = run(q, k, v, MIXED)
    for _ in range(3):
        assert_array_equal(run(q, k, v, MIXED), first)


def test_a_subset_of_rows_of_a_long_sequence_agrees_with_the_oracle():
    """20,000 tokens: the work and memory must follow the kept pairs, or this test would not end."""
    mask = window(40, 0) | sinks(4)
    q, k, v = Problem(20_000, 20_000, mask).arrays()
    out = run(q, k, v, mask)
    rows = np.array([0, 1, 39, 63, 64, 9_999, 19_999])
    kept = np.zeros((len(rows), 20_000), bool)
    kv_idx = np.arange(20_000)
    for keep, row in zip(kept, rows, strict=True):
        keep[:] = ((kv_idx >= row - 40) & (kv_idx <= row)) | (kv_idx < 4)
    np.testing.assert_allclose(out[rows], reference.attention(q[rows], k, v, kept), atol=2e-6)
