"""A packed operator in tiles, whatever units multiply: what every target's traits of its text begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from splat_numba.gen.packed.problem import PackedProblem

TiledFamily = Literal["sddmm", "spmm", "columns"]
FAMILIES: tuple[TiledFamily, ...] = ("sddmm", "spmm")
"""That every target has; ``columns`` is `sm80`'s, of packed values that are transposed where they are multiplied."""
FAMILY_OF: dict[str, TiledFamily] = {"sddmm": "sddmm", "spmm": "spmm", "spmm_transposed": "spmm"}
"""Of the operators that have a tiled text, which one."""


@dataclass(frozen=True, slots=True)
class TiledOperator:
    """dim: numbers of a row of q and k, or of v."""

    family: TiledFamily
    dtype: str
    dim: int

    @classmethod
    def of(cls, problem: PackedProblem) -> Self:
        """Of a call. Raises ValueError for an operator that has no tiled text."""
        if problem.operator not in FAMILY_OF:
            raise ValueError(f"operator wanted among {', '.join(FAMILY_OF)}, got {problem.operator!r}")
        return cls(FAMILY_OF[problem.operator], problem.dtype, problem.dim)
