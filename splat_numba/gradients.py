"""The public gradients of attention: the functional form, and the one that keeps what it needs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, Unpack, overload

from splat_numba.arguments.frozen import check_frozen
from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.layouts import check_layout
from splat_numba.arguments.masks import Mask
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.options import scale_number
from splat_numba.arguments.typed import Array, Backend, Layout, Precision, Target, VjpOptions
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.executor import BackwardCall
from splat_numba.executors.given import Given
from splat_numba.executors.vjp import with_vjp
from splat_numba.gen.plans.backward import INPUTS
from splat_numba.signatures import strict


@strict(ATTENTION)
def attention_backward(
    dout: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    mask: Mask,
    *,
    dlse: Any = None,
    scale: float | None = None,
    layout: Layout = "bhsd",
    kv_lengths: Any = None,
    backend: Backend = "auto",
    target: Target | None = None,
    precision: Precision = "ieee",
    frozen: Collection[str] = (),
    out_grads: Any = None,
) -> tuple[Any, Any, Any]:
    """Gradients (dq, dk, dv) of `attention` for a gradient ``dout`` of its result, and ``dlse`` of its lse.

    With P = exp(scale q k^T - lse) and delta_i = sum(dout_i * out_i) - dlse_i: dv = P^T dout, dS = scale P (dout v^T -
    delta), dq = dS k, dk = dS^T q (Dao et al., FlashAttention, 2022, appendix B); of grouped heads summed over the
    group. The same call gives the same bits, on any number of threads.

    Parameters
    ----------
    dout : array (batch, heads_q, seq_q, value_dim)
        As out: its shape, dtype and layout.
    q, k, v, mask
        As attention() had them.
    out, lse : array
        What attention() returned.
    dlse : array (batch, heads_q, seq_q)
        As lse; zeros unless given.
    scale, layout, kv_lengths, backend, target, precision
        As attention() had them.
    frozen : names of q, k and v
        Whose gradients are not wanted: None is returned for them, and nothing is computed for them alone.
    out_grads : three arrays
        To write dq, dk and dv to, or None in place of some.

    Returns
    -------
    dq, dk, dv : array
        Of the shape, dtype and layout of q, k and v; 16-bit ones are rounded once, from float32 sums. A row that keeps
        nothing gives zeros, whatever dout and dlse hold, and so does a key beyond its entry's length.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError
        As attention() does.

    Notes
    -----
    A NaN in an input reaches gradients that depend on it or share a tile with it, because 0 x NaN is NaN. On GPUs
    (float16, bfloat16) weights and gradients of scores are rounded to the arrays' dtype, for their tensor cores.
    """
    check_layout(layout)
    if scale is not None and type(scale) is not float:
        scale = scale_number(scale)
    recipe = Given(mask, choose_executor(backend, target, q, precision), layout, scale)
    names = check_frozen(frozen, INPUTS)
    return recipe.executor.backward(recipe, BackwardCall(dout, q, k, v, out, lse, dlse, kv_lengths, names, out_grads))


@overload
def attention_vjp(
    q: Array, k: Any, v: Any, mask: Mask, *, return_lse: Literal[False] = False, **options: Unpack[VjpOptions]
) -> tuple[Array, Any]: ...
@overload
def attention_vjp(
    q: Array, k: Any, v: Any, mask: Mask, *, return_lse: Literal[True], **options: Unpack[VjpOptions]
) -> tuple[Array, Any, Any]: ...
@overload
def attention_vjp(q: Any, k: Any, v: Any, mask: Mask, *, return_lse: bool, **options: Unpack[VjpOptions]) -> Any: ...
@strict(ATTENTION)
def attention_vjp(
    q: Any,
    k: Any,
    v: Any,
    mask: Mask,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    layout: Layout = "bhsd",
    kv_lengths: Any = None,
    backend: Backend = "auto",
    target: Target | None = None,
    precision: Precision = "ieee",
    autotune: bool = False,
    frozen: Collection[str] = (),
) -> Any:
    """(out, vjp) of `attention`, or (out, lse, vjp): vjp(dout, dlse=None) gives (dq, dk, dv); see attention_backward().

    Parameters
    ----------
    q, k, v, mask, scale, return_lse, layout, kv_lengths, backend, target, precision
        As in attention().
    autotune : bool
        As in attention(); on a CPU gradients are timed too, at the first vjp of their kind, and have a choice of their
        own. A GPU's have the plan that is predicted to be fastest.
    frozen : names of q, k and v
        Whose gradients are not wanted: None is returned for them.

    Returns
    -------
    out : array
        As attention() gives it.
    lse : array, with return_lse=True
        Likewise.
    vjp : function
        vjp(dout, dlse=None) -> (dq, dk, dv). It may be called again and again. It holds q, k, v, out and lse, which
        must not change meanwhile.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError
        As attention() does.
    """
    check_layout(layout)
    if scale is not None and type(scale) is not float:
        scale = scale_number(scale)
    executor = choose_executor(backend, target, q, precision)
    if autotune is not False and check_flag("autotune", autotune):
        executor = executor.measured()
    recipe = Given(mask, executor, layout, scale)
    return with_vjp(recipe, q, k, v, kv_lengths, frozen, check_flag("return_lse", return_lse))


__all__ = ["attention_backward", "attention_vjp"]
