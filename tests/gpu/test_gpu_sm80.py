"""Attention by a warp's matrix products on a GPU, against the oracle: the target sm80 where it is asked for."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba as splat
from splat_numba.gen.plans import problem as gen_problem
from splat_numba.gen.plans.machine import gpu_of
from splat_numba.gen.targets.sm80 import tile_shapes
from splat_numba.gen.targets.sm80.tile_shapes import candidates
from splat_numba.testing import Problem, check_attention, problems
from tests.gpu.device_views import DeviceView, back, forced
from tests.gpu.test_gpu_attention import VIEWS, on_device, poisoned
from tests.ops.attention_cases import CATALOGUE, MIXED, dense
from tests.profiles import draws

pytestmark = pytest.mark.gpu
TYPES = ("float16", "bfloat16")
NAMES = ["full", "causal", "dilated", "longformer", "mixed", "sparse transformer"]
# (head_dim, value_dim, dtype)
KINDS = (
    (1, 1, "float16"),
    (20, 20, "bfloat16"),
    (64, 64, "float16"),
    (64, 64, "bfloat16"),
    (80, 72, "float16"),
    (33, 17, "bfloat16"),
    (128, 128, "bfloat16"),
    (192, 128, "float16"),
    (256, 256, "bfloat16"),
    (24, 256, "float16"),
    (33, 17, "float32"),
    (64, 64, "float32"),
    (128, 128, "float32"),
)
fuzzed = settings(
    max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))


def check(problem):
    return check_attention(problem, backend="cuda", target="sm80")


def cuda(q, k, v, mask, **options):
    return splat.attention(q, k, v, mask, backend="cuda", target="sm80", **options)


def of_kind(problem, kind):
    head_dim, value_dim, dtype = kind
    return replace(problem, head_dim=head_dim, value_dim=value_dim, dtype=dtype)


@every_kind
@fuzzed
@given(data=st.data())
def test_any_problem(kind, data):
    check(of_kind(data.draw(problems(dtypes=("float16",), max_length=400)), kind))


@every_kind
@fuzzed
@given(data=st.data())
def test_any_key_lengths(kind, data):
    problem = data.draw(problems(dtypes=("float16",), max_length=300))
    batch = data.draw(st.sampled_from([1, 2, 5]))
    one = st.one_of(st.sampled_from([0, problem.seq_kv]), st.integers(0, problem.seq_kv))
    kv_lengths = tuple(data.draw(st.lists(one, min_size=batch, max_size=batch)))
    heads = problem.heads_q or 1
    check(of_kind(replace(problem, batch=batch, heads_q=heads, kv_lengths=kv_lengths), kind))


def shapes():
    """Every tile shape that the planner may choose for a few pairs of head dimensions."""
    for head_dim, value_dim, dtype in ((64, 64, "float16"), (128, 72, "bfloat16"), (256, 256, "float16")):
        for one in candidates(gen_problem.Problem(64, 64, head_dim, value_dim, dtype), gpu_of((9, 0))):
            yield pytest.param(one, id=f"{head_dim}x{value_dim}-{dtype}-{one.tile_q}x{one.tile_kv}")


@pytest.mark.parametrize("traits", list(shapes()))
def test_every_tile_shape_with_every_order_of_rows(traits, monkeypatch):
    rows, keys = traits.tile_q, traits.tile_kv
    kind = (traits.head_dim, traits.value_dim, traits.dtype)
    whole, split = splat.full(), splat.sparse_transformer_strided(13)
    cases = [
        ("order", whole, 2 * rows, 3 * keys, {}),
        ("order", whole, rows + 1, keys - 1, {}),
        ("order", splat.causal(), 3 * rows - 1, 3 * rows - 1, {"scale": -0.4}),
        ("order", splat.causal(), 333, 2 * keys + 1, {"kv_lengths": (2 * keys + 1, 0, keys + 1)}),
        ("residue", splat.dilated(20, 5), 401, 401, {}),
        ("residue", splat.strided(7), 401, 399, {"kv_lengths": (399, 21, 0)}),
        (", then ", split, 389, 389, {}),
        (", then ", split, 389, 389, {"kv_lengths": (389, 30, 200)}),
        ("grid", splat.neighborhood((20, 32), 7), 640, 640, {}),
    ]
    for order, mask, seq_q, seq_kv, options in cases:
        batch = 3 if "kv_lengths" in options else 2
        problem = Problem(seq_q, seq_kv, mask, batch=batch, heads_q=4, heads_kv=2, **options)
        with forced(monkeypatch, traits, order, tile_shapes):
            check(of_kind(problem, kind))


@pytest.mark.parametrize("dims", [(64, 64), (33, 17), (128, 64)], ids=str)
@settings(fuzzed, max_examples=draws(40))
@given(data=st.data())
def test_any_strides(dims, data):
    ways = [data.draw(st.sampled_from(sorted(VIEWS)), label=name) for name in ("q", "k", "v")]
    lines = data.draw(st.sampled_from([4, 1]), label="out in steps of")
    problem = Problem(170, 130, MIXED, "float16", 2, 4, 2, *dims, seed=data.draw(st.integers(0, 99)))

    def attend(q, k, v, mask, **options):
        arrays = [on_device(x, way) for x, way in zip((q, k, v), ways, strict=True)]
        root = np.full((2, 6, 179, lines * dims[1] + 5), 7, "float16")
        view = root[:, 1:-1, 4:-5, 2 : 2 + lines * dims[1] : lines]
        view[...] = np.nan
        out = DeviceView(root, view)
        _, lse = splat.attention(*arrays, mask, out=out, target="sm80", **options)
        after = out.root_back()
        result = after[:, 1:-1, 4:-5, 2 : 2 + lines * dims[1] : lines].copy()
        after[:, 1:-1, 4:-5, 2 : 2 + lines * dims[1] : lines] = 7
        assert (after == 7).all(), "numbers beside out were written"
        return result, back(lse)

    check_attention(problem, attention=attend)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_results_repeat_bit_for_bit(name, dtype):
    q, k, v = Problem(777, 777, CATALOGUE[name], dtype, batch=3, heads_q=6, head_dim=64).arrays()
    first, first_lse = cuda(q, k, v, CATALOGUE[name], return_lse=True)
    for _ in range(5):
        out, lse = cuda(q, k, v, CATALOGUE[name], return_lse=True)
        assert out.tobytes() == first.tobytes()
        assert_array_equal(lse, first_lse)


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_values_beyond_kv_lengths_never_reach_anything(name):
    mask = CATALOGUE[name]
    q, k, v = Problem(333, 333, mask, "float16", batch=4, heads_q=2, head_dim=64).arrays()
    kv_lengths = np.array([0, 63, 100, 332])
    clean, clean_lse = cuda(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    for b, length in enumerate(kv_lengths):
        k[b, :, length:] = v[b, :, length:] = np.nan
    out, lse = cuda(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    assert_array_equal(out, clean)
    assert_array_equal(lse, clean_lse)
    assert_array_equal(out[0], 0)
    assert_array_equal(lse[0], -np.inf)


@pytest.mark.parametrize("name", NAMES)
def test_a_non_finite_key_never_reaches_rows_that_do_not_keep_it(name):
    mask = CATALOGUE[name]
    q, k, v = Problem(333, 333, mask, "float16", heads_q=2, head_dim=64).arrays()
    keys = [40, 64, 100, 300]
    clean = cuda(q, k, v, mask)
    out = cuda(q, poisoned(k, keys, np.nan), v, mask)
    free = ~dense(mask, 333, 333)[:, keys].any(axis=1)
    assert_array_equal(out[:, free], clean[:, free])
    assert np.isnan(out[:, ~free]).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_a_long_sequence(dtype):
    """Many waves of items: heads of 3,000 tokens against the oracle."""
    check(Problem(3000, 3000, splat.window(200) | splat.sinks(4), dtype, 1, 6, 2, head_dim=128))
