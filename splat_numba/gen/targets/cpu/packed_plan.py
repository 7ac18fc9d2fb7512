"""PackedPlan: the decisions about one kernel of the packed operators on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.machine import Machine
from splat_numba.gen.packed_problem import Operator, PackedProblem, RunTable
from splat_numba.gen.problem import ITEMSIZE, accumulator


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """One kernel of R-SDDMM, R-softmax or R-SpMM, or of what their gradients need beside them.

    dim, contiguous: as in PackedProblem. regular: every row is at most one run. step: of all runs,
    a literal in the text; None where they differ. width: numbers in a vector; registers: vectors that sums may use at
    once.
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
    def rows_only(self) -> bool:
        """Whether it reads of a mask where each row's packed values are, and nothing else."""
        return rows_only(self.operator)

    @property
    def transposed(self) -> bool:
        """Whether rows are keys: packed values are read by their places, and heads that share a key add up."""
        return self.operator == "spmm_transposed"

    @property
    def vectors(self) -> int:
        """Vectors that hold ``dim`` numbers, the last one perhaps in part."""
        return -(-self.dim // self.width)

    @property
    def traits(self) -> str:
        """A name for files."""
        parts = [self.operator, self.dtype]
        if not self.rows_only:
            parts += [f"d{self.dim}", "regular" if self.regular else "runs"]
            parts += ["steps" if self.step is None else f"step{self.step}"]
        return "_".join(parts if self.contiguous else [*parts, "strided"])


def rows_only(operator: Operator) -> bool:
    """Whether an operator needs no runs."""
    return operator in ("softmax", "softmax_backward")


def make_packed_plan(problem: PackedProblem, table: RunTable, machine: Machine) -> PackedPlan:
    """Decide. Softmax sees rows only, so all masks share its kernel."""
    of_rows = rows_only(problem.operator)
    return PackedPlan(
        operator=problem.operator,
        dtype=problem.dtype,
        dim=problem.dim,
        regular=of_rows or table.regular,
        step=1 if of_rows else table.one_step,
        contiguous=problem.contiguous,
        width=machine.lanes(ITEMSIZE[problem.compute_dtype]),
        # As attention's register tile, two vectors a row; numbers read one by one would only make the text's code grow.
        registers=2 * machine.register_rows if problem.contiguous else 1,
    )
