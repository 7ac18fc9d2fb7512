"""PackedPlan: the decisions about one kernel of the packed operators on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field

from splat_numba.gen.language.dtypes import ITEMSIZE, accumulator
from splat_numba.gen.packed.groups import GroupTable
from splat_numba.gen.packed.problem import Operator, PackedProblem, RunTable
from splat_numba.gen.plans.explain import explain_choice
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Choice

SHARED_WORTH = 0.5  # of the pairs: below that what is walked twice costs more than what is shared saves


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """One kernel of R-SDDMM, R-softmax or R-SpMM, or of what their gradients need beside them.

    dim, contiguous: as in PackedProblem. regular: every row is at most one run. step: of all runs,
    a literal in the text; None where they differ. width: numbers in a vector; registers: vectors that sums may use at
    once. shared_rows: that read a key or value once for all of them, of a GroupTable; 1: row by row. choice: why.
    """

    operator: Operator
    dtype: str
    dim: int
    regular: bool
    step: int | None
    contiguous: bool
    width: int
    registers: int
    shared_rows: int = 1
    choice: Choice | None = field(default=None, compare=False)

    def explain(self) -> str:
        """The plan in words."""
        lines = [f"packed      {self.traits}, {self.width} numbers a vector"]
        return "\n".join(lines if self.choice is None else [*lines, *explain_choice(self.choice)])

    @property
    def grouped(self) -> bool:
        """Whether its items are groups of rows."""
        return self.shared_rows > 1

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
            parts += [f"rows{self.shared_rows}"] if self.grouped else []
        return "_".join(parts if self.contiguous else [*parts, "strided"])


def rows_only(operator: Operator) -> bool:
    """Whether an operator needs no runs."""
    return operator.startswith("softmax")


def rows_to_share(problem: PackedProblem, machine: Machine) -> int:
    """Rows of a group, where rows are to be grouped at all; 1 where numbers are read one by one.

    In sddmm a vector of sums has as many keys of every row as there is room for. 4 rows halve the loads of each
    multiply-add and leave a quarter of the keys' way through the caches; with 16 registers there is room for 2.
    """
    if rows_only(problem.operator) or not problem.contiguous:
        return 1
    return min(machine.register_rows // 2, machine.lanes(ITEMSIZE[problem.compute_dtype]))


def keys_to_share(problem: PackedProblem, machine: Machine) -> int:
    """Fewest columns that a group's piece may have: those of one vector of sddmm's sums."""
    return max(machine.lanes(ITEMSIZE[problem.compute_dtype]) // rows_to_share(problem, machine), 1)


def make_packed_plan(
    problem: PackedProblem, table: RunTable, machine: Machine, groups: GroupTable | None = None
) -> PackedPlan:
    """Decide. Softmax sees rows only, so all masks share its kernel. groups: of the same mask, where rows may share."""
    of_rows = rows_only(problem.operator)
    shared, choice = _shared_rows(groups)
    return PackedPlan(
        operator=problem.operator,
        dtype=problem.dtype,
        dim=problem.dim,
        regular=of_rows or (table.regular and shared == 1),
        shared_rows=shared,
        choice=choice,
        step=1 if of_rows else table.one_step,
        contiguous=problem.contiguous,
        width=machine.lanes(ITEMSIZE[problem.compute_dtype]),
        # As attention's register tile, two vectors a row; numbers read one by one would only make the text's code grow.
        registers=2 * machine.register_rows if problem.contiguous else 1,
    )


def _shared_rows(groups: GroupTable | None) -> tuple[int, Choice | None]:
    """How many rows share loads, and why."""
    if groups is None:
        return 1, None
    ways = (f"groups of {groups.size} rows that share loads", "row by row")
    why = f"{groups.share:.0%} of the pairs are in columns that a whole group keeps"
    taken = groups.share >= SHARED_WORTH
    chosen, refused = ways if taken else ways[::-1]
    limit = f"wanted {'below' if taken else 'at least'} {SHARED_WORTH:.0%}"
    return groups.size if taken else 1, Choice("rows", chosen, why, ((refused, limit),))
