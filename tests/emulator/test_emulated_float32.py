"""float32 by products of TF32, run on NumPy: forward and gradients against the oracle; extreme numbers; faults."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba import reference
from splat_numba.errors import ArgumentError
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.lane_values import round_tf32
from splat_numba.gen.plans.backward import KEYS, QUERIES
from splat_numba.gen.targets.sm80 import tile_shapes
from splat_numba.gen.targets.sm80.backward import tile_shapes as gradient_shapes
from splat_numba.gen.targets.sm80.shape import atoms_of
from splat_numba.testing import Problem, check_attention, check_gradients, masks, patterns, problems
from splat_numba.testing.error_bound import tolerance
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.planted_faults import check_found
from tests.gpu.device_views import forced, forced_gradients
from tests.profiles import draws

SM80 = {"backend": "emulate", "target": "sm80"}
PROBLEMS = {
    "no mask": Problem(66, 70, splat.full(), "float32", 1, 2, 1, head_dim=12),
    "another layout": Problem(40, 40, splat.causal(), "float32", 1, 1, head_dim=40, layout="bshd"),
    "key lengths": Problem(70, 90, splat.causal(), "float32", 3, 1, head_dim=8, value_dim=20, kv_lengths=(0, 33, 90)),
    "a mask a head": Problem(40, 40, [splat.causal(), splat.window(9)], "float32", 1, 2, 1, head_dim=7, value_dim=5),
    "negative scale": Problem(40, 40, splat.window(30), "float32", 1, 1, head_dim=4, scale=-0.3),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_results_and_gradients_agree_with_the_oracle(name):
    check_attention(PROBLEMS[name], **SM80)
    check_gradients(PROBLEMS[name], **SM80)


# Groups, keys of a tile, stages, atoms.
SHAPES = ((1, 16, 1, 1), (2, 64, 2, 1), (2, 32, 2, 2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_kind_of_tile(shape, monkeypatch):
    """Groups skip tiles that the other one wants, and have masks of their own."""
    *sizes, atoms = shape
    boxes = Traits(24, 24, "float32", *sizes, 1)
    assert atoms_of(boxes) == atoms
    seq = 64 * boxes.groups + 9
    problem = Problem(seq, seq - 4, splat.window(9), "float32", 1, 1, head_dim=24)
    with forced(monkeypatch, boxes, shapes=tile_shapes):
        check_attention(problem, **SM80)
    of_queries = forced_gradients(monkeypatch, QUERIES, boxes, shapes=gradient_shapes)
    with of_queries, forced_gradients(monkeypatch, KEYS, boxes, shapes=gradient_shapes):
        check_gradients(problem, **SM80)


@settings(max_examples=draws(3), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_through_the_runtime(monkeypatch, data):
    """Strides, copies, keys that are infinite, and packed parameters as on a GPU."""
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=("float32",), max_length=60, mask=mask))
    problem = replace(problem, head_dim=data.draw(st.sampled_from([1, 20, 33])), value_dim=17)
    with monkeypatch.context() as patch:
        emulated(patch)
        check_attention(problem, backend="cuda", target="sm80")
    forget_emulated()


LARGEST = float(np.finfo(np.float32).max)  # beyond the largest number of TF32, to which it would round up to infinity
TINY = 2.0**-127  # subnormal


@pytest.mark.parametrize("what", ["queries", "keys", "values", "subnormal keys", "subnormal values"])
def test_numbers_that_tf32_has_not(what):
    q, k, v = (one.copy() for one in Problem(20, 20, splat.full(), "float32", 1, 1, head_dim=8).arrays())
    scale = 1.0
    if what == "queries":
        q[0, 0, ::3, 0], k[..., 0] = LARGEST, 2.0**-124
    elif what == "keys":
        k[0, 0, ::3, 0], q[..., 0] = LARGEST, 2.0**-124
    elif what == "values":
        v[0, 0, :, ::3] = LARGEST * np.array([1, 0.9999], np.float32).repeat(10)[:, None]
    elif what == "subnormal keys":
        k[...], scale = TINY, 2.0**126
    else:
        v[...] = TINY
    mask = np.ones((20, 20), np.bool_)
    wanted = reference.attention(q, k, v, mask, scale=scale)
    allowed, _ = tolerance(q, k, v, mask, scale=scale)
    if what == "values":  # a sum of weights times these is infinite before it is divided, in float32 too
        v, wanted, allowed = v / 256, wanted / 256, allowed / 256
    got = splat.attention(q, k, v, splat.full(), scale=scale, **SM80)
    assert np.isfinite(got).all()
    assert (np.abs(got - wanted) <= allowed).all()


def test_infinite_and_nan_queries_and_keys_reach_what_they_reach_in_float32():
    q, k, v = (one.copy() for one in Problem(40, 40, splat.causal(), "float32", 1, 1, head_dim=8).arrays())
    q[0, 0, 30, 2], q[0, 0, 31, 1] = np.inf, np.nan
    k[0, 0, 33] = np.nan
    q[..., 0] = np.abs(q[..., 0])
    k[0, 0, 20, 0] = -np.inf
    wanted, wanted_lse = reference.attention(q, k, v, np.tri(40, dtype=np.bool_), return_lse=True)
    got, lse = splat.attention(q, k, v, splat.causal(), return_lse=True, **SM80)
    assert_array_equal(np.isnan(got), np.isnan(wanted))
    assert_array_equal(np.isnan(lse), np.isnan(wanted_lse))
    assert np.isnan(wanted_lse[0, 0, [30, 31, 33]]).all()
    assert np.isfinite(wanted_lse[0, 0, [20, 32]]).all()


def rounded(array):
    return round_tf32(array.reshape(-1).view(np.uint32)).view(np.float32).reshape(array.shape)


def test_one_product_of_tf32_where_it_is_asked_for():
    """Operands are rounded, and so are weights; what is added up is not."""
    problem = Problem(70, 80, splat.causal(), "float32", 1, 2, 1, head_dim=20)
    q, k, v = problem.arrays()
    made, mask = [rounded(one) for one in (q, k, v)], problem.dense_mask()
    wanted, (allowed, _) = reference.attention(*made, mask), tolerance(*made, mask)
    allowed += 2.0**-11 * reference.attention(*made[:2], np.abs(made[2]), mask)
    options = {**SM80, "precision": "tf32"}
    got = splat.attention(q, k, v, problem.mask, **options)
    assert (np.abs(got - wanted) <= allowed).all()
    assert (np.abs(got - reference.attention(q, k, v, mask)) > tolerance(q, k, v, mask)[0]).any()
    kernel = splat.compile(
        problem.mask, seq_q=70, seq_kv=80, head_dim=20, heads_q=2, heads_kv=1, dtype="float32", **options
    )
    assert_array_equal(kernel(q, k, v), got)
    assert ", float32, precision tf32\n" in kernel.explain()


def test_gradients_by_one_product_of_tf32():
    q, k, v = Problem(40, 40, splat.causal(), "float32", 1, 1, head_dim=8).arrays()
    exact, rough = (
        splat.attention_vjp(q, k, v, splat.causal(), precision=precision, **SM80)[1](v)
        for precision in ("ieee", "tf32")
    )
    for one, other in zip(exact, rough, strict=True):
        difference = np.abs(one - other).max()
        assert 0 < difference < 2.0**-8 * np.abs(one).max()


@pytest.mark.parametrize(
    ("dtype", "options", "message"),
    [
        (
            "float16",
            {},
            "precision wanted as 'ieee' with arrays of float16, whose products are as they are, got 'tf32'.",
        ),
        ("float32", {"target": "simt"}, "precision wanted as 'ieee' for target 'simt', which has no products of TF32,"),
        (
            "float32",
            {"backend": "cpu"},
            "precision wanted as 'ieee' for backend 'cpu', which makes products as float32,",
        ),
        (
            "float32",
            {"precision": "fast"},
            "precision wanted as 'ieee' or 'tf32', got 'fast'. Leave it out for 'ieee'.",
        ),
    ],
    ids=["16 bits", "FMA units", "a CPU", "another word"],
)
def test_a_precision_that_is_not_there_is_refused_by_name(dtype, options, message):
    q, k, v = Problem(8, 8, splat.full(), dtype, 1, 1, head_dim=8).arrays()
    given = {"backend": "emulate", "precision": "tf32", **options}
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        splat.attention(q, k, v, splat.full(), **given)
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        splat.plan(splat.full(), seq_q=8, seq_kv=8, head_dim=8, dtype=dtype, **given)


FAULTY = Problem(70, 60, splat.causal(), "float32", 1, 2, 1, head_dim=12, value_dim=20, scale=3.0, kv_lengths=(50,))
FAULTS = {
    "the rest of what is left": (r"(a_0, r_0) = (ptx\.split_rounded\(a_0\))", r"\1 = \2[0], u32(0)"),
    "the rest of what is right": (r"(b_1, s_1) = (ptx\.split_truncated\(b_1\))", r"\1 = \2[0], u32(0)"),
    "the rest of what is right of weights": (r"(b_1, s_1) = (ptx\.split_by_mask\(b_1, mask\))", r"\1 = \2[0], u32(0)"),
    "where queries' rests are": (r"(store_shared_words4\(u32\(at \+ u32\()\d+(\)\), r_0)", r"\g<1>0\2"),
    "which keys": (r"(score_0\[first \+ )2(.*score_0\[first \+ )1\]", r"\g<1>1\g<2>2]"),
    "which columns": (r"x_0, y_0 = ptx", "y_0, x_0 = ptx"),
    "columns that are stored": (r"u64\(8\) \* u64\(column\)", "u64(16) * u64(column)"),
    "a sum that is added": (r"total_0\[at \+ i\] \+= part_0\[i\]", "total_0[at + i] = part_0[i]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    check_found(monkeypatch, lambda: check_attention(FAULTY, backend="cuda", target="sm80"), *FAULTS[fault])
