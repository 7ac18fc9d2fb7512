"""PackedProblem: a call of R-SDDMM, R-softmax or R-SpMM, as given, and the run table that says which pairs it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.sealed import Sealed
from splat_numba.gen.problem import accumulator

Operator = Literal["sddmm", "softmax", "spmm"]


@dataclass(frozen=True, slots=True)
class PackedProblem:
    """heads: of the packed values, or queries; dim: head_dim of sddmm, value_dim of spmm, 0 for softmax. scale: of
    sddmm, else 1. contiguous: the numbers of a key, of a value or, in softmax, of a row of packed values lie side by
    side.
    """

    operator: Operator
    dtype: str
    batch: int
    heads: int
    dim: int = 0
    scale: float = 1.0
    contiguous: bool = True

    @property
    def compute_dtype(self) -> str:
        """What is accumulated: float64 for float64, float32 for everything else."""
        return accumulator(self.dtype)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RunTable(Sealed):
    """What a kernel reads of a mask, all int64: runs as in ACSR, and where each row's packed values start.

    run_ptr, slot_ptr: (rows + 1,); start, step, count: (runs,). regular: every row is at most one run; one_step: the
    step of all runs, None where they differ.
    """

    run_ptr: NDArray[np.int64]
    slot_ptr: NDArray[np.int64]
    start: NDArray[np.int64]
    step: NDArray[np.int64]
    count: NDArray[np.int64]
    regular: bool
    one_step: int | None

    @classmethod
    def of(cls, acsr: ACSR) -> RunTable:
        """The table of a mask; its cost is that of the runs, not of the pairs."""
        runs = acsr.runs
        packed = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs.count)])
        steps = np.unique(runs.step[runs.count > 1])  # a single column fits every step
        one_step = int(steps[0]) if steps.size == 1 else None if steps.size else 1
        slot_ptr = packed[runs.row_ptr]
        return cls(runs.row_ptr, slot_ptr, runs.start, runs.step, runs.count, acsr.is_regular, one_step)

    @property
    def rows(self) -> int:
        """Rows of the mask."""
        return self.run_ptr.size - 1

    @property
    def longest(self) -> int:
        """Most pairs in a row."""
        return int(np.diff(self.slot_ptr).max(initial=0))
