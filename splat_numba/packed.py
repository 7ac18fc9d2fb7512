"""The three operators on packed values, SPLAT's own: R-SDDMM, R-softmax and R-SpMM. Attention fuses them.

backend: "auto" runs where the first argument is, "cpu" on the CPU, "cuda" on a GPU (NumPy's arrays are copied there and
back), "emulate" a GPU's texts on NumPy. All arrays of a call are in one place and, on a GPU, of one framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.masks import OneMask
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.packed import (
    GpuOperator,
    check_acsr,
    import_packed_problem,
    import_sampled,
    import_values,
    import_weighted,
)
from splat_numba.arguments.typed import Dtype
from splat_numba.executors.choice import choose_packed
from splat_numba.executors.packed.call import PackedCall
from splat_numba.formats.acsr import ACSR
from splat_numba.signatures import strict

if TYPE_CHECKING:
    from splat_numba.gen.targets.packed import PackedPlan


@strict(ATTENTION)
def sddmm(q: Any, k: Any, mask: OneMask, *, scale: float = 1.0, backend: str = "auto") -> Any:
    """Sampled product: values[t] = scale * q_i.k_j for every kept pair (i, j), in the packed order of ``mask``.

    Sums are kept in float32 (float64 for float64). NaN and inf reach the values of their own pairs only.

    Parameters
    ----------
    q : array (batch, heads_q, seq_q, head_dim)
        float16, bfloat16, float32 or float64, any strides, head_dim 1 to 256. The batch axis, or batch and heads, may
        be missing from q and k together. heads_q is a multiple of heads_kv.
    k : array (batch, heads_kv, seq_kv, head_dim)
        Of q's dtype and kind.
    mask : Pattern, ACSR or bool array (seq_q, seq_kv)
        True: kept; one for all heads.
    scale : float
        What products are multiplied with.
    backend : "auto", "cpu", "cuda" or "emulate"
        "auto" runs where q is.

    Returns
    -------
    values : array (batch, heads_q, nnz)
        Less the missing axes, of q's dtype and kind: the pairs of ``ACSR.from_pattern(mask, seq_q, seq_kv)`` or
        ``ACSR.from_dense(mask)``, in its packed order.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError
        For what does not fit; on a GPU ArgumentError for 2**31 pairs.
    """
    machine = choose_packed(backend, "q", q)
    given = import_sampled(q, k, mask, scale, machine.read)
    call = PackedCall.of(machine, given.acsr, given.q.dtype, 4 - len(given.q.shape))
    return call.export(call.sddmm(machine.view(given.q, 4), machine.view(given.k, 4), given.scale), q)


@strict(ATTENTION)
def softmax(values: Any, acsr: ACSR, *, backend: str = "auto") -> Any:
    """Softmax of every row of packed values: weights[t] = exp(values[t]) / sum of exp over the row of t.

    Sums are kept in float32 (float64 for float64). NaN or +inf in a row makes that row NaN; -inf weighs nothing, and a
    row of it alone gives 0.

    Parameters
    ----------
    values : array (batch, heads, nnz)
        In the packed order of ``acsr``, as sddmm gives them; float16, bfloat16, float32 or float64, any strides;
        leading axes may be missing.
    acsr : ACSR
        The mask; a Pattern has no size.
    backend : "auto", "cpu", "cuda" or "emulate"
        "auto" runs where the values are.

    Returns
    -------
    weights : array (batch, heads, nnz)
        Of the values' shape, dtype and kind.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        For what does not fit.
    """
    machine = choose_packed(backend, "values", values)
    given = import_values(values, acsr, machine.read)
    call = PackedCall.of(machine, acsr, given.dtype, 3 - len(given.shape))
    return call.export(call.softmax(machine.view(given, 3)), values)


@strict(ATTENTION)
def spmm(values: Any, v: Any, acsr: ACSR, *, transpose: bool = False, backend: str = "auto") -> Any:
    """Sparse times dense: out_i = sum of values[t] * v_j over the kept pairs t = (i, j) of row i.

    Sums are kept in float32 (float64 for float64). NaN and inf reach the rows that keep them only; on a
    GPU those of v may reach other rows of their tiles.

    Parameters
    ----------
    values : array (batch, heads_q, nnz)
        In the packed order of ``acsr``; float16, bfloat16, float32 or float64, any strides. The batch axis, or batch
        and heads, may be missing from values and v together. heads_q is a multiple of heads_kv.
    v : array (batch, heads_kv, seq_kv, value_dim)
        Of the values' dtype and kind, value_dim 1 to 256; (batch, heads_q, seq_q, value_dim) with transpose=True.
    acsr : ACSR
        The mask.
    transpose : bool
        out_j = sum of values[t] * v_i over the kept pairs of column j instead; the mask's transpose is made and kept
        with it.
    backend : "auto", "cpu", "cuda" or "emulate"
        "auto" runs where the values are.

    Returns
    -------
    out : array (batch, heads_q, seq_q, value_dim)
        Less the missing axes, of the values' dtype and kind; seq_kv in place of seq_q with transpose=True. A row that
        keeps nothing is 0.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        For what does not fit.
    """
    turned = check_flag("transpose", transpose)
    machine = choose_packed(backend, "values", values)
    given = import_weighted(values, v, acsr, machine.read, transpose=turned)
    call = PackedCall.of(machine, acsr, given.values.dtype, 3 - len(given.values.shape))
    weights, rows = machine.view(given.values, 3), machine.view(given.v, 4)
    out = call.spmm_transposed(weights, rows, given.heads_kv) if turned else call.spmm(weights, rows)
    return call.export(out, values)


@strict(ATTENTION)
def plan_packed(
    operator: GpuOperator, acsr: ACSR, *, dtype: Dtype, dim: int = 0, heads: int = 1, batch: int = 1
) -> PackedPlan:  # fmt: skip
    """What a GPU would do, this machine's first one or, without any, a Hopper: ``plan_packed(...).explain()`` says it.

    Parameters
    ----------
    operator : "sddmm", "softmax", "spmm", "softmax_backward" or "spmm_transposed"
        The last is what the gradients of k and v are.
    acsr : ACSR
        The mask.
    dtype : NumPy dtype or its name
        Of the arrays.
    dim : int
        Numbers of a key or a value, 0 for softmax.
    heads, batch : int
        Of the result.

    Returns
    -------
    PackedPlan
        With ``explain()``.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For what does not fit.
    """
    from splat_numba.executors.gpu.executor import gpu
    from splat_numba.executors.gpu.packed import lists_of
    from splat_numba.gen.targets.packed import PackedPlan

    check_acsr(acsr)
    problem = import_packed_problem(operator, dtype, batch, heads, dim)
    return PackedPlan.of(problem, lists_of(acsr, transposed=problem.transposed).lists, gpu())


__all__ = ["plan_packed", "sddmm", "softmax", "spmm"]
