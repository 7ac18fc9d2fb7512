"""Text of a row's denominator, and of the gradient through it."""

from __future__ import annotations

from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION
from splat_numba.gen.language.writer import SourceWriter

EACH_FEATURE = "for place in range(0, features, WIDTH)"


def emit_divide(out: SourceWriter, plan: CpuPlan) -> None:
    """divide: what a row is multiplied by; for gradients also what its denominator's gradient is multiplied by."""
    slope = ", slope" if plan.gradients else ""
    with (
        out.function(
            FUNCTION,
            f"divide(phi, sums, scale, rows, features, inverse{slope})",
            "inverse[row] = 1 / (phi . sums), guarded; 0 for a row without weights. scale: of the sums.",
        ),
        out.block("for row in range(rows)"),
    ):
        out.line("here, total = advance(phi, row * features), splat(real(0.0))")
        with out.block(EACH_FEATURE):
            out.line("total = fma(load(here, place), load(sums, place), total)")
        out.line("weight = add_lanes(total)")
        _emit_divisor(out, plan)
        out.line("f = real(0.0) if divisor == real(0.0) else real(1.0) / divisor")
        out.line("assign(inverse, row, f)")
        if plan.gradients:
            out.line(f"assign(slope, row, {'f if free else real(0.0)' if plan.denominator == 'guarded' else 'f'})")


def _emit_divisor(out: SourceWriter, plan: CpuPlan) -> None:
    if plan.denominator == "plus_eps":
        out.line(f"divisor = weight + real({plan.eps!r}) * scale")
    elif plan.denominator == "plain":
        out.line("divisor = weight")
    else:
        out.line(f"least = real({plan.eps!r}) * scale")
        out.line("free = abs(weight) > least")
        out.line("divisor = weight if free else -least if weight < real(0.0) else least")


def emit_fall(out: SourceWriter, _plan: CpuPlan) -> None:
    """fall: the gradient through the denominator."""
    with (
        out.function(
            FUNCTION,
            "fall(phi, dphi, sums, slope, rows, features, dsums)",
            "dphi[row] += delta sums and dsums += delta phi[row], delta = -slope[row] * (phi[row] . dphi[row]).",
        ),
        out.block("for row in range(rows)"),
    ):
        out.line("here, there = advance(phi, row * features), advance(dphi, row * features)")
        out.line("total = splat(real(0.0))")
        with out.block(EACH_FEATURE):
            out.line("total = fma(load(here, place), load(there, place), total)")
        out.line("delta = splat(-add_lanes(total) * element(slope, row))")
        with out.block(EACH_FEATURE):
            out.line("store(there, place, fma(delta, load(sums, place), load(there, place)))")
            out.line("store(dsums, place, fma(delta, load(here, place), load(dsums, place)))")
