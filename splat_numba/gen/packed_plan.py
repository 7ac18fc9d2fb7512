"""PackedPlan: the decisions about one kernel of the packed operators, and the run table that such kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.sealed import Sealed
from splat_numba.gen.machine import Machine
from splat_numba.gen.problem import ITEMSIZE, accumulator

Operator = Literal["sddmm", "softmax", "spmm"]


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """One kernel of R-SDDMM, R-softmax or R-SpMM.

    dim: head_dim of sddmm, value_dim of spmm, 0 for softmax. regular: every row is at most one run. step: of all runs,
    a literal in the text; None where they differ. contiguous: the numbers of a key, of a value or, in softmax, of a row
    of packed values lie side by side. width: numbers in a vector; registers: vectors that sums may use at once.
    """

    operator: Operator
    dtype: str
    dim: int
    regular: bool
    step: int | None
    contiguous: bool
    width: int
    registers: int

    @property
    def compute_dtype(self) -> str:
        """What is accumulated: float64 for float64, float32 for everything else."""
        return accumulator(self.dtype)

    @property
    def vectors(self) -> int:
        """Vectors that hold ``dim`` numbers, the last one perhaps in part."""
        return -(-self.dim // self.width)

    @property
    def traits(self) -> str:
        """A name for files."""
        parts = [self.operator, self.dtype]
        if self.operator != "softmax":
            parts += [f"d{self.dim}", "regular" if self.regular else "runs"]
            parts += ["steps" if self.step is None else f"step{self.step}"]
        return "_".join(parts if self.contiguous else [*parts, "strided"])


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


def make_packed_plan(
    operator: Operator, dtype: str, machine: Machine, table: RunTable, *, dim: int = 0, contiguous: bool = True
) -> PackedPlan:
    """Decide. Softmax sees rows only, so all masks share its kernel."""
    rows_only = operator == "softmax"
    width = machine.lanes(ITEMSIZE[accumulator(dtype)])
    return PackedPlan(
        operator=operator,
        dtype=dtype,
        dim=dim,
        regular=rows_only or table.regular,
        step=1 if rows_only else table.one_step,
        contiguous=contiguous,
        width=width,
        # As attention's register tile, two vectors a row; numbers read one by one would only make the text's code grow.
        registers=2 * machine.register_rows if contiguous else 1,
    )


def balanced_ranges(table: RunTable, heads: int, parts: int, row_cost: int) -> NDArray[np.int64]:
    """Limits, (parts + 1,), in (head, row) items, rows fastest, that cut the work evenly.

    A row costs its pairs + row_cost.
    """
    rows = table.rows
    cost = table.slot_ptr + np.arange(rows + 1, dtype=np.int64) * row_cost
    whole = int(cost[-1])
    if whole * heads == 0:
        return np.array([0, heads * rows], np.int64)
    targets = np.array([whole * heads * part // parts for part in range(1, parts)], np.int64)
    head, rest = np.divmod(targets, whole)
    inner = head * rows + np.searchsorted(cost, rest)
    return np.concatenate([np.zeros(1, np.int64), inner, np.array([heads * rows], np.int64)])
