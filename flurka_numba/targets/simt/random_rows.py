"""Random features of rows, from u = x omega^T in float32: favor and rfa, forward and back.

favor: rows^-1/2 (exp(c u - c^2 |x|^2 / 2 - c stab) + eps), c = head_dim^-1/4; stab is the row's largest u, or of all
slots of the head, which largest.py found before. rfa: rows^-1/2 (sin, cos) of u / |x|. Back: gradients of the features
become those of u (of angles, for rfa), a product with omega follows, and then what x has to do with it besides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flurka_numba.targets.formulas import LOG2_E
from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.gpu.warps import emit_largest_of_warp, emit_sum_of_warp
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.powers import emit_scale
from flurka_numba.targets.simt.rows import (
    columns_loop,
    emit_kept,
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

# Of a row times the power of two that brings its largest number to 1/2, or hardly less: a power is found from 8 bits. A
# row of zeros has direction 0, and so has one of numbers below 2^-127, of which there is no such power.
SMALLEST_SQUARE = 0.24


def _factor(rows: int) -> float:
    """Of all features."""
    return float(rows**-0.5)


@dataclass(frozen=True, slots=True)
class RandomTraits:
    """feature_map: "favor" or "rfa". rows: of omega. x: dtype of the input. eps: of favor."""

    feature_map: str
    head_dim: int
    rows: int
    eps: float
    x: str

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_features_simt_{self.feature_map}_{self.x}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        matrices = (*operand_parameters("x"), *result_parameters("u", "y"))
        return row_entry("random_features", (*matrices, ("tops", "l")), ())

    def render(self) -> str:
        """Python source of the kernel; y may be u for favor. Pure and deterministic."""
        out = start_text(self.entry, f"Random features {self.feature_map} of {self.rows} rows of omega.")
        with out.suite():
            emit_row_place(out, ["x"], ["u", "y"])
            if self.feature_map == "favor":
                _emit_square(out, self.x, self.head_dim)
                _emit_favor(out, self)
            else:
                _emit_inverse(out, self.x, self.head_dim)
                _emit_rfa(out, self)
        return out.text()


def _emit_square(out: KernelWriter, dtype: str, head_dim: int, factor: str = "") -> None:
    """|x|^2, or of x times a factor."""
    out.line("square = f32(0.0)")
    with columns_loop(out, f"u32({head_dim})"):
        emit_numbers(out, dtype, "x", "x", f"u32({head_dim})")
        for i in range(QUAD):
            if factor:
                out.line(f"x_{i} = x_{i} * {factor}")
            out.line(f"square += x_{i} * x_{i}")
    emit_sum_of_warp(out, "square")


def _emit_favor(out: KernelWriter, traits: RandomTraits) -> None:
    rows, c = f"u32({traits.rows})", traits.head_dim**-0.25
    out.line("top = f32(-np.inf)")
    with out.block("if tops == u64(0)"):
        with columns_loop(out, rows):
            emit_scratch(out, "u", "u")
            for i in range(QUAD):
                when = f"u32(1) if u32(column + u32({i})) < {rows} else u32(0)"
                out.line(f"top = ptx.maximum(top, ptx.select_real(u_{i}, f32(-np.inf), {when}))")
        emit_largest_of_warp(out, "top")
    with out.block("if tops != u64(0)"):
        out.line("top = ptx.load_state(tops + u64(4) * u64(pair))")
    out.line(f"shift = square * f32({c / 2.0!r})")
    with columns_loop(out, rows):
        emit_scratch(out, "u", "u")
        for i in range(QUAD):
            out.line(f"power = ptx.exp2(((u_{i} - top) - shift) * f32({c * LOG2_E!r}))")
            out.line(f"y_{i} = f32({_factor(traits.rows)!r}) * (power + f32({traits.eps!r}))")
        emit_kept(out, "y")
        emit_four(out, "float32", place_of("y", "float32"), four("y"), "u32(there & here)")


def _emit_inverse(out: KernelWriter, dtype: str, head_dim: int) -> None:
    """1 / |x|, whose square may be beyond float32; 0 for a row of zeros."""
    with out.part("find_inverse", "1 / |x|, whose square may be beyond float32; 0 for a row of zeros."):
        out.line("largest = f32(0.0)")
        with columns_loop(out, f"u32({head_dim})"):
            emit_numbers(out, dtype, "x", "x", f"u32({head_dim})")
            for i in range(QUAD):
                out.line(f"largest = ptx.maximum(largest, abs(x_{i}))")
        emit_largest_of_warp(out, "largest")
        emit_scale(out, "row_scale", "largest")
        _emit_square(out, dtype, head_dim, "row_scale")
        out.line("inverse = ptx.reciprocal(ptx.square_root(square)) * row_scale")
        out.line(f"inverse = inverse if square >= f32({SMALLEST_SQUARE!r}) else f32(0.0)")


def _emit_rfa(out: KernelWriter, traits: RandomTraits) -> None:
    """The sines, then the cosines from where they end, which need not be a multiple of 16 bytes."""
    rows = traits.rows
    with columns_loop(out, f"u32({rows})"):
        emit_scratch(out, "u", "u")
        for i in range(QUAD):
            out.line(f"y_{i}, cosine_{i} = ptx.sine_cosine(u_{i} * inverse)")
            for name in ("y", "cosine"):
                out.line(f"{name}_{i} = ptx.select_real({name}_{i} * f32({_factor(rows)!r}), f32(0.0), kept)")
            out.line(f"when = there if u32(column + u32({i})) < u32({rows}) else u32(0)")
            out.line(f"to = {place_of('y', 'float32')} + u64({4 * i})")
            out.line(f"ptx.store_real(to, y_{i}, when)")
            out.line(f"ptx.store_real(to + u64({4 * rows}), cosine_{i}, when)")


@dataclass(frozen=True, slots=True)
class RandomPullTraits:
    """From dy, in place: of favor's exponents, with their sum a row in ``sums``; of rfa's angles, in the first half."""

    feature_map: str
    rows: int
    eps: float

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_random_pull_simt_{self.feature_map}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return row_entry("random_pull", (*result_parameters("y", "dy"), ("sums", "l")), ())

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, f"Gradients through random features {self.feature_map}.")
        rows = f"u32({self.rows})"
        with out.suite():
            emit_row_place(out, results=["y", "dy"])
            out.line("total = f32(0.0)")
            with columns_loop(out, rows):
                if self.feature_map == "favor":
                    emit_scratch(out, "y", "y", rows)
                    emit_scratch(out, "dy", "d", rows)
                    for i in range(QUAD):
                        out.line(f"d_{i} = d_{i} * (y_{i} - f32({self._least!r}))")
                        out.line(f"d_{i} = ptx.select_real(d_{i}, f32(0.0), "
                                 f"u32(1) if u32(column + u32({i})) < {rows} else u32(0))")  # fmt: skip
                    emit_kept(out, "d")
                    for i in range(QUAD):
                        out.line(f"total += d_{i}")
                    emit_four(out, "float32", place_of("dy", "float32"), four("d"), "u32(there & here)")
                else:
                    self._emit_angles(out)
            emit_sum_of_warp(out, "total")
            out.line("first_lane = there if lane == u32(0) else u32(0)")
            out.line("ptx.store_real(sums + u64(4) * u64(number), total, first_lane)")
        return out.text()

    @property
    def _least(self) -> float:
        """Of favor's features: that of an exponential which is 0, bit by bit, so that its gradient is 0 for any x."""
        return float(np.float32(_factor(self.rows)) * np.float32(self.eps))

    def _emit_angles(self, out: KernelWriter) -> None:
        for i in range(QUAD):
            out.line(f"when = u32(1) if u32(column + u32({i})) < u32({self.rows}) else u32(0)")
            out.line(f"far = u64(4) * u64(column + u32({i}) if when != u32(0) else u32(0))")
            for name, matrix in (("y", "y"), ("d", "dy")):
                out.line(f"{name}_sine = ptx.load_state({matrix}_at + far)")
                out.line(f"{name}_cosine = ptx.load_state({matrix}_at + far + u64({4 * self.rows}))")
            out.line("angle = ptx.select_real(d_sine * y_cosine - d_cosine * y_sine, f32(0.0), kept)")
            out.line("ptx.store_real(dy_at + far, angle, u32(there & when))")


@dataclass(frozen=True, slots=True)
class RandomFinishTraits:
    """From t, which is the gradient of u (of angles) times omega: that of x. x, result: dtypes."""

    feature_map: str
    head_dim: int
    x: str
    result: str

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_random_finish_simt_{self.feature_map}_{self.x}_{self.result}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        matrices = (*operand_parameters("x"), *result_parameters("t", "result"))
        return row_entry("random_finish", (*matrices, ("sums", "l")), ())

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, f"Gradients of rows from those of random features {self.feature_map}.")
        columns, c = f"u32({self.head_dim})", self.head_dim**-0.25
        favor = self.feature_map == "favor"
        with out.suite():
            emit_row_place(out, ["x"], ["t", "result"])
            if favor:
                out.line("total = ptx.load_state(sums + u64(4) * u64(number))")
            else:
                _emit_inverse(out, self.x, self.head_dim)
                out.line("dot = f32(0.0)")
                with columns_loop(out, columns):
                    emit_scratch(out, "t", "t", columns)
                    emit_numbers(out, self.x, "x", "x", columns)
                    for i in range(QUAD):
                        out.line(f"dot += (x_{i} * inverse) * t_{i}")
                emit_sum_of_warp(out, "dot")
            with columns_loop(out, columns):
                emit_scratch(out, "t", "t", columns)
                emit_numbers(out, self.x, "x", "x", columns)
                for i in range(QUAD):
                    if favor:
                        out.line(f"t_{i} = f32({c!r}) * t_{i} - f32({c * c!r}) * x_{i} * total")
                    else:
                        out.line(f"t_{i} = (t_{i} - (x_{i} * inverse) * dot) * inverse")
                emit_kept(out, "t")
                emit_four(out, self.result, place_of("result", self.result), four("t"), "u32(there & here)")
        return out.text()
