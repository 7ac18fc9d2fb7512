"""Conversions between 16-bit floats as bits and float32: all 65,536 of them, and rounding as NumPy and ml_dtypes do."""

import ml_dtypes
import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_array_equal

from splat_numba.gen.language.halves import narrow
from splat_numba.runtime.halves import from_bfloat16, from_float16, to_bfloat16, to_float16

HALVES = np.arange(65536, dtype=np.uint16)
TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@njit
def widen(halves, bfloat):
    out = np.empty(halves.size, np.float32)
    for i in range(halves.size):
        out[i] = from_bfloat16(halves[i]) if bfloat else from_float16(halves[i])
    return out


@njit
def round_to_half(values, bfloat):
    out = np.empty(values.size, np.uint16)
    for i in range(values.size):
        out[i] = to_bfloat16(values[i]) if bfloat else to_float16(values[i])
    return out


def awkward_floats() -> np.ndarray:
    """Random bits, and the halves themselves, their midpoints and the neighbours of both."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32)
    with np.errstate(invalid="ignore"):
        exact = np.concatenate([HALVES.view(dtype).astype(np.float32) for dtype in TYPES.values()])
    finite = np.sort(exact[np.isfinite(exact)])
    middle = (finite[1:].astype(np.float64) + finite[:-1]) / 2
    near = np.concatenate([finite, middle.astype(np.float32)])
    moved = [np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf)]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.996, 65520, 2.0**-24, 2.0**-25], np.float32)
    return np.concatenate([bits.view(np.float32), near, *moved, special])


def assert_same_halves(got, wanted, dtype):
    """Equal bits; any quiet NaN will do for a NaN."""
    nan = np.isnan(wanted.view(dtype).astype(np.float32))
    assert np.isnan(got.view(dtype).astype(np.float32))[nan].all()
    assert_array_equal(got[~nan], wanted[~nan])


@pytest.mark.parametrize("name", TYPES)
def test_every_half_becomes_the_float32_equal_to_it(name):
    got = widen(HALVES, name == "bfloat16")
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wanted = HALVES.view(TYPES[name]).astype(np.float32)
    nan = np.isnan(wanted)
    assert_array_equal(np.isnan(got), nan)
    assert_array_equal(got.view(np.uint32)[~nan], wanted.view(np.uint32)[~nan])


@pytest.mark.parametrize("name", TYPES)
def test_every_half_that_is_a_number_survives_the_round_trip(name):
    values = HALVES.view(TYPES[name])
    with np.errstate(invalid="ignore"):
        number = ~np.isnan(values.astype(np.float32))
    got = round_to_half(widen(HALVES, name == "bfloat16"), name == "bfloat16")
    assert_array_equal(got[number], HALVES[number])


@pytest.mark.parametrize("name", TYPES)
def test_rounding_is_to_nearest_ties_to_even(name):
    values = awkward_floats()
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = values.astype(TYPES[name]).view(np.uint16)
        launcher = narrow(values, name)
    assert_same_halves(round_to_half(values, name == "bfloat16"), wanted, TYPES[name])
    assert_same_halves(launcher, wanted, TYPES[name])
