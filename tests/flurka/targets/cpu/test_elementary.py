"""exp, log, sine, cosine and the larger of two, as kernels compute them in vectors, against NumPy."""

from functools import cache

import numpy as np
import pytest

from flurka_numba.targets.cpu import elementary
from flurka_numba.targets.cpu.prelude import FUNCTION, emit_head
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.runtime.source import KernelSource
from tests.flurka.targets.cpu.plans import plan_of

DTYPES = ("float32", "float64")
SPECIAL = np.array(
    [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 1e-45, 1e-310, 3e38, 1e300, -1.0, 87.0, -87.0, 89.0, -709.0]
)


@cache
def function(name, dtype):
    """Elementwise over an array whose size is a multiple of the width."""
    out = SourceWriter()
    plan = plan_of(dtype=dtype)
    emit_head(out, plan)
    getattr(elementary, f"emit_{name}")(out, plan)
    with out.function(FUNCTION, "apply(x, y, first, second)", "Both results, or the one twice."):
        out.line(
            "x_at, y_at, first_at, second_at = address(x, 0), address(y, 0), address(first, 0), address(second, 0)"
        )
        with out.block("for at in range(0, x.size, WIDTH)"):
            if name == "sine_cosine":
                out.line("one, two = sine_cosine(load(x_at, at))")
            else:
                out.line(f"one = {name}(load(x_at, at){', load(y_at, at)' if name == 'larger' else ''})")
                out.line("two = one")
            out.line("store(first_at, at, one)")
            out.line("store(second_at, at, two)")
    return KernelSource.of(f"test_{name}", out.text()).load(None).apply


def values(name, dtype, x, y=None):
    x = np.resize(np.asarray(x, dtype), -(-len(x) // 4) * 4)
    y = x if y is None else np.resize(np.asarray(y, dtype), x.size)
    first, second = np.empty_like(x), np.empty_like(x)
    function(name, dtype)(x, y, first, second)
    return x, first, second


def ulps(got, wanted):
    """The largest distance in units of the last place of numbers that are normal and finite."""
    kept = np.isfinite(wanted) & (np.abs(wanted) >= np.finfo(got.dtype).tiny)
    return np.max(np.abs(got[kept] - wanted[kept]) / np.spacing(np.abs(wanted[kept].astype(got.dtype))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "limit"), [("exp", 1.5), ("log", 3.0)])
def test_exp_and_log_are_right_to_the_last_places(name, limit, dtype, rng):
    wide = np.longdouble
    low, high = elementary.EXP_RANGE[dtype]
    x = rng.uniform(low, high, 4000) if name == "exp" else np.exp(rng.uniform(low, high, 4000))
    x, got, _ = values(name, dtype, np.concatenate([x, rng.uniform(0.5, 2.0, 4000)]))
    assert ulps(got, getattr(np, name)(x.astype(wide))) <= limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "log"])
def test_special_numbers(name, dtype):
    with np.errstate(all="ignore"):
        x, got, _ = values(name, dtype, SPECIAL.astype(dtype))
        wanted = getattr(np, name)(x)
    tiny = np.finfo(dtype).tiny if name == "exp" else 0.0  # exp knows no subnormal numbers
    np.testing.assert_allclose(got, wanted, rtol=4e-7, atol=2 * tiny)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sine_and_cosine(dtype, rng):
    x, sine, cosine = values(
        "sine_cosine", dtype, np.concatenate([rng.uniform(-50, 50, 4000), np.arange(-8, 8) * np.pi / 4])
    )
    error = 3 * np.finfo(dtype).eps
    wide = x.astype(np.longdouble)
    np.testing.assert_allclose(sine, np.sin(wide).astype(np.float64), rtol=0, atol=error)
    np.testing.assert_allclose(cosine, np.cos(wide).astype(np.float64), rtol=0, atol=error)
    assert np.isnan(values("sine_cosine", dtype, [np.nan, np.inf, -np.inf, np.nan])[1]).all()


def test_the_larger_of_two_is_nan_where_either_is():
    pairs = np.array([(a, b) for a in (0.0, 1.0, np.nan, np.inf) for b in (2.0, -1.0, np.nan, -np.inf)])
    x, got, _ = values("larger", "float32", pairs[:, 0], pairs[:, 1])
    np.testing.assert_array_equal(got, np.maximum(x, pairs[:, 1].astype(np.float32)))
