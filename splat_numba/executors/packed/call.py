"""The packed operators over views, wherever they are: problems made from the views, results as fresh arrays.

Views have all their axes: (batch, heads, nnz) packed values, (batch, heads, seq, dim) everything else; 16-bit numbers
in NumPy's are uint16. Heads of keys and values divide those of queries and packed values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from splat_numba.executors.packed.machine import PackedMachine, View
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.packed.problem import PackedProblem
from splat_numba.settings import Settings, current


@dataclass(frozen=True, slots=True)
class PackedCall:
    """What calls over one mask have in common. dtype: of all arrays; missing: leading axes that the caller's have not.

    Arrays and results are the machine's views.
    """

    machine: PackedMachine
    acsr: ACSR
    dtype: str
    settings: Settings
    missing: int = 0

    @classmethod
    def of(cls, machine: PackedMachine, acsr: ACSR, dtype: str, missing: int) -> PackedCall:
        """With the settings as they are now."""
        return cls(machine, acsr, dtype, current(), missing)

    def export(self, view: Any, like: Any) -> Any:
        """A result as an array of the kind of ``like``, less the missing axes."""
        return self.machine.export(view, self.dtype, self.missing, like)

    def _empty(self, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        return self.machine.empty(shape, dtype or self.dtype, self.missing)

    def sddmm(self, q: Any, k: Any, scale: float) -> Any:
        """Values = scale * q.k."""
        batch, heads, _, dim = q.shape
        values = self._empty((batch, heads, self.acsr.nnz))
        problem = PackedProblem("sddmm", self.dtype, batch, heads, dim, scale, side_by_side(k))
        return self._run(problem, values, q=q, k=k, values=values)

    def softmax(self, values: Any) -> Any:
        """Weights."""
        weights = self._empty(values.shape)
        batch, heads, _ = values.shape
        problem = PackedProblem("softmax", self.dtype, batch, heads, contiguous=side_by_side(values))
        return self._run(problem, weights, values=values, weights=weights)

    def softmax_lse(self, values: Any) -> Any:
        """Weights over contiguous ``values``, in place, and the log-sum-exp of every row, (batch, heads, rows)."""
        batch, heads, _ = values.shape
        problem = PackedProblem("softmax_lse", self.dtype, batch, heads)
        lse = self._empty((batch, heads, self.acsr.shape[0]), problem.compute_dtype)
        return self._run(problem, lse, values=values, weights=values, lse=lse)

    def softmax_backward(self, weights: Any, dweights: Any) -> Any:
        """Gradients of the values that softmax() made contiguous ``weights`` of."""
        dvalues = self._empty(weights.shape)
        batch, heads, _ = weights.shape
        problem = PackedProblem("softmax_backward", self.dtype, batch, heads, contiguous=side_by_side(dweights))
        return self._run(problem, dvalues, weights=weights, dweights=dweights, dvalues=dvalues)

    def spmm(self, values: Any, v: Any, scale: float = 1.0) -> Any:
        """Rows of queries: scale * (values v)."""
        (batch, heads, _), dim = values.shape, v.shape[3]
        out = self._empty((batch, heads, self.acsr.shape[0], dim))
        problem = PackedProblem("spmm", self.dtype, batch, heads, dim, scale, side_by_side(v))
        return self._run(problem, out, values=values, v=v, out=out)

    def spmm_transposed(self, values: Any, v: Any, heads_kv: int, scale: float = 1.0) -> Any:
        """Rows of keys: scale * (values^T v), added up over the heads that share one of ``heads_kv`` heads."""
        (batch, heads, _), dim = values.shape, v.shape[3]
        out = self._empty((batch, heads_kv, self.acsr.shape[1], dim))
        group = heads // max(heads_kv, 1)
        problem = PackedProblem("spmm_transposed", self.dtype, batch, heads_kv, dim, scale, side_by_side(v), group)
        return self._run(problem, out, values=values, v=v, out=out)

    def _run(self, problem: PackedProblem, result: Any, **arrays: Any) -> Any:
        self.machine.run(problem, self.acsr, arrays, self.settings)
        return result


def side_by_side(array: View) -> bool:
    """Whether the numbers of a row are."""
    return array.shape[-1] <= 1 or array.strides[-1] == array.itemsize
