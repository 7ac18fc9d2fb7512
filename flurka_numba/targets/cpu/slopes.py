"""Text of the gradient through the feature map, for a tile of tokens (or slots)."""

from __future__ import annotations

from flurka_numba.expressions import parse
from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.cpu.expressions import render
from flurka_numba.targets.cpu.features import EACH_DIM, EACH_FEATURE, EACH_ROW, SIZES, emit_inverse_norm, emit_part
from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION
from splat_numba.gen.language.writer import SourceWriter


def call_slopes(plan: CpuPlan) -> str:
    """Text of the call for ``count`` rows; what favor adds to its exponentials has no gradient."""
    phi = "exponentials" if plan.keeps_exponentials else "phi"
    return f"slopes_of(tokens, {phi}, dphi, dtokens, {'w_t_head, ' if plan.linear else ''}count, {SIZES})"


def emit_slopes(out: SourceWriter, plan: CpuPlan) -> None:
    """slopes_of: what ``call_slopes`` calls."""
    header = f"slopes_of(tokens, phi, dphi, dtokens, {'w_t, ' if plan.linear else ''}rows, {SIZES})"
    phi = plan.feature_map
    if isinstance(phi, FeatureMap):
        with out.function(FUNCTION, header, f"dtokens = dphi phi'(x), phi'(x) = {phi.derivative_source}."):
            _emit_elementwise(out, phi)
        return
    with out.function(FUNCTION, header, "dphi becomes du, the gradient of u = x w; dtokens is that of x."):
        emit_part(out, plan)
        with out.block(EACH_ROW):
            out.line("there, rising = advance(phi, row * features), advance(dphi, row * features)")
            _emit_du(out, plan)
        out.line("multiply(dphi, features, 1, rows, part, w_t, dims, dtokens, dims)")
        if phi == "favor":
            _emit_square_slope(out)
        if phi == "rfa":
            _emit_norm_slope(out, plan.compute_dtype)


def _emit_elementwise(out: SourceWriter, phi: FeatureMap) -> None:
    slope = render(parse("derivative", phi.derivative_source, ("x", "y")))
    with out.block("for place in range(0, rows * dims, WIDTH)"):
        out.line("x, y = load(tokens, place), load(phi, place)")
        out.line(f"store(dtokens, place, load(dphi, place) * {slope})")


def _emit_du(out: SourceWriter, plan: CpuPlan) -> None:
    """The gradient of one row's u, in the place of that of its features."""
    with out.block(EACH_FEATURE):
        if plan.feature_map == "rfa":
            out.line("sine, cosine = load(there, place), load(there, part + place)")
            out.line("du = load(rising, place) * cosine - load(rising, part + place) * sine")
        else:  # the derivative of an exponential; its stabiliser has no gradient
            out.line("du = load(rising, place) * load(there, place)")
        out.line("store(rising, place, du)")


def _emit_square_slope(out: SourceWriter) -> None:
    """-|x|**2 / (2 sqrt(head_dim)) stands in every exponent of a row."""
    with out.block(EACH_ROW):
        out.line("here, falling = advance(tokens, row * dims), advance(dtokens, row * dims)")
        out.line("rising, total = advance(dphi, row * features), splat(real(0.0))")
        with out.block(EACH_FEATURE):
            out.line("total = total + load(rising, place)")
        out.line("slope = splat(real(-add_lanes(total) / real(math.sqrt(head_dim))))")
        with out.block(EACH_DIM):
            out.line("store(falling, place, fma(slope, load(here, place), load(falling, place)))")


def _emit_norm_slope(out: SourceWriter, dtype: str) -> None:
    """Through n = x / |x|: what is along n goes nowhere."""
    with out.block(EACH_ROW):
        out.line("here, falling = advance(tokens, row * dims), advance(dtokens, row * dims)")
        emit_inverse_norm(out, dtype)
        out.line("along = splat(real(0.0))")
        with out.block(EACH_DIM):
            out.line("along = fma(load(here, place), load(falling, place), along)")
        out.line("along = splat(add_lanes(along)) * inverse * inverse")
        with out.block(EACH_DIM):
            out.line("store(falling, place, inverse * (load(falling, place) - along * load(here, place)))")
