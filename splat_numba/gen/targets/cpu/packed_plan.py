"""PackedPlan: the decisions about one kernel of the packed operators on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.machine import Machine
from splat_numba.gen.packed_problem import Operator, PackedProblem, RunTable
from splat_numba.gen.problem import ITEMSIZE, accumulator


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


def make_packed_plan(problem: PackedProblem, table: RunTable, machine: Machine) -> PackedPlan:
    """Decide. Softmax sees rows only, so all masks share its kernel."""
    rows_only = problem.operator == "softmax"
    return PackedPlan(
        operator=problem.operator,
        dtype=problem.dtype,
        dim=problem.dim,
        regular=rows_only or table.regular,
        step=1 if rows_only else table.one_step,
        contiguous=problem.contiguous,
        width=machine.lanes(ITEMSIZE[problem.compute_dtype]),
        # As attention's register tile, two vectors a row; numbers read one by one would only make the text's code grow.
        registers=2 * machine.register_rows if problem.contiguous else 1,
    )
