"""The vector operations of generated kernels against NumPy, at the width of every machine."""

import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_array_equal

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.prelude import emit_exp2, emit_imports
from splat_numba.runtime.simd import address, advance, assign, element
from splat_numba.runtime.vectors import floor, fma, maximum, power_of_two, select, shaped, store, transpose

SHAPES = [("float32", 4), ("float32", 8), ("float32", 16), ("float64", 2), ("float64", 4), ("float64", 8)]


def every_operation(dtype, width):
    """One function that writes a row of results for each operation, so that a width is compiled once."""
    load, splat, inside, bits = shaped(dtype, width)
    real = np.dtype(dtype).type

    @njit(error_model="numpy")
    def operations(a, b, low, high, word, offset, value, out):
        x, y, at = load(address(a, 0), offset), load(address(b, 0), offset), address(out, 0)
        lows, highs = address(low, 0), address(high, 0)
        zero, one = splat(real(0)), splat(real(1))
        store(at, 0 * width, x + y)
        store(at, 1 * width, x - y)
        store(at, 2 * width, x * y)
        store(at, 3 * width, x / y)
        store(at, 4 * width, fma(x, y, one))
        store(at, 5 * width, floor(x))
        store(at, 6 * width, maximum(x, y))
        store(at, 7 * width, select(x > y, x, zero))
        store(at, 8 * width, select(x == y, one, zero))
        store(at, 9 * width, select(inside(lows, highs, offset, value), one, zero))
        store(at, 10 * width, select(bits(word, offset), one, zero))
        store(at, 11 * width, power_of_two(floor(x)))
        assign(at, 12 * width, element(advance(at, 2), 1))

    return operations


@pytest.mark.parametrize(("dtype", "width"), SHAPES)
def test_operations(dtype, width):
    operations, rng = every_operation(dtype, width), np.random.default_rng(width)
    eps = np.finfo(dtype).eps
    for offset in (0, 1, 3, 64 - width):
        a, b = rng.normal(size=(2, 64 + width)).astype(dtype) * 8
        b[::3] = a[::3]
        a[5], b[6] = np.nan, np.nan
        low = rng.integers(-5, 40, 64 + width).astype(np.int32)
        high = low + rng.integers(0, 20, 64 + width).astype(np.int32)
        word, value = rng.integers(0, 2**64, dtype=np.uint64), int(rng.integers(0, 40))
        out = np.empty(12 * width + 1, dtype)
        operations(a, b, low, high, word, offset, value, out)
        x, y, here = a[offset:][:width], b[offset:][:width], slice(offset, offset + width)
        with np.errstate(invalid="ignore"):
            wanted = [
                x + y, x - y, x * y, x / y, None, np.floor(x), np.where(x > y, x, y), np.where(x > y, x, 0), x == y,
                (low[here] <= value) & (value < high[here]),
                (word >> np.arange(offset, offset + width, dtype=np.uint64)) & np.uint64(1),
            ]  # fmt: skip
            for row, values in enumerate(wanted):
                if values is not None:
                    assert_array_equal(out[row * width :][:width], values, err_msg=f"operation {row}")
            exact = x.astype(np.longdouble) * y + 1
            np.testing.assert_allclose(out[4 * width :][:width], exact.astype(dtype), rtol=0, atol=80 * eps)
            number = ~np.isnan(x)
            assert_array_equal(out[11 * width :][:width][number], (2.0 ** np.floor(x.astype(float)))[number])
        assert out[12 * width] == out[3] or np.isnan(out[3])


@pytest.mark.parametrize(("dtype", "width"), SHAPES)
def test_transpose(dtype, width):
    load = shaped(dtype, width)[0]
    rows = ", ".join(f"load(source, {i} * WIDTH)" for i in range(width))
    stores = "".join(f"\n    store(target, {i} * WIDTH, square[{i}])" for i in range(width))
    text = (
        f"def flip(a, b):\n    source, target = address(a, 0), address(b, 0)\n    square = transpose(({rows})){stores}"
    )
    names = {"load": load, "store": store, "address": address, "transpose": transpose, "WIDTH": width}
    exec(text, names)  # noqa: S102 - a tuple of every width, as kernels hold it
    square, got = np.arange(width * width, dtype=dtype), np.empty(width * width, dtype)
    njit(names["flip"])(square, got)
    assert_array_equal(got.reshape(width, width), square.reshape(width, width).T)


def emitted_exp2(dtype, width):
    """exp2 as kernels hold it, over a whole array."""
    out = SourceWriter()
    emit_imports(out, dtype, width)
    emit_exp2(out, dtype)
    names = {}
    exec(out.text(), names)  # noqa: S102 - the text is our own
    exp2, load = names["exp2"], names["load"]

    @njit(error_model="numpy")
    def over(x, y):
        for place in range(0, x.size, width):
            store(address(y, 0), place, exp2(load(address(x, 0), place)))

    def run(values):
        padded = np.zeros(-(-values.size // width) * width, dtype)
        padded[: values.size] = values
        result = np.empty_like(padded)
        over(padded, result)
        return result[: values.size]

    return run


@pytest.mark.parametrize(("dtype", "width", "smallest"), [("float32", 8, -126), ("float64", 4, -1022)])
def test_exp2_is_within_two_units_in_the_last_place(dtype, width, smallest):
    exp2, rng = emitted_exp2(dtype, width), np.random.default_rng(1)
    halves = np.arange(smallest, 1, 0.5)
    near = np.concatenate([np.nextafter(halves, -np.inf, dtype=dtype), np.nextafter(halves, 0, dtype=dtype)])
    values = np.concatenate([rng.uniform(smallest, 0, 400_000), rng.uniform(-1, 0, 200_000), -rng.random(9) * 1e-9,
                             halves, near]).astype(dtype)  # fmt: skip
    values = values[(values <= 0) & (values >= smallest)]
    exact = np.exp2(values.astype(np.longdouble))
    unit = np.spacing(exact.astype(dtype))
    errors = np.abs(exp2(values).astype(np.longdouble) - exact) / unit
    assert errors.max() <= 2, values[errors.argmax()]
    assert (exp2(np.arange(smallest, 1).astype(dtype)) == 2.0 ** np.arange(smallest, 1)).all()


@pytest.mark.parametrize(("dtype", "width"), [("float32", 8), ("float64", 4)])
def test_exp2_of_what_is_no_ordinary_number(dtype, width):
    got = emitted_exp2(dtype, width)(np.array([np.nan, -np.inf, -1e30, -2000, 0, -0.0], dtype))
    assert_array_equal(got, np.array([np.nan, 0, 0, 0, 1, 1], dtype))
