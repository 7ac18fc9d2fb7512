"""The packed operators with their gradients: each result comes with a function that takes its gradient back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from splat_numba.arguments.frozen import check_frozen
from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.masks import OneMask
from splat_numba.arguments.packed import Result, import_gradient, import_sampled, import_values, import_weighted
from splat_numba.executors.choice import choose_packed
from splat_numba.executors.packed.call import PackedCall
from splat_numba.formats.acsr import ACSR
from splat_numba.signatures import strict

Pair: TypeAlias = tuple[Any, Any]


@strict(ATTENTION)
def sddmm_vjp(
    q: Any, k: Any, mask: OneMask, *, scale: float = 1.0, backend: str = "auto", frozen: Collection[str] = ()
) -> tuple[Any, Callable[[Any], Pair]]:
    """(values, vjp) of `sddmm`: vjp(dvalues) gives (dq, dk).

    With dS the matrix of dvalues, 0 where nothing is kept: dq = scale dS k and dk = scale dS^T q.

    Parameters
    ----------
    q, k, mask, scale, backend
        As in sddmm(). For many steps over one mask give an ACSR.
    frozen : names of q and k
        Whose gradients are not wanted: None is returned for them, and nothing is computed for them: without dk the
        transposed mask is not made.

    Returns
    -------
    values : array (batch, heads_q, nnz)
        As sddmm() gives them.
    vjp : function
        vjp(dvalues) -> (dq, dk), dvalues of the values' shape and dtype, any strides. dq and dk have the shape, dtype
        and kind of q and k; of grouped heads dk is summed over the group, in order, and 16-bit numbers are rounded
        once, from float32 sums. A query that keeps nothing, and a key that nobody keeps, get 0. The same call gives the
        same bits, on any number of threads. vjp may be called again and again. It holds q and k, which must not change
        meanwhile. The first one over a mask makes the mask's transpose and the places of its pairs, 8 bytes for each,
        which stay as long as the mask.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError
        As sddmm() does.
    """
    machine = choose_packed(backend, "q", q)
    names = check_frozen(frozen, ("q", "k"))
    given = import_sampled(q, k, mask, scale, machine.read)
    dtype, factor, missing = given.q.dtype, given.scale, 4 - len(given.q.shape)
    q4, k4 = machine.view(given.q, 4), machine.view(given.k, 4)
    first = PackedCall.of(machine, given.acsr, dtype, missing)

    def vjp(dvalues: Any) -> Pair:
        result = Result(given.values_shape, dtype)
        gradient = import_gradient("dvalues", dvalues, "values", result, machine.read)
        changes, call = machine.view(gradient, 3), PackedCall.of(machine, given.acsr, dtype, missing)
        dq = dk = None
        if "q" not in names:
            dq = call.export(call.spmm(changes, k4, factor), q)
        if "k" not in names:
            dk = call.export(call.spmm_transposed(changes, q4, given.heads_kv, factor), k)
        return dq, dk

    return first.export(first.sddmm(q4, k4, factor), q), vjp


@strict(ATTENTION)
def softmax_vjp(
    values: Any, acsr: ACSR, *, backend: str = "auto", frozen: Collection[str] = ()
) -> tuple[Any, Callable[[Any], Any]]:
    """(weights, vjp) of `softmax`: vjp(dweights) gives dvalues = weights * (dweights - the row's sum of their product).

    Parameters
    ----------
    values, acsr, backend
        As in softmax().
    frozen : ("values",) or ()
        The former where their gradient is not wanted: then vjp gives None and computes nothing.

    Returns
    -------
    weights : array (batch, heads, nnz)
        As softmax() gives them.
    vjp : function
        vjp(dweights) -> dvalues, dweights of the weights' shape and dtype, any strides. dvalues has the shape, dtype
        and kind of values; sums are kept in float32 (float64 for float64). A weight of 0 adds nothing to its row and
        gets 0, whatever its dweight holds; a NaN in another dweight makes its row NaN, but for weights of 0. The same
        call gives the same bits, on any number of threads. vjp may be called again and again. It holds the weights that
        were returned, which must not change meanwhile.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        As softmax() does.
    """
    machine = choose_packed(backend, "values", values)
    names = check_frozen(frozen, ("values",))
    given = import_values(values, acsr, machine.read)
    result, missing = Result(given.shape, given.dtype), 3 - len(given.shape)
    first = PackedCall.of(machine, acsr, given.dtype, missing)
    weights = first.softmax(machine.view(given, 3))

    def vjp(dweights: Any) -> Any:
        gradient = import_gradient("dweights", dweights, "weights", result, machine.read)
        if names:
            return None
        call = PackedCall.of(machine, acsr, given.dtype, missing)
        return call.export(call.softmax_backward(weights, machine.view(gradient, 3)), values)

    return first.export(weights, values), vjp


@strict(ATTENTION)
def spmm_vjp(
    values: Any, v: Any, acsr: ACSR, *, backend: str = "auto", frozen: Collection[str] = ()
) -> tuple[Any, Callable[[Any], Pair]]:
    """(out, vjp) of `spmm`: vjp(dout) gives (dvalues, dv).

    dvalues_t = dout_i.v_j for every kept pair t = (i, j), and dv = W^T dout, with W the matrix of the values.

    Parameters
    ----------
    values, v, acsr, backend
        As in spmm().
    frozen : names of values and v
        Whose gradients are not wanted: None is returned for them, and nothing is computed for them: without dv the
        transposed mask is not made.

    Returns
    -------
    out : array (batch, heads_q, seq_q, value_dim)
        As spmm() gives it.
    vjp : function
        vjp(dout) -> (dvalues, dv), dout of out's shape and dtype, any strides. dvalues and dv have the shape, dtype and
        kind of values and v; of grouped heads dv is summed over the group, in order, and 16-bit numbers are rounded
        once, from float32 sums. A row of v that nobody keeps gets 0. The same call gives the same bits, on any number
        of threads. vjp may be called again and again. It holds values and v, which must not change meanwhile. The first
        one over a mask makes what sddmm_vjp() says.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        As spmm() does.
    """
    machine = choose_packed(backend, "values", values)
    names = check_frozen(frozen, ("values", "v"))
    given = import_weighted(values, v, acsr, machine.read)
    dtype, missing = given.values.dtype, 3 - len(given.values.shape)
    values3, v4 = machine.view(given.values, 3), machine.view(given.v, 4)
    first = PackedCall.of(machine, acsr, dtype, missing)

    def vjp(dout: Any) -> Pair:
        gradient = import_gradient("dout", dout, "out", Result(given.out_shape, dtype), machine.read)
        changes, call = machine.view(gradient, 4), PackedCall.of(machine, acsr, dtype, missing)
        dvalues = dv = None
        if "values" not in names:
            dvalues = call.export(call.sddmm(changes, v4, 1.0), values)
        if "v" not in names:
            dv = call.export(call.spmm_transposed(values3, changes, given.heads_kv), v)
        return dvalues, dv

    return first.export(first.spmm(values3, v4), values), vjp


__all__ = ["sddmm_vjp", "softmax_vjp", "spmm_vjp"]
