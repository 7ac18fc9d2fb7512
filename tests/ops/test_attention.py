"""`attention` on the CPU against the oracle: fuzzed, and every promise of the interface by name.

Tests share masks and head_dim where they can, because a new pattern, dtype or head_dim is a new kernel to compile.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.testing import assert_allclose, assert_array_equal

from splat_numba import reference
from splat_numba.api import attention, compile
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import (
    bigbird,
    blocked,
    causal,
    columns,
    dilated,
    full,
    global_tokens,
    longformer,
    prefix,
    sinks,
    sparse_transformer_strided,
    strided,
    window,
)
from splat_numba.testing import DTYPES, Problem, check_attention, masks, numpy_dtype, problems

EXPLORING = settings.get_current_profile_name() == "explore"
MIXED = window(5, 3) | strided(7) | sinks(2)  # two bands and a dense stripe
EDGES = (0, 1, 2, 3, 5, 7, 13, 31, 61, 63, 64, 65, 97, 127, 128, 129)
CATALOGUE = {
    "full": full(),
    "causal": causal(),
    "causal at the end": causal().align_end(),
    "window": window(20, 9),
    "window at the end": window(30, 0).align_end(),
    "dilated": dilated(4, 5),
    "strided": strided(16),
    "columns": columns(9, 4, 3),
    "blocked": blocked(24, 1),
    "prefix": prefix(40),
    "global": global_tokens((0, 33, 34)),
    "longformer": longformer(12, 5),
    "bigbird": bigbird(8, 3, 1, 2, seed=3),
    "sparse transformer": sparse_transformer_strided(11),
    "mixed": MIXED,
}


def run(q, k, v, mask, **options):
    return attention(q, k, v, mask, backend="cpu", **options)


def assert_same(got, wanted, err_msg=""):
    """Equal up to the order of float32 sums, which may depend on memory layout and on neighbouring rows."""
    assert_allclose(got, wanted, rtol=1e-5, atol=2e-6, err_msg=err_msg)


def dense(mask, seq_q, seq_kv):
    return ACSR.from_pattern(mask, seq_q, seq_kv).to_dense()


# Few, because nearly every one is a kernel of its own, which takes seconds to compile.
@settings(max_examples=500 if EXPLORING else 15, suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=DTYPES))
def test_any_problem_agrees_with_the_oracle(problem):
    check_attention(problem, backend="cpu")


def stored_masks(seq_q, seq_kv):
    """Patterns as ACSR: kernels of stored masks depend on no mask, so that many are cheap to try."""
    return masks(seq_q, seq_kv).map(
        lambda mask: mask if isinstance(mask, ACSR | np.ndarray) else ACSR.from_pattern(mask, seq_q, seq_kv)
    )


@settings(max_examples=1000 if EXPLORING else 100, suppress_health_check=[HealthCheck.too_slow])
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


# Memory: strides, out, what is read and what is written.


def views(x):
    """The same numbers in other memory layouts."""
    yield "reversed", x[..., ::-1, :].copy()[..., ::-1, :]
    yield "every second number", np.repeat(x, 2, axis=-1)[..., ::2]
    yield "every third row", np.repeat(x, 3, axis=-2)[..., ::3, :]
    yield "Fortran order", np.asfortranarray(x)
    yield "heads last in memory", np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
    yield "part of a larger array", np.pad(x, [(0, 0), (1, 1), (2, 3), (1, 4)])[:, 1:-1, 2:-3, 1:-4]


def test_arrays_of_any_strides_give_the_same_result():
    problem = Problem(40, 70, MIXED, batch=2, heads_q=2)
    q, k, v = problem.arrays()
    wanted = run(q, k, v, MIXED)
    for (name, q1), (_, k1), (_, v1) in zip(views(q), views(k), views(v), strict=True):
        assert_array_equal(q1, q)
        assert_same(run(q1, k1, v1, MIXED), wanted, err_msg=name)
        assert_same(run(q1, k, v1, MIXED), wanted, err_msg=name)


def test_a_head_broadcast_by_stride_zero_and_read_only_inputs():
    q, k, v = Problem(40, 70, MIXED, batch=2, heads_q=2).arrays()
    k1, v1 = (np.broadcast_to(x[:, :1], x.shape) for x in (k, v))
    q.flags.writeable = False
    assert_same(run(q, k1, v1, MIXED), run(q, k[:, :1], v[:, :1], MIXED))


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_out_is_filled_and_returned(layout):
    problem = Problem(40, 70, MIXED, batch=2, heads_q=4, heads_kv=2, value_dim=9, layout=layout)
    q, k, v = problem.arrays()
    wanted, wanted_lse = run(q, k, v, MIXED, layout=layout, return_lse=True)
    for _, out in views(np.full(wanted.shape, np.nan, np.float32)):
        got, lse = run(q, k, v, MIXED, layout=layout, out=out, return_lse=True)
        assert got is out
        assert_same(out, wanted)
        assert_same(lse, wanted_lse)
    assert run(q, k, v, MIXED, layout=layout, out=out) is out


def test_only_out_itself_is_written():
    q, k, v = Problem(40, 70, MIXED, batch=1, heads_q=2).arrays()
    frame = np.full((1, 4, 44, 20), 7, np.float32)
    out = frame[:, 1:3, 2:-2, 2:-2]
    run(q, k, v, MIXED, out=out)
    frame[:, 1:3, 2:-2, 2:-2] = 7
    assert (frame == 7).all()


def outs_that_do_not_fit():
    memory = np.zeros(4000, np.float32)
    q = memory[:1280].reshape(1, 2, 40, 16)
    read_only = np.zeros(q.shape, np.float32)
    read_only.flags.writeable = False
    yield "shape", q, np.zeros((1, 2, 40, 17), np.float32)
    yield "dtype", q, np.zeros(q.shape, np.float64)
    yield "read-only", q, read_only
    yield "is q", q, q
    yield "overlaps q", q, memory[1000:2280].reshape(q.shape)
    yield "overlaps itself", q, np.lib.stride_tricks.as_strided(memory[1300:], q.shape, (0, 0, 64, 4))
    yield "not an array", q, q.tolist()


@pytest.mark.parametrize(
    ("name", "q", "out"), list(outs_that_do_not_fit()), ids=lambda x: x if isinstance(x, str) else ""
)
def test_an_out_that_does_not_fit_is_refused_and_left_alone(name, q, out):
    _, k, v = Problem(40, 70, MIXED, batch=1, heads_q=2).arrays()
    before = np.array(out)
    with pytest.raises(ArgumentError, match=r"^out"):
        run(q, k, v, MIXED, out=out)
    assert_array_equal(out, before, err_msg=name)


# What does not fit.


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"q": np.zeros(5, np.float32)}, "q"),
        ({"k": np.zeros((2, 2, 6, 4), np.float32)}, "k"),
        ({"k": np.zeros((2, 3, 6, 5), np.float32), "v": np.zeros((2, 3, 6, 7), np.float32)}, "k"),
        ({"v": np.zeros((2, 2, 5, 7), np.float32)}, "v"),
        ({"v": np.zeros((2, 2, 6, 7), np.float64)}, "v"),
        ({"mask": np.ones((6, 3), bool)}, "mask"),
        ({"mask": np.ones((1, 6), bool)}, "mask"),
        ({"mask": np.ones((4, 3, 6), bool)}, "mask"),
        ({"mask": [causal()] * 3}, "mask"),
        ({"mask": ACSR.from_dense(np.ones((3, 5), bool))}, "mask"),
        ({"layout": "sbhd"}, "layout"),
        ({"scale": np.nan}, "scale"),
        ({"kv_lengths": np.array([1])}, "kv_lengths"),
        ({"kv_lengths": np.array([1, 7])}, "kv_lengths"),
        ({"kv_lengths": np.array([1, -1])}, "kv_lengths"),
    ],
)
def test_what_does_not_fit_is_an_argument_error_with_its_name(change, start):
    good = {
        "q": np.zeros((2, 4, 3, 5), np.float32),
        "k": np.zeros((2, 2, 6, 5), np.float32),
        "v": np.zeros((2, 2, 6, 7), np.float32),
        "mask": causal(),
    }
    with pytest.raises(ArgumentError, match=f"^{start}"):
        run(**{**good, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"q": np.zeros((3, 5), np.int32)},
        {"q": np.zeros((3, 5), np.complex64)},
        {"mask": np.ones((3, 6))},
        {"mask": "causal"},
        {"mask": None},
        {"kv_lengths": np.array([1.5, 2.0])},
    ],
)
def test_wrong_types_are_type_errors_too(change):
    good = {"q": np.zeros((2, 1, 3, 5)), "k": np.zeros((2, 1, 6, 5)), "v": np.zeros((2, 1, 6, 7)), "mask": causal()}
    with pytest.raises(TypeError) as caught:
        run(**{**good, **change})
    assert isinstance(caught.value, ArgumentTypeError | ValueError)
    assert str(caught.value).startswith(next(iter(change)))


# Non-finite numbers.


def poisoned(shape_of, places, bad):
    x = shape_of.copy()
    x[..., places, :] = bad
    return x


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["full", "causal", "dilated", "longformer", "mixed"])
def test_a_non_finite_query_makes_its_own_row_nan_and_no_other(name, bad):
    mask = CATALOGUE[name]
    q, k, v = Problem(129, 129, mask, heads_q=2).arrays()
    rows = [0, 17, 63, 64, 128]
    clean, clean_lse = run(q, k, v, mask, return_lse=True)
    out, lse = run(poisoned(q, rows, bad), k, v, mask, return_lse=True)
    others = np.setdiff1d(np.arange(129), rows)
    assert np.isnan(out[:, rows]).all()
    assert np.isnan(lse[:, rows]).all()
    assert_same(out[:, others], clean[:, others])
    assert_same(lse[:, others], clean_lse[:, others])


def test_a_non_finite_query_of_an_empty_row_gives_zero_and_minus_infinity():
    mask = dense(MIXED, 70, 70)
    mask[[3, 64]] = False
    q, k, v = Problem(70, 70, mask).arrays()
    out, lse = run(poisoned(q, [3, 64], np.nan), k, v, mask, return_lse=True)
    assert_array_equal(out[[3, 64]], 0)
    assert_array_equal(lse[[3, 64]], -np.inf)
    assert np.isfinite(np.delete(out, [3, 64], axis=0)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["causal", "window", "dilated", "strided", "blocked", "longformer", "bigbird", "mixed"]
)
def test_a_non_finite_key_never_reaches_rows_that_do_not_keep_it(name, bad):
    mask = CATALOGUE[name]
    q, k, v = Problem(129, 129, mask, heads_q=2).arrays()
    keys = [40, 64, 100]
    clean = run(q, k, v, mask)
    out = run(q, poisoned(k, keys, bad), v, mask)
    free = ~dense(mask, 129, 129)[:, keys].any(axis=1)
    assert free.any()
    assert_same(out[:, free], clean[:, free])
    if np.isnan(bad):
        assert np.isnan(out[:, ~free]).all()


@pytest.mark.parametrize("name", ["causal", "longformer", "mixed"])
def test_keys_and_values_beyond_kv_lengths_never_reach_anything(name):
    mask = CATALOGUE[name]
    q, k, v = Problem(129, 129, mask, batch=3, heads_q=2).arrays()
    kv_lengths = np.array([0, 63, 100])
    clean, clean_lse = run(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    for b, length in enumerate(kv_lengths):
        k[b, :, length:] = v[b, :, length:] = np.nan
    out, lse = run(q, k, v, mask, kv_lengths=kv_lengths, return_lse=True)
    assert_same(out, clean)
    assert_same(lse, clean_lse)
    assert_array_equal(out[0], 0)
    assert_array_equal(lse[0], -np.inf)


@pytest.mark.parametrize("name", ["full", "causal", "dilated", "mixed"])
@pytest.mark.parametrize("seq", [1, 63, 65, 101])
def test_memory_outside_the_arrays_never_reaches_anything(name, seq):
    """The arrays are windows of larger ones full of NaN: reading past an end, or past a row, would show."""
    mask = CATALOGUE[name]
    arrays = Problem(seq, seq, mask, batch=2, heads_q=2).arrays()
    framed = []
    for x in arrays:
        frame = np.full((2, 4, seq + 150, x.shape[-1] + 20), np.nan, np.float32)
        inner = frame[:, 1:3, 75:-75, 10:-10]
        inner[...] = x
        framed.append(inner)
    assert_same(run(*framed, mask), run(*arrays, mask))


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


def test_mixed_dtypes_are_refused_rather_than_converted():
    q, k, v = Problem(8, 8, MIXED).arrays()
    for name in DTYPES:
        other = k.astype(numpy_dtype(name))
        if other.dtype != q.dtype:
            with pytest.raises(ArgumentError, match=r"^k"):
                run(q, other, v, MIXED)
