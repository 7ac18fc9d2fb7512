"""PackedProblem: a call of R-SDDMM, R-softmax or R-SpMM, or of what their gradients need beside them, as given; and the
run table that says which pairs it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.run_table import Runs, columns, csr_order
from splat_numba.formats.sealed import Sealed
from splat_numba.gen.language.dtypes import accumulator

Operator = Literal["sddmm", "softmax", "spmm", "softmax_backward", "spmm_transposed", "softmax_lse"]


@dataclass(frozen=True, slots=True)
class PackedProblem:
    """heads: of the result; in spmm_transposed each adds up ``group`` heads of packed values. dim: head_dim of sddmm,
    value_dim of both spmm, 0 for softmax and its gradient. scale: of products, else 1. contiguous: the numbers of a
    key, of a value or, in softmax, of a row of packed values (in its gradient of their gradients) lie side by side.
    """

    operator: Operator
    dtype: str
    batch: int
    heads: int
    dim: int = 0
    scale: float = 1.0
    contiguous: bool = True
    group: int = 1

    @property
    def transposed(self) -> bool:
        """Whether it walks the rows of the transposed mask."""
        return self.operator == "spmm_transposed"

    @property
    def compute_dtype(self) -> str:
        """What is accumulated: float64 for float64, float32 for everything else."""
        return accumulator(self.dtype)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RunTable(Sealed):
    """What a kernel reads of a mask, all int64: runs as in ACSR, and where each row's packed values start.

    run_ptr, slot_ptr: (rows + 1,); start, step, count: (runs,). regular: every row is at most one run; one_step: the
    step of all runs, None where they differ. place: (nnz,), of a transposed mask, where the packed values of its pairs
    stand in the order of the mask itself; None where they stand in the table's own order. turned: of a transposed mask,
    the table of the mask itself.
    """

    run_ptr: NDArray[np.int64]
    slot_ptr: NDArray[np.int64]
    start: NDArray[np.int64]
    step: NDArray[np.int64]
    count: NDArray[np.int64]
    regular: bool
    one_step: int | None
    place: NDArray[np.int64] | None = None
    turned: RunTable | None = None

    @classmethod
    def of(cls, acsr: ACSR) -> RunTable:
        """The table of a mask; its cost is that of the runs, not of the pairs."""
        return cls.from_runs(acsr.runs)

    @classmethod
    def transposed(cls, acsr: ACSR) -> RunTable:
        """The table of the transposed mask, whose rows are keys, over the packed values of the mask as it is.

        It is as long as one head's packed values: each pair has its place, 8 bytes.
        """
        turned = acsr.transpose()
        return cls.from_runs(turned.runs, _places(acsr.runs, turned.runs), cls.of(acsr))

    @classmethod
    def from_runs(
        cls, runs: Runs, place: NDArray[np.int64] | None = None, turned: RunTable | None = None
    ) -> RunTable:  # fmt: skip
        """The table of these runs."""
        regular = bool((runs.runs_per_row <= 1).all())
        packed = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs.count)])
        steps = np.unique(runs.step[runs.count > 1])  # a single column fits every step
        one_step = int(steps[0]) if steps.size == 1 else None if steps.size else 1
        slot_ptr = packed[runs.row_ptr]
        return cls(runs.row_ptr, slot_ptr, runs.start, runs.step, runs.count, regular, one_step, place, turned)

    @property
    def rows(self) -> int:
        """Rows of the mask."""
        return self.run_ptr.size - 1

    @property
    def longest(self) -> int:
        """Most pairs in a row."""
        return int(np.diff(self.slot_ptr).max(initial=0))


def _places(runs: Runs, turned: Runs) -> NDArray[np.int64]:
    """Of every pair of the transposed runs, in their packed order, its position in the packed order of ``runs``.

    Packed values ascend by rows, so a stable sort by columns has each column's rows ascending: the transposed mask in
    CSR order, which differs from its packed order where runs of a row interleave.
    """
    ascending = np.argsort(columns(runs), kind="stable")
    order = csr_order(turned)
    if order is None:
        return ascending
    place = np.empty_like(ascending)
    place[order] = ascending
    return place
