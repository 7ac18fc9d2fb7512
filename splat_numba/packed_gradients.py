"""The packed operators with their gradients: each result comes with a function that takes its gradient back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from splat_numba.api import check_backend
from splat_numba.arguments.frozen import check_frozen
from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.layouts import with_leading
from splat_numba.arguments.masks import OneMask
from splat_numba.arguments.packed import import_gradient, import_sampled, import_values, import_weighted
from splat_numba.executors.packed_call import PackedCall
from splat_numba.formats.acsr import ACSR
from splat_numba.runtime.arrays import export_array
from splat_numba.signatures import strict

Pair: TypeAlias = tuple[Any, Any]


@strict(ATTENTION)
def sddmm_vjp(
    q: Any, k: Any, mask: OneMask, *, scale: float = 1.0, backend: str = "auto", frozen: Collection[str] = ()
) -> tuple[Any, Callable[[Any], Pair]]:
    """(values, vjp) of `sddmm`: vjp(dvalues) gives (dq, dk).

    frozen: names of q and k whose gradients are not wanted: None is returned for them, and nothing is computed for
    them: without dk the transposed mask is not made.

    With dS the matrix of dvalues, 0 where nothing is kept: dq = scale dS k and dk = scale dS^T q. Arguments, values and
    errors as in sddmm(); dvalues: of the values' shape and dtype, any strides. dq and dk have the shape, dtype and kind
    of q and k; of grouped heads dk is summed over the group, in order, and 16-bit numbers are rounded once, from
    float32 sums. A query that keeps nothing, and a key that nobody keeps, get 0. The same call gives the same bits, on
    any number of threads.

    vjp may be called again and again. It holds q and k, which must not change meanwhile. The first one over a mask
    makes the mask's transpose and the places of its pairs, 8 bytes for each, which stay as long as the mask: for many
    steps over one mask give an ACSR.
    """
    check_backend(backend, None)
    names = check_frozen(frozen, ("q", "k"))
    given = import_sampled(q, k, mask, scale)
    acsr, dtype, factor = given.acsr, given.q.dtype, given.scale
    values = PackedCall.of(acsr, dtype).sddmm(given.q4, given.k4, factor)

    def vjp(dvalues: Any) -> Pair:
        gradient = import_gradient("dvalues", dvalues, "values", given.values_shape, dtype)
        changes, call = with_leading(gradient.bits, 3), PackedCall.of(acsr, dtype)
        dq = dk = None
        if "q" not in names:
            dq = export_array(call.spmm(changes, given.k4, factor).reshape(given.q.shape), dtype, q)
        if "k" not in names:
            found = call.spmm_transposed(changes, given.q4, given.k4.shape[1], factor)
            dk = export_array(found.reshape(given.k.shape), dtype, k)
        return dq, dk

    return export_array(values.reshape(given.values_shape), dtype, q), vjp


@strict(ATTENTION)
def softmax_vjp(
    values: Any, acsr: ACSR, *, backend: str = "auto", frozen: Collection[str] = ()
) -> tuple[Any, Callable[[Any], Any]]:
    """(weights, vjp) of `softmax`: vjp(dweights) gives dvalues = weights * (dweights - the row's sum of their product).

    frozen: ("values",) where their gradient is not wanted: then vjp gives None and computes nothing.

    Arguments, weights and errors as in softmax(); dweights: of the weights' shape and dtype, any strides. dvalues has
    the shape, dtype and kind of values; sums are kept in float32 (float64 for float64). A weight of 0 adds nothing to
    its row and gets 0, whatever its dweight holds; a NaN in another dweight makes its row NaN, but for weights of 0.
    The same call gives the same bits, on any number of threads.

    vjp may be called again and again. It holds the weights that were returned, which must not change meanwhile.
    """
    check_backend(backend, None)
    names = check_frozen(frozen, ("values",))
    given = import_values(values, acsr)
    shape, dtype = given.shape, given.dtype
    weights = PackedCall.of(acsr, dtype).softmax(with_leading(given.bits, 3))

    def vjp(dweights: Any) -> Any:
        gradient = import_gradient("dweights", dweights, "weights", shape, dtype)
        if names:
            return None
        dvalues = PackedCall.of(acsr, dtype).softmax_backward(weights, with_leading(gradient.bits, 3))
        return export_array(dvalues.reshape(shape), dtype, values)

    return export_array(weights.reshape(shape), dtype, values), vjp


@strict(ATTENTION)
def spmm_vjp(
    values: Any, v: Any, acsr: ACSR, *, backend: str = "auto", frozen: Collection[str] = ()
) -> tuple[Any, Callable[[Any], Pair]]:
    """(out, vjp) of `spmm`: vjp(dout) gives (dvalues, dv).

    frozen: names of values and v whose gradients are not wanted: None is returned for them, and nothing is computed
    for them: without dv the transposed mask is not made.

    dvalues_t = dout_i.v_j for every kept pair t = (i, j), and dv = W^T dout, with W the matrix of the values.
    Arguments, out and errors as in spmm(); dout: of out's shape and dtype, any strides. dvalues and dv have the shape,
    dtype and kind of values and v; of grouped heads dv is summed over the group, in order, and 16-bit numbers are
    rounded once, from float32 sums. A row of v that nobody keeps gets 0. The same call gives the same bits, on any
    number of threads.

    vjp may be called again and again. It holds values and v, which must not change meanwhile. The first one over a mask
    makes what sddmm_vjp() says.
    """
    check_backend(backend, None)
    names = check_frozen(frozen, ("values", "v"))
    given = import_weighted(values, v, acsr)
    dtype = given.values.dtype
    out = PackedCall.of(acsr, dtype).spmm(given.values3, given.v4)

    def vjp(dout: Any) -> Pair:
        gradient = import_gradient("dout", dout, "out", given.out_shape, dtype)
        changes, call = with_leading(gradient.bits, 4), PackedCall.of(acsr, dtype)
        dvalues = dv = None
        if "values" not in names:
            dvalues = export_array(call.sddmm(changes, given.v4, 1.0).reshape(given.values.shape), dtype, values)
        if "v" not in names:
            found = call.spmm_transposed(given.values3, changes, given.v4.shape[1])
            dv = export_array(found.reshape(given.v.shape), dtype, v)
        return dvalues, dv

    return export_array(out.reshape(given.out_shape), dtype, values), vjp


__all__ = ["sddmm_vjp", "softmax_vjp", "spmm_vjp"]
