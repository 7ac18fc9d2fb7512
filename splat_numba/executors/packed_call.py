"""The packed operators over NumPy views: problems made from the views, results as fresh arrays.

Views have all their axes: (batch, heads, nnz) packed values, (batch, heads, seq, dim) everything else; 16-bit numbers
are uint16. Heads of keys and values divide those of queries and packed values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from splat_numba.executors.cpu_packed import CPU_PACKED
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.packed_problem import PackedProblem
from splat_numba.runtime.arrays import empty
from splat_numba.settings import Settings, current

Bits = NDArray[Any]


@dataclass(frozen=True, slots=True)
class PackedCall:
    """What calls over one mask have in common. dtype: of all arrays."""

    acsr: ACSR
    dtype: str
    settings: Settings

    @classmethod
    def of(cls, acsr: ACSR, dtype: str) -> PackedCall:
        """With the settings as they are now."""
        return cls(acsr, dtype, current())

    def sddmm(self, q: Bits, k: Bits, scale: float) -> Bits:
        """Values = scale * q.k."""
        batch, heads, _, dim = q.shape
        values = empty((batch, heads, self.acsr.nnz), self.dtype)
        problem = PackedProblem("sddmm", self.dtype, batch, heads, dim, scale, side_by_side(k))
        return self._run(problem, values, q=q, k=k, values=values)

    def softmax(self, values: Bits) -> Bits:
        """Weights."""
        weights = empty(values.shape, self.dtype)
        batch, heads, _ = values.shape
        problem = PackedProblem("softmax", self.dtype, batch, heads, contiguous=side_by_side(values))
        return self._run(problem, weights, values=values, weights=weights)

    def softmax_lse(self, values: Bits) -> Bits:
        """Weights over contiguous ``values``, in place, and the log-sum-exp of every row, (batch, heads, rows)."""
        batch, heads, _ = values.shape
        problem = PackedProblem("softmax_lse", self.dtype, batch, heads)
        lse = empty((batch, heads, self.acsr.shape[0]), problem.compute_dtype)
        return self._run(problem, lse, values=values, weights=values, lse=lse)

    def softmax_backward(self, weights: Bits, dweights: Bits) -> Bits:
        """Gradients of the values that softmax() made contiguous ``weights`` of."""
        dvalues = empty(weights.shape, self.dtype)
        batch, heads, _ = weights.shape
        problem = PackedProblem("softmax_backward", self.dtype, batch, heads, contiguous=side_by_side(dweights))
        return self._run(problem, dvalues, weights=weights, dweights=dweights, dvalues=dvalues)

    def spmm(self, values: Bits, v: Bits, scale: float = 1.0) -> Bits:
        """Rows of queries: scale * (values v)."""
        (batch, heads, _), dim = values.shape, v.shape[3]
        out = empty((batch, heads, self.acsr.shape[0], dim), self.dtype)
        problem = PackedProblem("spmm", self.dtype, batch, heads, dim, scale, side_by_side(v))
        return self._run(problem, out, values=values, v=v, out=out)

    def spmm_transposed(self, values: Bits, v: Bits, heads_kv: int, scale: float = 1.0) -> Bits:
        """Rows of keys: scale * (values^T v), added up over the heads that share one of ``heads_kv`` heads."""
        (batch, heads, _), dim = values.shape, v.shape[3]
        out = empty((batch, heads_kv, self.acsr.shape[1], dim), self.dtype)
        group = heads // max(heads_kv, 1)
        problem = PackedProblem("spmm_transposed", self.dtype, batch, heads_kv, dim, scale, side_by_side(v), group)
        return self._run(problem, out, values=values, v=v, out=out)

    def _run(self, problem: PackedProblem, result: Bits, **arrays: Bits) -> Bits:
        CPU_PACKED.run(problem, self.acsr, arrays, self.settings)
        return result


def side_by_side(array: Bits) -> bool:
    """Whether the numbers of a row are."""
    return array.shape[-1] <= 1 or array.strides[-1] == array.itemsize
