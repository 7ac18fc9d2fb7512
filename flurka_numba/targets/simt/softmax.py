"""Softmax of rows in place, and its way back, likewise."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.formulas import LOG2_E
from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.gpu.warps import emit_largest_of_warp, emit_sum_of_warp
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.head_scales import SCALE_BYTES
from flurka_numba.targets.simt.rows import (
    columns_loop,
    emit_row_place,
    emit_scratch,
    four,
    place_of,
    row_entry,
)
from flurka_numba.targets.simt.text import emit_four, result_parameters
from splat_numba.gen.language.entry import Entry


@dataclass(frozen=True, slots=True)
class SoftmaxTraits:
    """scale: of float32 scores, at least 0, as is the power of two that their head's keys were multiplied with: both
    are for differences of scores, which may so become infinite where scores would.
    """

    scale: float

    @property
    def name(self) -> str:
        """Of the text."""
        return "flurka_softmax_simt"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return row_entry("softmax", (*result_parameters("weights"), ("scales", "l")), ("columns",))

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, "Scores to weights, in place.")
        with out.suite():
            emit_row_place(out, results=["weights"])
            out.line("top = f32(-np.inf)")
            with columns_loop(out, "columns"):
                emit_scratch(out, "weights", "x")
                for i in range(QUAD):
                    out.line(f"when = u32(1) if u32(column + u32({i})) < columns else u32(0)")
                    out.line(f"top = ptx.maximum(top, ptx.select_real(x_{i}, f32(-np.inf), when))")
            emit_largest_of_warp(out, "top")
            out.line("total = f32(0.0)")
            out.line(f"undo = ptx.load_state(scales + u64({SCALE_BYTES}) * u64(pair) + u64(4))")
            with columns_loop(out, "columns"):
                emit_scratch(out, "weights", "x")
                for i in range(QUAD):
                    out.line(f"x_{i} = ptx.exp2(((x_{i} - top) * undo) * f32({self.scale * LOG2_E!r}))")
                    out.line(f"when = u32(1) if u32(column + u32({i})) < columns else u32(0)")
                    out.line(f"total += ptx.select_real(x_{i}, f32(0.0), when)")
                emit_four(out, "float32", place_of("weights", "float32"), four("x"), "u32(there & here)")
            emit_sum_of_warp(out, "total")
            out.line("inverse = ptx.reciprocal(total)")
            with columns_loop(out, "columns"):
                emit_scratch(out, "weights", "x")
                for i in range(QUAD):
                    out.line(f"x_{i} = x_{i} * inverse")
                emit_four(out, "float32", place_of("weights", "float32"), four("x"), "u32(there & here)")
        return out.text()


@dataclass(frozen=True, slots=True)
class SoftmaxPullTraits:
    """scale: of the scores. dweights become scale * weights * (dweights - dweights . weights)."""

    scale: float

    @property
    def name(self) -> str:
        """Of the text."""
        return "flurka_softmax_pull_simt"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return row_entry("softmax_pull", result_parameters("weights", "dweights"), ("columns",))

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, "Gradients of weights to those of scores, in place.")
        with out.suite():
            emit_row_place(out, results=["weights", "dweights"])
            out.line("dot = f32(0.0)")
            with columns_loop(out, "columns"):
                emit_scratch(out, "weights", "x", "columns")
                emit_scratch(out, "dweights", "d", "columns")
                for i in range(QUAD):
                    out.line(f"dot += d_{i} * x_{i}")
            emit_sum_of_warp(out, "dot")
            with columns_loop(out, "columns"):
                emit_scratch(out, "weights", "x")
                emit_scratch(out, "dweights", "d")
                for i in range(QUAD):
                    out.line(f"d_{i} = f32({self.scale!r}) * x_{i} * (d_{i} - dot)")
                emit_four(out, "float32", place_of("dweights", "float32"), four("d"), "u32(there & here)")
        return out.text()
