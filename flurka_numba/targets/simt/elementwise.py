"""Elementwise feature maps: phi of every number of a matrix, and what a gradient by it is by the number."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.formulas import gpu_slope, gpu_text
from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.gpu_text import start_text
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


@dataclass(frozen=True, slots=True)
class ElementwiseTraits:
    """x: dtype of the input. Features are float32; 0 in rows beyond a key length, because phi(0) is not 0."""

    feature_map: FeatureMap
    x: str

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_features_simt_{self.feature_map.name}_{self.x}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return row_entry("features", (*operand_parameters("x"), *result_parameters("y")), ("columns",))

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        out = start_text(self.entry, f"Features {self.feature_map.name} of {self.x}.")
        with out.suite():
            emit_row_place(out, ["x"], ["y"])
            with columns_loop(out, "columns"):
                emit_numbers(out, self.x, "x", "x", "columns")
                for i in range(QUAD):
                    out.line(f"y_{i} = {gpu_text(self.feature_map.source, f'x_{i}')}")
                emit_kept(out, "y")
                emit_four(out, "float32", place_of("y", "float32"), four("y"), "u32(there & here)")
        return out.text()


@dataclass(frozen=True, slots=True)
class ElementwisePullTraits:
    """x, result: dtypes. result = dy * phi'(x), 0 in rows beyond a key length."""

    feature_map: FeatureMap
    x: str
    result: str

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_slopes_simt_{self.feature_map.name}_{self.x}_{self.result}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return row_entry("slopes", (*operand_parameters("x"), *result_parameters("dy", "result")), ("columns",))

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        phi = self.feature_map
        out = start_text(self.entry, f"Gradients through features {phi.name} of {self.x}, as {self.result}.")
        with out.suite():
            emit_row_place(out, ["x"], ["dy", "result"])
            with columns_loop(out, "columns"):
                emit_numbers(out, self.x, "x", "x", "columns")
                emit_scratch(out, "dy", "dy")
                for i in range(QUAD):
                    out.line(f"y = {gpu_text(phi.source, f'x_{i}')}")
                    out.line(f"dx_{i} = dy_{i} * {gpu_slope(phi.derivative_source, f'x_{i}', 'y')}")
                emit_kept(out, "dx")
                emit_four(out, self.result, place_of("result", self.result), four("dx"), "u32(there & here)")
        return out.text()
