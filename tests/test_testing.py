"""The tolerance rule accepts honest kernels of every dtype and refuses small mistakes; strategies do as they say."""

import re
from math import sqrt

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import splat_numba
from splat_numba import reference
from splat_numba.errors import ArgumentError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import _MAKERS, Pattern
from splat_numba.testing import (
    DTYPES,
    Problem,
    assert_close,
    check_attention,
    check_gradients,
    lengths,
    masks,
    numpy_dtype,
    patterns,
    problems,
    tolerance,
)


@np.errstate(divide="ignore", invalid="ignore")  # log of 0; BLAS flags products with -inf, whatever comes out
def tiled_attention(q, k, v, mask, *, return_lse, scale=None, layout="bhsd", kv_lengths=None, tile=16, mistake=None):
    """An honest kernel: online softmax over tiles in float32, weights in the arrays' dtype, as tensor cores do."""
    dtype, ndim = q.dtype, q.ndim
    wide = np.float64 if dtype == np.float64 else np.float32
    q4, k4, v4 = (reference.four_axes("x", x, ndim, layout).astype(wide) for x in (q, k, v))
    group = q4.shape[1] // k4.shape[1]
    k4, v4 = k4.repeat(group, axis=1), v4.repeat(group, axis=1)
    keep = np.stack(reference.dense_masks(mask, q4.shape[1], q4.shape[2], k4.shape[2]))
    keep = keep & reference.valid_keys(kv_lengths, len(q4), k4.shape[2], has_batch=ndim == 4)[:, None, None]
    if mistake is not None:
        mistake(keep)
    factor = wide(1 / sqrt(q.shape[-1]) if scale is None else scale)
    top = np.full((*q4.shape[:3], 1), -np.inf, wide)
    total = np.zeros_like(top)
    out = np.zeros((*q4.shape[:3], v4.shape[3]), wide)
    for start in range(0, k4.shape[2], tile):
        part = slice(start, start + tile)
        scores = np.where(keep[..., part], factor * (q4 @ k4[..., part, :].swapaxes(2, 3)), -np.inf).astype(wide)
        new = np.maximum(top, scores.max(-1, keepdims=True))
        safe = np.where(np.isfinite(new), new, 0)
        weights, old = np.exp(scores - safe), np.exp(top - safe)
        total = total * old + weights.sum(-1, keepdims=True)
        out = out * old + weights.astype(dtype).astype(wide) @ v4[..., part, :]
        top = new
    lse = (np.where(np.isfinite(top), top, 0) + np.log(total))[..., 0]
    out = (out / np.where(total, total, 1)).astype(dtype)
    out = out.swapaxes(1, 2) if layout == "bshd" else out
    out, lse = out.reshape((*q.shape[:-1], v.shape[-1])), lse.reshape(lse.shape[4 - ndim :])
    return (out, lse) if return_lse else out


def dense(problem):
    """The same problem with its mask as arrays, for implementations that take nothing else."""
    mask = problem.dense_mask()
    return lambda q, k, v, _, **options: tiled_attention(q, k, v, mask, **options)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=DTYPES))
def test_an_honest_kernel_is_within_tolerance(problem):
    assert check_attention(problem, attention=dense(problem)).used <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])
def test_an_honest_kernel_is_within_tolerance_on_long_rows(dtype, spread):
    problem = Problem(64, 2048, np.ones((64, 2048), bool), dtype=dtype, head_dim=128, spread=spread)
    # Rounding the weights and the result to a narrow dtype may cost nearly all that is allowed; float32 sums do not.
    assert check_attention(problem, attention=dense(problem)).used < (0.5 if dtype in {"float32", "float64"} else 1)


def lose(keep):
    """Drop one kept key of one row: the last row's last."""
    keep[..., -1, keep.shape[-1] - 1 - keep[0, 0, -1, ::-1].argmax()] = False


def win(keep):
    """Keep one more key of one row."""
    keep[..., -1, keep[0, 0, -1].argmin()] = True


def cut(keep):
    """A wrong tile edge: the last tile of 16 keys ends one column early."""
    keep[..., keep.shape[-1] - 1 :] = False


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", [lose, win, cut])
@pytest.mark.parametrize("seq", [5, 64, 1000])
@pytest.mark.parametrize("head_dim", [8, 128])
def test_one_lost_or_added_key_is_found_in_every_dtype(dtype, mistake, seq, head_dim):
    mask = np.random.default_rng(seq).random((7, seq)) < 0.7
    mask[-1, :2] = True, False
    mask[:, -1] = True
    problem = Problem(7, seq, mask, dtype=dtype, batch=1, heads_q=1, head_dim=head_dim)
    check_attention(problem, attention=dense(problem))
    with pytest.raises(AssertionError):
        check_attention(
            problem,
            attention=lambda q, k, v, m, **options: tiled_attention(q, k, v, m, mistake=mistake, **options),
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_vector_that_is_skipped_is_found_without_lse(dtype):
    """lse does not see values, so out alone must find a tile of values that is off by one row."""
    problem = Problem(16, 200, np.ones((16, 200), bool), dtype=dtype, head_dim=64)
    q, k, v = problem.arrays()
    wrong = v.copy()
    wrong[64] = wrong[65]
    allowed, _ = tolerance(q, k, v, problem.mask)
    got = reference.attention(q, k, wrong, problem.mask)
    with pytest.raises(AssertionError):
        assert_close(got, reference.attention(q, k, v, problem.mask), allowed)


def test_a_failure_names_the_problem_the_index_and_the_numbers():
    problem = Problem(2, 3, splat_numba.formats.patterns.causal(), head_dim=4, value_dim=1, seed=5)

    def wrong(q, k, v, _mask, **options):
        out, lse = reference.attention(q, k, v, problem.dense_mask(), **options)
        out[1, 0] += 1
        return out.astype(np.float32), lse.astype(np.float32)

    with pytest.raises(AssertionError) as caught:
        check_attention(problem, attention=wrong)
    number = r"-?[\d.e-]+"
    assert re.fullmatch(
        rf"out\[1, 0\]: wanted {number}, got {number}, error 1, allowed {number} "
        r"\(1 of 2 elements differ by more than allowed\)\n"
        r"in Problem\(2, 3, causal\(\), head_dim=4, value_dim=1, seed=5\), no options",
        str(caught.value),
    )


def test_wrong_dtype_shape_and_writing_to_inputs_are_failures():
    problem = Problem(2, 3, np.ones((2, 3), bool))

    def run(change):
        def attention(q, k, v, mask, **options):
            return change(q, *(x.astype(np.float32) for x in reference.attention(q, k, v, mask, **options)))

        check_attention(problem, attention=attention)

    run(lambda _, out, lse: (out, lse))
    with pytest.raises(AssertionError, match="out: wanted float32, got float64"):
        run(lambda _, out, lse: (out.astype(float), lse))
    with pytest.raises(AssertionError, match=r"lse: wanted shape \(2,\), got \(2, 1\)"):
        run(lambda _, out, lse: (out, lse[:, None]))
    with pytest.raises(AssertionError, match="q: wanted it unchanged, but the call wrote to it"):
        run(lambda q, out, lse: (q.fill(0), (out, lse))[1])


@pytest.mark.parametrize("check", [check_attention, check_gradients])
def test_what_is_no_problem_is_refused_by_name(check):
    with pytest.raises(ArgumentError) as caught:
        check(3)
    wanted = "problem wanted as a splat_numba.testing.Problem, got int. Make one, such as Problem(64, 64, "
    assert str(caught.value) == f"{wanted}splat_numba.causal())."


def test_nan_and_inf_must_be_equal():
    special = [np.nan, np.inf, -np.inf]
    assert assert_close(special, special, np.ones(3)) == 0
    for wanted, got in [(np.nan, 0.0), (0.0, np.nan), (np.inf, -np.inf), (np.inf, 1e300)]:
        with pytest.raises(AssertionError, match=r"^lse\[0\]: wanted"):
            assert_close([got], [wanted], [np.inf], name="lse")


def test_a_subset_of_rows_has_the_same_tolerance(rng):
    q, k, v = rng.standard_normal((3, 2, 8, 4)).astype(np.float32)
    mask = rng.random((8, 8)) < 0.5
    rows = [1, 5, 6]
    for whole, part in zip(tolerance(q, k, v, mask), tolerance(q[:, rows], k, v, mask[rows]), strict=True):
        np.testing.assert_allclose(part, whole[:, rows], rtol=1e-12)


def test_other_dtypes_are_refused(rng):
    q = rng.standard_normal((3, 4)).astype(np.complex64)
    with pytest.raises(TypeError, match=r"^dtype: wanted one of float16, bfloat16, float32, float64, got complex64;"):
        tolerance(q, q, q, np.ones((3, 3), bool))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=DTYPES, max_length=17))
def test_the_repr_of_a_problem_repeats_it(problem):
    names = {**vars(splat_numba.formats.patterns), "from_csr": ACSR.from_csr, "np": np, "Problem": Problem}
    again = eval(repr(problem), names)  # noqa: S307  # what the claim is about
    for a, b in zip(problem.arrays(), again.arrays(), strict=True):
        assert a.tobytes() == b.tobytes()
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert_array_equal(np.array(again.dense_mask()), np.array(problem.dense_mask()))
    assert repr(again.options()) == repr(problem.options())


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(problems(), problems(dtypes=["bfloat16"], max_length=3, max_head_dim=4))
def test_problems_fit_their_own_description(any_problem, small):
    for problem in (any_problem, small):
        q, k, v = problem.arrays()
        reference.attention(q, k, v, problem.dense_mask(), **problem.options())
        assert q.dtype == numpy_dtype(problem.dtype)
    assert max(small.seq_q, small.seq_kv) <= 3
    assert small.head_dim <= 4


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_patterns_and_masks_fit_the_lengths_given(data):
    seq_q, seq_kv = data.draw(lengths(40)), data.draw(lengths(40))
    pattern = data.draw(patterns(seq_q, seq_kv))
    assert ACSR.from_pattern(pattern, seq_q, seq_kv).shape == (seq_q, seq_kv)
    mask = data.draw(masks(seq_q, seq_kv))
    assert isinstance(mask, Pattern) or mask.shape == (seq_q, seq_kv)
    anywhere = data.draw(masks())
    if isinstance(anywhere, Pattern):
        ACSR.from_pattern(anywhere, seq_q, seq_kv)


COMBINATIONS = ("Union", "Intersection", "AlignEnd")


@pytest.mark.parametrize("kind", [*(leaf.__name__ for leaf in _MAKERS), *COMBINATIONS])
def test_patterns_draws_every_kind(kind):
    from hypothesis import find

    found = find(patterns(12, 12), lambda pattern: type(pattern).__name__ == kind, settings=settings(max_examples=3000))
    assert isinstance(found, Pattern)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        splat_numba.testing.nonsense  # noqa: B018
