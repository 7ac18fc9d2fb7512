"""The tolerance rule of gradients accepts honest kernels of every dtype and refuses small mistakes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings

from splat_numba import reference
from splat_numba.formats import patterns as p
from splat_numba.testing import DTYPES, Problem, assert_close, gradient_tolerance, problems
from tests.test_testing import tiled_attention


def honest_backward(dout, q, k, v, mask, *, dlse, scale, layout, kv_lengths, folded=False, mistake=None):
    """Weights made again from the stored lse, delta from the stored out, p and ds in the arrays' dtype, sums wide.

    folded: the scale is taken into ds before it is rounded. mistake: changes p, dp, delta or ds in place, by name.
    """
    options = {"scale": scale, "layout": layout, "kv_lengths": kv_lengths}
    out, lse = tiled_attention(q, k, v, mask, return_lse=True, **options)
    dtype, ndim, wide = q.dtype, q.ndim, np.float64 if q.dtype == np.float64 else np.float32
    q4, k4, v4, out4, dout4 = (reference.four_axes("x", x, ndim, layout).astype(wide) for x in (q, k, v, out, dout))
    heads_kv = k4.shape[1]
    group = q4.shape[1] // heads_kv
    k4, v4 = k4.repeat(group, axis=1), v4.repeat(group, axis=1)
    keep = np.stack(reference.dense_masks(mask, q4.shape[1], q4.shape[2], k4.shape[2]))
    keep = keep & reference.valid_keys(kv_lengths, len(q4), k4.shape[2], has_batch=ndim == 4)[:, None, None]
    factor = wide(1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    lse4 = np.where(np.isfinite(lse), lse, 0).reshape(*q4.shape[:3], 1).astype(wide)
    step = {"p": np.where(keep, np.exp(np.where(keep, factor * (q4 @ k4.swapaxes(2, 3)) - lse4, 0)), 0).astype(wide)}
    step["dp"] = dout4 @ v4.swapaxes(2, 3)
    step["delta"] = (dout4 * out4).sum(-1, keepdims=True) - dlse.reshape(lse4.shape).astype(wide)
    if mistake is not None:
        mistake(step)
    ds = step["p"] * (step["dp"] - step["delta"])
    before, after = (factor, 1) if folded else (1, factor)
    ds, weights = ((x.astype(dtype)).astype(wide) for x in (before * ds, step["p"]))

    def shared(x):
        return x.reshape(len(x), heads_kv, group, *x.shape[2:]).sum(2)

    found = after * (ds @ k4), after * shared(ds.swapaxes(2, 3) @ q4), shared(weights.swapaxes(2, 3) @ dout4)
    turned = (x.swapaxes(1, 2) if layout == "bshd" else x for x in found)
    return [x.astype(dtype).reshape(given.shape) for x, given in zip(turned, (q, k, v), strict=True)]


def used(problem, **how):
    """The largest error of each gradient as a fraction of what is allowed. Raises AssertionError beyond."""
    q, k, v = problem.arrays()
    mask, options = problem.dense_mask(), problem.options()
    rng = np.random.default_rng(problem.seed + 1)
    out, lse = reference.attention(q, k, v, mask, return_lse=True, **options)
    dout, options["dlse"] = rng.standard_normal(out.shape).astype(q.dtype), rng.standard_normal(lse.shape)
    options["dlse"] = options["dlse"].astype(np.float32)
    wanted = reference.attention_backward(dout, q, k, v, mask, **options)
    allowed = gradient_tolerance(dout, q, k, v, mask, **options)
    got = honest_backward(dout, q, k, v, mask, **options, **how)
    return [
        assert_close(*three, name=name) for name, *three in zip(("dq", "dk", "dv"), got, wanted, allowed, strict=True)
    ]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(problems(dtypes=DTYPES, max_length=65, max_head_dim=64))
@example(Problem(5, 7, p.full(), "float16", 2, 6, 2, 16, 8, "bshd", kv_lengths=(0, 3)))
@example(Problem(0, 3, p.full(), "bfloat16", 1, 2))
def test_an_honest_kernel_is_within_tolerance(problem):
    used(replace(problem, minus_inf=0.0))  # such keys reach other rows of a tile, as 0 x inf


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_there_is_headroom_on_long_rows(dtype, folded):
    """Rounding a result to a narrow dtype may cost nearly all that is allowed; wide sums do not."""
    problem = Problem(300, 700, np.ones((300, 700), bool), dtype=dtype, head_dim=64, spread=4.0)
    assert max(used(problem, folded=folded)) < (0.5 if dtype in {"float32", "float64"} else 0.9)


def lose(step):
    """One pair of the last row is left out."""
    step["p"][..., -1, 0] = 0


def cut(step):
    """The last 16 keys are left out of the last tile of rows."""
    step["p"][..., -16:, -16:] = 0


def ignore_delta(step):
    step["delta"][:] = 0


def shift_delta(step):
    """delta of the neighbouring row."""
    step["delta"][:] = np.roll(step["delta"], 1, axis=2)


def shift_values(step):
    """dp with the values of a tile off by one key."""
    step["dp"][..., -16:] = np.roll(step["dp"][..., -16:], 1, axis=3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mistake", [lose, cut, ignore_delta, shift_delta, shift_values])
@pytest.mark.parametrize("seq", [20, 64])
def test_a_mistake_is_found_in_every_dtype(dtype, mistake, seq):
    problem = Problem(seq, seq, np.ones((seq, seq), bool), dtype=dtype, batch=1, heads_q=2, heads_kv=1, head_dim=16)
    used(problem)
    with pytest.raises(AssertionError):
        used(problem, mistake=mistake)


def test_a_kernel_may_flush_what_underflows():
    """Weights below all normal numbers are 0 there: such a key's gradients, whose other weights are none, are lost."""
    q, k, v, dout = np.random.default_rng(0).standard_normal((4, 1, 1, 16, 16)).astype(np.float32) * np.float32(10)
    q[..., 0], k[..., 0], k[..., 3, :] = 1, 0, 0
    k[..., 1:], k[..., 3, 0] = 0, -87.0  # for all rows: float32's smallest normal number is exp(-87.3)
    mask, options = np.ones((16, 16), bool), {"scale": 1.0, "layout": "bhsd", "kv_lengths": None}
    options["dlse"] = np.zeros((1, 1, 16), np.float32)
    wanted = reference.attention_backward(dout, q, k, v, mask, **options)
    allowed = gradient_tolerance(dout, q, k, v, mask, **options)

    def flush(step):
        step["p"][step["p"] < np.finfo(np.float32).tiny] = 0

    got = honest_backward(dout, q, k, v, mask, mistake=flush, **options)
    assert not got[1][..., 3, :].any()
    assert np.abs(wanted[1][..., 3, :]).min() > 0
    for three in zip(got, wanted, allowed, strict=True):
        assert_close(*three)
