"""Numerators over the divisor of their row, which is the last column beside them; and the way back.

nd: (rows, columns + 1) in float32: phi(q) S, then phi(q).z, both times their head's power of two (head_scales.py). The
way back gives the gradients of both, side by side likewise and over that power: g = dout / divisor, and -slope
(dout . out) / divisor.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.gpu.warps import emit_sum_of_warp
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.head_scales import SCALE_BYTES
from flurka_numba.targets.simt.rows import (
    columns_loop,
    emit_numbers,
    emit_row_place,
    emit_scratch,
    four,
    place_of,
    row_entry,
)
from flurka_numba.targets.simt.text import emit_four, operand_parameters, result_parameters
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.targets.gpu.parts import KernelWriter


@dataclass(frozen=True, slots=True)
class DivideTraits:
    """denominator, eps: as in Problem. result: dtype."""

    denominator: str
    eps: float
    result: str

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_divide_simt_{self.denominator}_{self.result}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return row_entry("divide", (*result_parameters("nd", "result"), ("scales", "l")), ("columns",))

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, f"Numerators over denominators ({self.denominator}) as {self.result}.")
        with out.suite():
            emit_row_place(out, results=["nd", "result"])
            _emit_inverse(out, self.denominator, self.eps)
            with columns_loop(out, "columns"):
                emit_scratch(out, "nd", "x")
                for i in range(QUAD):
                    out.line(f"y_{i} = ptx.select_real(x_{i} * inverse, f32(0.0), nonzero)")
                emit_four(out, self.result, place_of("result", self.result), four("y"), "u32(there & here)")
        return out.text()


@dataclass(frozen=True, slots=True)
class DividePullTraits:
    """denominator, eps: as in Problem. dout: dtype."""

    denominator: str
    eps: float
    dout: str

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_divide_pull_simt_{self.denominator}_{self.dout}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        matrices = (*operand_parameters("dout"), *result_parameters("nd", "g"))
        return row_entry("divide_pull", (*matrices, ("scales", "l")), ("columns",))

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, f"Gradients of numerators and denominators ({self.denominator}).")
        with out.suite():
            emit_row_place(out, ["dout"], ["nd", "g"])
            _emit_inverse(out, self.denominator, self.eps)
            out.line("dot = f32(0.0)")
            with columns_loop(out, "columns"):
                emit_scratch(out, "nd", "x", "columns")
                emit_numbers(out, self.dout, "dout", "d", "columns")
                for i in range(QUAD):
                    out.line(f"dot += ptx.select_real(d_{i} * (x_{i} * inverse), f32(0.0), nonzero)")
            emit_sum_of_warp(out, "dot")
            emit_delta(out, self.denominator)
            with columns_loop(out, "columns + u32(1)"):
                emit_numbers(out, self.dout, "dout", "d", "columns")
                for i in range(QUAD):
                    out.line(f"g_{i} = ptx.select_real(d_{i} * inverse, f32(0.0), nonzero)")
                    test = f"u32(1) if u32(column + u32({i})) == columns else u32(0)"
                    out.line(f"g_{i} = ptx.select_real(delta, g_{i}, {test})")
                emit_four(out, "float32", place_of("g", "float32"), four("g"), "u32(there & here)")
        return out.text()


def emit_delta(out: KernelWriter, denominator: str) -> None:
    """``delta``, the gradient of a row's last column, from ``dot`` = dout . out."""
    if denominator == "guarded":
        out.line("dot = ptx.select_real(dot, f32(0.0), u32(1) if abs(den) > eps else u32(0))")
    out.line("delta = ptx.select_real((-dot) * inverse, f32(0.0), nonzero)")


def _emit_inverse(out: KernelWriter, denominator: str, eps: float) -> None:
    """1 / divisor, which counts where the divisor is ``nonzero``."""
    with out.part("find_inverse", "1 / divisor, which counts where the divisor is ``nonzero``."):
        out.line("den = ptx.load_state(nd_at + u64(4) * u64(columns))")
        emit_inverse_of_sum(out, denominator, eps)


def emit_inverse_of_sum(out: KernelWriter, denominator: str, eps: float) -> None:
    """The same of ``den``."""
    if denominator != "plain":
        out.line(f"eps = f32({eps!r}) * ptx.load_state(scales + u64({SCALE_BYTES}) * u64(pair))")
    if denominator == "guarded":
        out.line("size = ptx.maximum(abs(den), eps)")
        out.line("divisor = ptx.select_real(-size, size, u32(1) if den < f32(0.0) else u32(0))")
        out.line("divisor = ptx.select_real(divisor, den, u32(1) if den == den else u32(0))  # NaN stays")
    else:
        out.line("divisor = den + eps" if denominator == "plus_eps" else "divisor = den")
    out.line("nonzero = u32(0) if divisor == f32(0.0) else u32(1)")
    out.line("inverse = ptx.reciprocal(divisor)")
