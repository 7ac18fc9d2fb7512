"""The three operators on packed values, SPLAT's own: R-SDDMM, R-softmax and R-SpMM. Attention fuses them."""

from __future__ import annotations

from typing import Any

from splat_numba.api import check_backend
from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.layouts import with_leading
from splat_numba.arguments.masks import OneMask
from splat_numba.arguments.packed import import_sampled, import_values, import_weighted
from splat_numba.executors.packed_call import PackedCall
from splat_numba.formats.acsr import ACSR
from splat_numba.runtime.arrays import export_array
from splat_numba.signatures import strict


@strict(ATTENTION)
def sddmm(q: Any, k: Any, mask: OneMask, *, scale: float = 1.0, backend: str = "auto") -> Any:
    """Sampled product: values[t] = scale * q_i.k_j for every kept pair (i, j), in the packed order of ``mask``.

    q: (batch, heads_q, seq_q, head_dim); k: (batch, heads_kv, seq_kv, head_dim); float16, bfloat16, float32 or float64,
    one dtype, any strides, head_dim 1 to 256. The batch axis, or batch and heads, may be missing from both. heads_q
    must be a multiple of heads_kv. mask: a Pattern, an ACSR or a (seq_q, seq_kv) bool array (True: kept), one for all
    heads.

    Returns (batch, heads_q, nnz), less the missing axes, of q's dtype and kind: the pairs of
    ``ACSR.from_pattern(mask, seq_q, seq_kv)`` or ``ACSR.from_dense(mask)``, in its packed order. Sums are kept in
    float32 (float64 for float64). NaN and inf reach the values of their own pairs only. Raises ArgumentError
    (ArgumentTypeError for types), PatternError, FormatError, BackendError.
    """
    check_backend(backend, None)
    given = import_sampled(q, k, mask, scale)
    values = PackedCall.of(given.acsr, given.q.dtype).sddmm(given.q4, given.k4, given.scale)
    return export_array(values.reshape(given.values_shape), given.q.dtype, q)


@strict(ATTENTION)
def softmax(values: Any, acsr: ACSR, *, backend: str = "auto") -> Any:
    """Softmax of every row of packed values: weights[t] = exp(values[t]) / sum of exp over the row of t.

    values: (batch, heads, nnz) in the packed order of ``acsr``, as sddmm gives them; float16, bfloat16, float32 or
    float64, any strides; leading axes may be missing. Returns the same shape, dtype and kind. Sums are kept in float32
    (float64 for float64). NaN or +inf in a row makes that row NaN; -inf weighs nothing, and a row of it alone gives 0.
    Raises ArgumentError (ArgumentTypeError for types), BackendError.
    """
    check_backend(backend, None)
    given = import_values(values, acsr)
    weights = PackedCall.of(acsr, given.dtype).softmax(with_leading(given.bits, 3))
    return export_array(weights.reshape(given.shape), given.dtype, values)


@strict(ATTENTION)
def spmm(values: Any, v: Any, acsr: ACSR, *, backend: str = "auto") -> Any:
    """Sparse times dense: out_i = sum of values[t] * v_j over the kept pairs t = (i, j) of row i.

    values: (batch, heads_q, nnz) in the packed order of ``acsr``; v: (batch, heads_kv, seq_kv, value_dim); float16,
    bfloat16, float32 or float64, one dtype, any strides, value_dim 1 to 256. The batch axis, or batch and heads, may be
    missing from both. heads_q must be a multiple of heads_kv.

    Returns (batch, heads_q, seq_q, value_dim), less the missing axes, of the values' dtype and kind; a row that keeps
    nothing is 0. Sums are kept in float32 (float64 for float64). NaN and inf reach the rows that keep them only. Raises
    ArgumentError (ArgumentTypeError for types), BackendError.
    """
    check_backend(backend, None)
    given = import_weighted(values, v, acsr)
    out = PackedCall.of(acsr, given.values.dtype).spmm(given.values3, given.v4)
    return export_array(out.reshape(given.out_shape), given.values.dtype, values)


__all__ = ["sddmm", "softmax", "spmm"]
