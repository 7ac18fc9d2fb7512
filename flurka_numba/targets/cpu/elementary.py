"""Text of exp, log, sine and cosine of vectors: LLVM would call the C library once a lane."""

from __future__ import annotations

import math

from flurka_numba.targets.cpu.plan import CpuPlan
from splat_numba.gen.language.writer import SourceWriter

INLINE = '@njit(nogil=True, error_model="numpy", forceinline=True)'

# Terms of the Taylor series: float32 errs by less than 1e-8 before rounding, float64 by less than 1e-17.
EXP_TERMS = {"float32": 8, "float64": 14}  # on [-ln(2)/2, ln(2)/2]
TURN_TERMS = {"float32": 5, "float64": 10}  # of sine and of cosine, on [-pi/4, pi/4]
LOG_TERMS = {"float32": 6, "float64": 11}  # 2 artanh(s), |s| <= 3 - 2 sqrt(2)
# exp is 0 below and infinite above: where power_of_two, or the result, leaves the normal numbers.
EXP_RANGE = {"float32": (-86.6, 88.72), "float64": (-708.0, 709.78)}
# ln(2) and pi/2 in parts of which all but the last have few enough bits that products with whole numbers are exact.
LN_2 = {"float32": (0.693359375, -2.12194440e-4), "float64": (0.6931471803691238, 1.9082149292705877e-10)}
HALF_PI = {
    "float32": (1.5703125, 4.837512969970703e-4, 7.549789415861596e-08),
    "float64": (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21),
}
SMALLEST_NORMAL = {"float32": (2.0**-126, 24), "float64": (2.0**-1022, 53)}


def emit_exp(out: SourceWriter, plan: CpuPlan) -> None:
    """exp(x) of a vector; NaN stays NaN."""
    dtype = plan.compute_dtype
    low, high = EXP_RANGE[dtype]
    with out.function(INLINE, "exp(x)", "e**x: 2 to a whole power from exponent bits, times a polynomial."):
        out.line(f"low, high = {_splat(low)}, {_splat(high)}")
        out.line("near = select(x > high, high, maximum(x, low))  # a number even where x is NaN;")
        out.line(f"whole = floor(fma(near, {_splat(math.log2(math.e))}, {_splat(0.5)}))")
        out.line(f"rest = {_reduced('x', LN_2[dtype])}  # NaN goes on through here")
        _emit_horner(out, "p", "rest", [1.0 / math.factorial(power) for power in range(EXP_TERMS[dtype])])
        out.line(f"p = (p + p) * power_of_two(whole - {_splat(1.0)})  # 2**128 is no float32, 2**127 * 2 may be")
        out.line(f"return select(low > x, {_splat(0.0)}, select(x > high, splat(real(np.inf)), p))")


def emit_log(out: SourceWriter, plan: CpuPlan) -> None:
    """log(x) of a vector: -inf at 0, NaN below."""
    dtype = plan.compute_dtype
    smallest, bits = SMALLEST_NORMAL[dtype]
    with out.function(INLINE, "log(x)", "Natural logarithm: the exponent bits, and a series for the rest."):
        out.line(f"small = {_splat(smallest)} > x")
        out.line(f"normal = select(small, x * {_splat(2.0**bits)}, x)")
        out.line("whole = exponent(normal)")
        out.line(f"rest = normal * power_of_two({_splat(1.0)} - whole) * {_splat(0.5)}  # 1 <= rest < 2")
        out.line(f"above = rest > {_splat(math.sqrt(2.0))}")
        out.line(f"rest = select(above, rest * {_splat(0.5)}, rest)")
        out.line(f"whole = select(above, whole + {_splat(1.0)}, whole)")
        out.line(f"whole = select(small, whole - {_splat(float(bits))}, whole)")
        out.line(f"s = (rest - {_splat(1.0)}) / (rest + {_splat(1.0)})")
        _emit_horner(out, "p", "s * s", [2.0 / (2 * power + 1) for power in range(LOG_TERMS[dtype])])
        high, low = LN_2[dtype]
        out.line(f"p = fma(whole, {_splat(high)}, fma(whole, {_splat(low)}, p * s))")
        out.line(f"p = select(x == {_splat(0.0)}, splat(real(-np.inf)), p)")
        out.line("p = select(x == splat(real(np.inf)), x, p)")
        out.line(f"return select({_splat(0.0)} > x, splat(real(np.nan)), select(x == x, p, x))")


def emit_sine_cosine(out: SourceWriter, plan: CpuPlan) -> None:
    """sine_cosine(x) of a vector. Arguments beyond some thousands lose digits, as their own rounding makes them."""
    dtype = plan.compute_dtype
    docstring = "(sin x, cos x): quarter turns taken off, then polynomials; which is which depends on the quarter."
    with out.function(INLINE, "sine_cosine(x)", docstring):
        out.line(f"whole = floor(fma(x, {_splat(2.0 / math.pi)}, {_splat(0.5)}))")
        out.line(f"rest = {_reduced('x', HALF_PI[dtype])}")
        out.line("square = rest * rest")
        terms = range(TURN_TERMS[dtype])
        _emit_horner(out, "sine", "square", [(-1.0) ** n / math.factorial(2 * n + 1) for n in terms])
        out.line("sine = sine * rest")
        terms = range(TURN_TERMS[dtype] + 1)
        _emit_horner(out, "cosine", "square", [(-1.0) ** n / math.factorial(2 * n) for n in terms])
        out.line(f"quarter = whole - {_splat(4.0)} * floor(whole * {_splat(0.25)})  # 0, 1, 2 or 3")
        out.line(f"half = floor(quarter * {_splat(0.5)})  # turns that change both signs")
        out.line(f"odd = quarter - half - half == {_splat(1.0)}")
        out.line(f"sign = {_splat(1.0)} - half - half")
        out.line(f"minus = {_splat(0.0)} - sine")
        out.line("return sign * select(odd, cosine, sine), sign * select(odd, minus, cosine)")


def emit_larger(out: SourceWriter, _plan: CpuPlan) -> None:
    """larger(a, b), as np.maximum."""
    with out.function(INLINE, "larger(a, b)", "The larger number; NaN where either is."):
        out.line("return select(a > b, a, select(a == a, b, a))")


def _splat(value: float) -> str:
    return f"splat(real({value!r}))"


def _reduced(name: str, parts: tuple[float, ...]) -> str:
    """Text of ``name`` less ``whole`` times the sum of parts."""
    text = name
    for part in parts:
        text = f"fma(whole, {_splat(-part)}, {text})"
    return text


def _emit_horner(out: SourceWriter, name: str, variable: str, coefficients: list[float]) -> None:
    """``name`` = the polynomial with these coefficients, lowest power first."""
    if variable.isidentifier():
        power = variable
    else:
        power = "square"
        out.line(f"square = {variable}")
    out.line(f"{name} = {_splat(coefficients[-1])}")
    for coefficient in reversed(coefficients[:-1]):
        out.line(f"{name} = fma({name}, {power}, {_splat(coefficient)})")
