"""The three operators on packed values, SPLAT's own: R-SDDMM, R-softmax and R-SpMM. Attention fuses them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from splat_numba.api import check_backend
from splat_numba.arguments.heads import check_heads, check_layouts_agree
from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.layouts import with_leading
from splat_numba.arguments.masks import OneMask, store_mask
from splat_numba.arguments.numbers import check_number
from splat_numba.arguments.options import check_scale_range
from splat_numba.arguments.sizes import check_sizes
from splat_numba.arguments.tokens import check_axes, check_keys, check_like, check_tokens
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.executors.cpu_packed import CPU_PACKED
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.packed_problem import PackedProblem
from splat_numba.plain import kind
from splat_numba.runtime.arrays import Array, empty, export_array, import_array
from splat_numba.settings import current
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
    arrays = {name: import_array(name, array) for name, array in (("q", q), ("k", k))}
    check_tokens(arrays, ("batch", "heads", "seq", "head_dim"))
    first = arrays["q"]
    q4, k4 = (with_leading(array.bits, 4) for array in arrays.values())
    check_keys(q4.shape, k4.shape)
    check_layouts_agree(q4.shape, k4.shape)
    check_heads(q4.shape[1], k4.shape[1])
    check_sizes(q4.shape[2], k4.shape[2], q4.shape[3], q4.shape[3])
    factor = check_scale_range(check_number("scale", scale, "Give a Python float, or leave it out for 1."), first.dtype)
    stored = store_mask(mask, q4.shape[2], k4.shape[2])
    acsr = _stored_pattern(stored, q4.shape[2], k4.shape[2]) if isinstance(stored, Pattern) else stored
    values = empty((*q4.shape[:2], acsr.nnz), first.dtype)
    batch, heads, _, head_dim = q4.shape
    problem = PackedProblem("sddmm", first.dtype, batch, heads, head_dim, factor, _side_by_side(k4))
    CPU_PACKED.run(problem, acsr, {"q": q4, "k": k4, "values": values}, current())
    return export_array(values.reshape(*first.shape[:-2], acsr.nnz), first.dtype, q)


@strict(ATTENTION)
def softmax(values: Any, acsr: ACSR, *, backend: str = "auto") -> Any:
    """Softmax of every row of packed values: weights[t] = exp(values[t]) / sum of exp over the row of t.

    values: (batch, heads, nnz) in the packed order of ``acsr``, as sddmm gives them; float16, bfloat16, float32 or
    float64, any strides; leading axes may be missing. Returns the same shape, dtype and kind. Sums are kept in float32
    (float64 for float64). NaN or +inf in a row makes that row NaN; -inf weighs nothing, and a row of it alone gives 0.
    Raises ArgumentError (ArgumentTypeError for types), BackendError.
    """
    check_backend(backend, None)
    _check_acsr(acsr)
    given = import_array("values", values)
    _check_values(given, acsr)
    weights = empty(given.shape, given.dtype)
    values3 = with_leading(given.bits, 3)
    batch, heads, _ = values3.shape
    problem = PackedProblem("softmax", given.dtype, batch, heads, contiguous=_side_by_side(values3))
    CPU_PACKED.run(problem, acsr, {"values": values3, "weights": with_leading(weights, 3)}, current())
    return export_array(weights, given.dtype, values)


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
    _check_acsr(acsr)
    given, dense = import_array("values", values), import_array("v", v)
    _check_values(given, acsr)
    check_like("v", dense, "values", given, 1)
    values3, v4 = with_leading(given.bits, 3), with_leading(dense.bits, 4)
    seq_q, seq_kv = acsr.shape
    if v4.shape[0] != values3.shape[0] or v4.shape[2] != seq_kv:
        wanted = (values3.shape[0], v4.shape[1], seq_kv, "any")
        raise ArgumentError(
            f"v wanted as (batch, heads, seq, value_dim) = {wanted} to fit values and acsr, got {v4.shape}. "
            "Check its axes."
        )
    check_heads(values3.shape[1], v4.shape[1], name="v", like="the values'")
    check_sizes(seq_q, seq_kv, 1, v4.shape[3])
    out = empty((*values3.shape[:2], seq_q, v4.shape[3]), given.dtype)
    (batch, heads, _), value_dim = values3.shape, v4.shape[3]
    problem = PackedProblem("spmm", given.dtype, batch, heads, value_dim, contiguous=_side_by_side(v4))
    CPU_PACKED.run(problem, acsr, {"values": values3, "v": v4, "out": out}, current())
    return export_array(out.reshape(*given.shape[:-1], *out.shape[2:]), given.dtype, values)


@lru_cache(maxsize=16)
def _stored_pattern(pattern: Pattern, seq_q: int, seq_kv: int) -> ACSR:
    """The runs of a pattern, remembered: making them can take longer than using them."""
    return ACSR.from_pattern(pattern, seq_q, seq_kv)


def _side_by_side(array: NDArray[Any]) -> bool:
    """Whether the numbers of a row are."""
    return array.shape[-1] <= 1 or array.strides[-1] == array.itemsize


def _check_values(values: Array, acsr: ACSR) -> None:
    check_axes("values", values, ("batch", "heads", "nnz"), 1)
    if values.shape[-1] != acsr.nnz:
        raise ArgumentError(
            f"values wanted with a last axis of nnz = {acsr.nnz}, one for each pair of acsr, got shape {values.shape}. "
            "Give what sddmm gave for this mask."
        )


def _check_acsr(acsr: Any) -> None:
    if isinstance(acsr, ACSR):
        return
    if isinstance(acsr, Pattern):
        raise ArgumentTypeError(
            "acsr wanted as an ACSR, got a Pattern, which has no size. "
            "Build it with splat.ACSR.from_pattern(pattern, seq_q, seq_kv)."
        )
    if isinstance(acsr, (list, tuple)):
        raise ArgumentTypeError(f"acsr wanted as one ACSR, got a {kind(acsr)}. Only attention takes a mask a head.")
    raise ArgumentTypeError(
        f"acsr wanted as an ACSR, got {kind(acsr)}. Build it with splat.from_dense(mask) or splat.from_csr(...)."
    )


__all__ = ["sddmm", "softmax", "spmm"]
