"""The head of a CPU kernel's text: imports, the vector type, number conversions, exp2."""

from __future__ import annotations

import math

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter

FUNCTION = '@njit(nogil=True, error_model="numpy")'
INLINE = '@njit(nogil=True, error_model="numpy", forceinline=True)'

LOG2_E = math.log2(math.e)  # scores are in base 2 where they are softened, lse is in base e
LN_2 = math.log(2)

# 2**f on [-1/2, 1/2], highest power first; the constant term is 1. float32: minimax in relative error, 2e-9 before
# rounding. float64: the Taylor series, whose remainder is below 1e-17.
EXP2_COEFFICIENTS = {
    "float32": (
        0.00015353361713359853,
        0.0013398874477699649,
        0.009618437358961465,
        0.05550332470924774,
        0.24022647913610046,
        0.6931472028551922,
    ),
    "float64": (
        1.3691488853904128e-12,
        2.5678435993488206e-11,
        4.4455382718708115e-10,
        7.054911620801123e-09,
        1.0178086009239699e-07,
        1.321548679014431e-06,
        1.525273380405984e-05,
        0.0001540353039338161,
        0.0013333558146428443,
        0.009618129107628477,
        0.05550410866482158,
        0.2402265069591007,
        0.6931471805599453,
    ),
}
# Below this exponent 2**x is taken as 0: the smallest that power_of_two can make as a normal number.
EXP2_SMALLEST = {"float32": -126.0, "float64": -1022.0}


def emit_strides(out: SourceWriter, name: str, dtype: str, axes: int = 4) -> None:
    """``NAME_at``: the strides of an array of the dtype, in elements."""
    strides = ", ".join(f"{name}.strides[{axis}] // {ITEMSIZE[dtype]}" for axis in range(axes))
    out.line(f"{name}_at = ({strides})")


def emit_imports(out: SourceWriter, compute_dtype: str, width: int, more: tuple[str, ...] = ()) -> None:
    """Imports, the vector functions of the machine's width, and the scalar type's name ``real``."""
    out.lines(
        """
        import math

        import numpy as np
        from numba import njit

        from splat_numba.runtime.halves import from_bfloat16, from_float16, to_bfloat16, to_float16
        from splat_numba.runtime.simd import address, advance, assign, element
        from splat_numba.runtime.tiles import gather_rows, load_each, load_scaled, multiply_add, scatter_rows
        from splat_numba.runtime.tiles import store_each, store_tile, times, times_or_zero
        from splat_numba.runtime.vectors import floor, fma, maximum, power_of_two, select, shaped, store, transpose
        """
    )
    for line in more:
        out.line(line)
    out.line()
    out.lines(
        f"""
        real = np.{compute_dtype}
        WIDTH = {width}  # numbers in one vector
        LOWEST = real(np.finfo(real).min)  # where maxima begin: a row may hold nothing but -inf, and -inf - -inf is NaN
        load, splat, inside, bits = shaped("{compute_dtype}", WIDTH)
        """
    )


def emit_exp2(out: SourceWriter, compute_dtype: str) -> None:
    """exp2(x) of a vector, x <= 0: NaN stays NaN, and -inf gives 0."""
    coefficients = EXP2_COEFFICIENTS[compute_dtype]
    smallest = f"splat(real({EXP2_SMALLEST[compute_dtype]}))"
    docstring = "2**x: the nearest whole power from the exponent bits, the rest by a polynomial."
    with out.function(INLINE, "exp2(x)", docstring):
        out.line(f"whole = floor(maximum(x, {smallest}) + splat(real(0.5)))  # maximum turns NaN into a number,")
        out.line("rest = x - whole  # so NaN goes on through the rest")
        out.line(f"p = splat(real({coefficients[0]!r}))")
        for coefficient in coefficients[1:]:
            out.line(f"p = fma(p, rest, splat(real({coefficient!r})))")
        out.line("p = fma(p, rest, splat(real(1.0))) * power_of_two(whole)")
        out.line(f"return select({smallest} > x, splat(real(0.0)), p)")


def emit_row_of(out: SourceWriter) -> None:
    """row_of: a row that may be read for a lane."""
    with out.function(INLINE, "row_of(rows, lane)", "Row of a lane; the block's first row where the lane has none."):
        out.line("row = element(rows, lane)")
        out.line("return row if row >= 0 else element(rows, 0)")


def emit_quotient(out: SourceWriter) -> None:
    """quotient: a division of whole numbers that a compiler does not know, for many lanes at once."""
    docstring = "number // size, exact below 2**53: numbers of 64 bits are divided one by one, and take longer."
    with out.function(INLINE, "quotient(number, size)", docstring):
        out.line("return math.floor(number / size)")


def from_storage(dtype: str, text: str) -> str:
    """Text that converts a stored number to the compute type."""
    return f"from_{dtype}({text})" if dtype in ("float16", "bfloat16") else text


def to_storage(dtype: str, text: str) -> str:
    """Text that rounds a number of the compute type to the stored type."""
    return f"to_{dtype}({text})" if dtype in ("float16", "bfloat16") else text
