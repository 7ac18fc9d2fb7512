"""Text of the feature map for a tile of tokens (or slots).

tokens: rows ``dims`` apart, of which head_dim numbers count. phi: their features, ``features`` apart: one part, or two
for rfa (sines, then cosines), each with ``kept`` features and then zeros, so that sums may run over whole vectors. w:
the weights of a linear map, (head_dim, part); columns beyond ``kept`` repeat the first, so that a row's maximum may run
over whole vectors too. stab: the stabiliser of all keys of a head. Nothing passes from row to row.
"""

from __future__ import annotations

from flurka_numba.expressions import parse
from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.cpu.expressions import render
from flurka_numba.targets.cpu.plan import SOFTMAX, CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION
from splat_numba.gen.language.writer import SourceWriter

SIZES = "head_dim, dims, kept, features"
EACH_ROW = "for row in range(rows)"
EACH_DIM = "for place in range(0, dims, WIDTH)"
EACH_FEATURE = "for place in range(0, part, WIDTH)"


def emit_part(out: SourceWriter, plan: CpuPlan) -> None:
    """The size of a part."""
    out.line("part = features // 2  # sines, cosines" if plan.feature_map == "rfa" else "part = features")


def call_features(plan: CpuPlan, side: str) -> str:
    """Text of the call that maps ``count`` rows, of "query" or "key"."""
    return _header(plan, side, "w_head", "count")


def _header(plan: CpuPlan, side: str, w: str, rows: str) -> str:
    weights = f"{w}, " if plan.linear else ""
    stab = "stab, " if plan.stabilised(side) else "stretch, " if plan.feature_map == SOFTMAX else ""
    exponentials = "exponentials, " if plan.keeps_exponentials else ""
    return f"{_name(plan, side)}(tokens, phi, {exponentials}{weights}{stab}{rows}, {SIZES})"


def _name(plan: CpuPlan, side: str) -> str:
    """favor alone maps queries and keys differently: each query has a stabiliser of its own."""
    return f"{side}_features" if plan.feature_map == "favor" else "features_of"


def emit_features(out: SourceWriter, plan: CpuPlan, side: str) -> None:
    """What ``call_features`` calls."""
    shift = "stab" if plan.stabilised(side) else "largest_lane(top)"
    with out.function(FUNCTION, _header(plan, side, "w", "rows"), _meaning(plan, shift)):
        emit_part(out, plan)
        if plan.linear:
            out.line("multiply(tokens, dims, 1, rows, head_dim, w, part, phi, features)")
        with out.block(EACH_ROW):
            out.line("here, there = advance(tokens, row * dims), advance(phi, row * features)")
            _emit_row(out, plan, shift)
            for range_of in ("kept, part", "part + kept, features")[: 2 if plan.feature_map == "rfa" else 1]:
                with out.block(f"for place in range({range_of})"):
                    out.line("assign(there, place, real(0.0))")


def _meaning(plan: CpuPlan, shift: str) -> str:
    if isinstance(plan.feature_map, FeatureMap):
        return f"phi(x) = {plan.feature_map.source}."
    if plan.feature_map == "rfa":
        return "phi(x) = kept**-0.5 * (sin u, cos u), u = x w / |x|."
    less = "stab" if shift == "stab" else "the row's largest u"
    if plan.feature_map == SOFTMAX:
        return f"phi(x) = exp(stretch (u - {less})), u = x w."
    return f"phi(x) = kept**-0.5 * (exp(u - |x|**2 / (2 sqrt(head_dim)) - {less}) + {plan.eps!r}), u = x w."


def _emit_row(out: SourceWriter, plan: CpuPlan, shift: str) -> None:
    """Features of one row; those of a linear map from u, which lies where they go."""
    if isinstance(plan.feature_map, FeatureMap):
        with out.block(EACH_FEATURE):
            out.line("x = load(here, place)")
            out.line(f"store(there, place, {render(parse('source', plan.feature_map.source))})")
    elif plan.feature_map == "rfa":
        emit_inverse_norm(out, plan.compute_dtype)
        out.line("factor = splat(real(1.0 / math.sqrt(kept)))")
        with out.block(EACH_FEATURE):
            out.line("sine, cosine = sine_cosine(load(there, place) * inverse)")
            out.line("store(there, place, factor * sine)")
            out.line("store(there, part + place, factor * cosine)")
    else:
        _emit_exponentials(out, plan, shift)


def _emit_exponentials(out: SourceWriter, plan: CpuPlan, shift: str) -> None:
    if shift != "stab":
        out.line("top = splat(real(-np.inf))")
        with out.block(EACH_FEATURE):
            out.line("top = maximum(load(there, place), top)")
    if plan.feature_map == SOFTMAX:
        out.line(f"shift = splat({shift})")
        with out.block(EACH_FEATURE):
            out.line("store(there, place, exp((load(there, place) - shift) * splat(stretch)))")
        return
    _emit_square(out)
    out.line(f"shift = splat(real({shift} + square * real(0.5 / math.sqrt(head_dim))))")
    out.line("factor = splat(real(1.0 / math.sqrt(kept)))")
    with out.block(EACH_FEATURE):
        out.line("value = exp(load(there, place) - shift)")
        out.line(f"store(there, place, factor * (value + splat(real({plan.eps!r}))))")
        if plan.keeps_exponentials:
            out.line("store(exponentials, row * features + place, factor * value)")


def _emit_square(out: SourceWriter) -> None:
    out.line("squares = splat(real(0.0))")
    with out.block(EACH_DIM):
        out.line("squares = fma(load(here, place), load(here, place), squares)")
    out.line("square = add_lanes(squares)")


# Where |x|**2 is within these bounds it has all its digits; else that of x times a power of two has them.
SQUARES = {"float32": (2.0**-80, 2.0**100), "float64": (2.0**-900, 2.0**1000)}
NEARER = {"float32": (2.0**100, 2.0**-70), "float64": (2.0**600, 2.0**-600)}  # of small rows, and of large ones
SMALLEST = {"float32": 2.0**-126, "float64": 2.0**-1022}


def emit_inverse_norm(out: SourceWriter, dtype: str) -> None:
    """inverse = 1 / |x|; 0 for a row of zeros, which so stays 0, and for one whose inverse no number may be."""
    (low, high), (up, down) = SQUARES[dtype], NEARER[dtype]
    _emit_square(out)
    out.line("nearer = real(1.0)")
    with out.block(f"if not (real({low!r}) < square and square < real({high!r}))"):
        out.line(f"nearer = real({down!r}) if square >= real({high!r}) else real({up!r})")
        out.line("squares = splat(real(0.0))")
        with out.block(EACH_DIM):
            out.line("near = load(here, place) * splat(nearer)")
            out.line("squares = fma(near, near, squares)")
        out.line("square = add_lanes(squares)")
    least = f"nearer * real({SMALLEST[dtype]!r})"
    out.line("norm = real(math.sqrt(square))")
    out.line(f"inverse = splat(nearer / norm if norm >= {least} else real(0.0))")


def emit_largest(out: SourceWriter, _plan: CpuPlan) -> None:
    """largest_of: what favor's stabiliser of the keys is the maximum of."""
    docstring = "The largest u = x w of all rows; phi is overwritten."
    with out.function(FUNCTION, f"largest_of(tokens, phi, w, rows, {SIZES})", docstring):
        out.line("multiply(tokens, dims, 1, rows, head_dim, w, features, phi, features)")
        out.line("top = splat(real(-np.inf))")
        with out.block("for place in range(0, rows * features, WIDTH)"):
            out.line("top = maximum(load(phi, place), top)")
        out.line("return largest_lane(top)")
