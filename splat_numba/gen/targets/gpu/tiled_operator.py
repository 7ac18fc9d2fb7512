"""A packed operator in tiles, whatever units multiply: what every target's traits of its text begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from splat_numba.gen.packed.problem import PackedProblem

TiledFamily = Literal["sddmm", "spmm"]
FAMILIES: tuple[TiledFamily, ...] = ("sddmm", "spmm")


@dataclass(frozen=True, slots=True)
class TiledOperator:
    """dim: numbers of a row of q and k, or of v."""

    family: TiledFamily
    dtype: str
    dim: int

    @classmethod
    def of(cls, problem: PackedProblem) -> Self:
        """Of a call. Raises ValueError for an operator that has no tiled text."""
        for family in FAMILIES:
            if family == problem.operator:
                return cls(family, problem.dtype, problem.dim)
        raise ValueError(f"operator wanted among {FAMILIES}, got {problem.operator!r}")
