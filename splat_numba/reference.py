"""The oracles: every operator in dense float64 NumPy, written to be obviously right. No Numba, no cleverness.

Cases that a kernel might decide in its own way are decided here, once:

- A row that attends to nothing has weights 0, out = 0 and lse = -inf, whatever its query holds.
- A score of -inf gives weight 0, and a row whose kept scores are all -inf attends to nothing.
- NaN or inf in a query, or in a key that the row keeps, acts on that row as IEEE arithmetic says.
- A key or value that a row does not keep never reaches it, not even as 0 x NaN. (Tiled kernels promise this for keys;
  their value tiles may spread a non-finite value vector to other rows.)
- A gradient is a sum over kept pairs. What other pairs hold never reaches it, not even as 0 x NaN: a row that keeps
  nothing gives 0 to everything, whatever its dout and dlse hold, and a key that no row keeps, or that stands at or
  beyond its kv_lengths, gets 0. A kept pair whose score is -inf adds nothing, which is the limit, though 0 x inf is
  NaN. (In a tiled kernel keys are the values of dq, queries those of dk, and dout that of dv: a non-finite vector of
  these may reach the gradients of other rows and keys that share a tile with it.)
- NaN in a query, a key or a dout reaches dq of the rows that hold or keep it, and dk and dv of what those rows keep;
  NaN in a value the same dq and dk, as dv does not depend on values.
- In softmax alone a weight of 0 adds nothing to the gradients of its row and gets 0, whatever its own gradient holds.

A `mask` here is a 2-D bool array (seq_q, seq_kv), True = attend, or anything with `.to_dense()` that gives one (an
ACSR), or a list of those, one per query head. Cost and memory are those of the dense arrays.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import flag, shown
from splat_numba.reference_arguments import (
    Bool,
    Float64,
    Layout,
    Mask,
    check_gradient,
    check_operands,
    check_weighted,
    dense_masks,
    four_axes,
    number,
    real,
    row_gradients,
    valid_keys,
)
from splat_numba.signatures import strict

__all__ = [
    "attention",
    "attention_backward",
    "sddmm",
    "sddmm_backward",
    "softmax",
    "softmax_backward",
    "spmm",
    "spmm_backward",
]
__all__ += ["Bool", "Float64", "Layout", "Mask", "dense_masks", "four_axes", "valid_keys"]  # for the tolerance rule


@overload
def attention(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, mask: Mask, *, scale: float | None = ...,
    return_lse: Literal[False] = ..., layout: Layout = ..., kv_lengths: ArrayLike | None = ...,
) -> Float64: ...  # fmt: skip
@overload
def attention(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, mask: Mask, *, scale: float | None = ...,
    return_lse: Literal[True], layout: Layout = ..., kv_lengths: ArrayLike | None = ...,
) -> tuple[Float64, Float64]: ...  # fmt: skip
@strict()
def attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    mask: Mask,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    layout: Layout = "bhsd",
    kv_lengths: ArrayLike | None = None,
) -> Float64 | tuple[Float64, Float64]:
    """Masked attention: out_i = sum_j p_ij v_j with p_ij = exp(s_ij - lse_i), s_ij = scale * q_i.k_j over the kept j.

    q: (batch, heads_q, seq_q, head_dim), k: (batch, heads_kv, seq_kv, head_dim), v: (batch, heads_kv, seq_kv,
    value_dim), any real dtype, converted to float64; with layout="bshd" the axes are (batch, seq, heads, dim). The
    batch axis, or the batch and heads axes, may be missing from all three. heads_q is a multiple of heads_kv; query
    head h uses key head h // (heads_q // heads_kv). scale defaults to 1/sqrt(head_dim). kv_lengths: integers (batch,);
    keys at or beyond an element's length are not kept.

    Returns out, float64, shaped as q with value_dim last; with return_lse also the natural-log log-sum-exp, float64,
    (batch, heads_q, seq_q) in either layout, less the missing axes.
    Raises ArgumentError where shapes, the layout or kv_lengths do not fit, ArgumentTypeError if a mask is not bool.
    """
    returns_lse = flag(return_lse)
    if returns_lse is None:
        raise ArgumentTypeError(f"return_lse: wanted True or False, got {shown(return_lse)}; give a bool")
    first = real("q", q)
    ndim = first.ndim
    q4, k4, v4 = (four_axes(name, x, ndim, layout) for name, x in (("q", first), ("k", k), ("v", v)))
    check_operands(q4, k4, v4)
    batch, heads, seq_q, head_dim = q4.shape
    seq_kv, value_dim = v4.shape[2:]
    kept = dense_masks(mask, heads, seq_q, seq_kv)
    valid = valid_keys(kv_lengths, batch, seq_kv, has_batch=ndim == 4)
    factor = 1 / sqrt(head_dim) if scale is None else number("scale", scale)

    out = np.empty((batch, heads, seq_q, value_dim))
    lse = np.empty((batch, heads, seq_q))
    for b in range(batch):
        for h in range(heads):
            g = h // (heads // k4.shape[1])
            keep = kept[h] & valid[b]
            weights, lse[b, h] = _softmax(_scores(q4[b, h], k4[b, g], keep, factor), keep)
            out[b, h] = _combine(weights, v4[b, g], keep)
    if layout == "bshd":
        out = out.transpose(0, 2, 1, 3)
    # The squeezed shapes; for two axes the head axis (size 1) goes as well, wherever the layout had it.
    out = out.reshape((*first.shape[:-1], value_dim))
    lse = lse.reshape(lse.shape[4 - ndim :])
    return (out, lse) if returns_lse else out


@strict()
def attention_backward(
    dout: ArrayLike,
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    mask: Mask,
    *,
    dlse: ArrayLike | None = None,
    scale: float | None = None,
    layout: Layout = "bhsd",
    kv_lengths: ArrayLike | None = None,
) -> tuple[Float64, Float64, Float64]:
    """Gradients of `attention`: those of sum(dout * out) + sum(dlse * lse) with respect to q, k and v.

    With p as in `attention`, over the kept pairs: dp_ij = dout_i.v_j, delta_i = sum_j p_ij dp_ij - dlse_i (the sum is
    dout_i.out_i) and ds_ij = p_ij (dp_ij - delta_i). Then dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i,
    dv_j = sum_i p_ij dout_i. Query heads that share a key head add up in its dk and dv.

    dout: as out; dlse: as lse, None for zeros; everything else as in `attention`. Returns dq, dk, dv, float64, of the
    shapes and layout of q, k and v. Raises as `attention` does.
    """
    first = real("q", q)
    ndim = first.ndim
    q4, k4, v4, dout4 = (
        four_axes(name, x, ndim, layout) for name, x in (("q", first), ("k", k), ("v", v), ("dout", dout))
    )
    check_operands(q4, k4, v4)
    batch, heads, seq_q, head_dim = q4.shape
    if dout4.shape != (batch, heads, seq_q, v4.shape[3]):
        wanted = (*first.shape[:-1], v4.shape[3])
        raise ArgumentError(f"dout: wanted the shape of out, {wanted}, got {np.shape(dout)}; give its gradient")
    dlse3 = row_gradients(dlse, (batch, heads, seq_q), ndim)
    kept = dense_masks(mask, heads, seq_q, k4.shape[2])
    valid = valid_keys(kv_lengths, batch, k4.shape[2], has_batch=ndim == 4)
    factor = 1 / sqrt(head_dim) if scale is None else number("scale", scale)

    dq, dk, dv = np.zeros(q4.shape), np.zeros(k4.shape), np.zeros(v4.shape)
    for b in range(batch):
        for h in range(heads):
            g = h // (heads // k4.shape[1])
            keep = kept[h] & valid[b]
            ours = _gradients(dout4[b, h], dlse3[b, h], q4[b, h], k4[b, g], v4[b, g], keep, factor)
            dq[b, h] = ours[0]
            dk[b, g] += ours[1]
            dv[b, g] += ours[2]
    if layout == "bshd":
        dq, dk, dv = (x.transpose(0, 2, 1, 3) for x in (dq, dk, dv))
    return dq.reshape(first.shape), dk.reshape(np.shape(k)), dv.reshape(np.shape(v))


@strict()
def sddmm(q: ArrayLike, k: ArrayLike, mask: Mask, *, scale: float = 1.0) -> Float64:
    """Sampled product: scale * q_i.k_j where (i, j) is kept, 0 elsewhere.

    q: (batch, heads_q, seq_q, head_dim), k: (batch, heads_kv, seq_kv, head_dim), leading axes may be missing from both.
    Returns float64 (batch, heads_q, seq_q, seq_kv), less the missing axes. Raises as `attention` does.
    """
    first = real("q", q)
    q4, k4 = (four_axes(name, x, first.ndim) for name, x in (("q", first), ("k", k)))
    factor = number("scale", scale)
    check_operands(q4, k4, k4)
    batch, heads, seq_q, _ = q4.shape
    kept = dense_masks(mask, heads, seq_q, k4.shape[2])
    out = np.empty((batch, heads, seq_q, k4.shape[2]))
    for b in range(batch):
        for h in range(heads):
            out[b, h] = _scores(q4[b, h], k4[b, h // (heads // k4.shape[1])], kept[h], factor)
    return out.reshape(out.shape[4 - first.ndim :])


@strict()
def softmax(scores: ArrayLike, mask: Mask) -> Float64:
    """Softmax over the kept columns of every row; 0 where not kept, and in rows that keep nothing.

    scores: (batch, heads, seq_q, seq_kv), leading axes may be missing; what stands where the mask is False is ignored.
    Returns float64 of the same shape. Raises as `attention` does.
    """
    given = real("scores", scores)
    scores4 = four_axes("scores", given, given.ndim)
    kept = dense_masks(mask, *scores4.shape[1:])
    out = np.empty(scores4.shape)
    for b in range(scores4.shape[0]):
        for h in range(scores4.shape[1]):
            out[b, h], _ = _softmax(scores4[b, h], kept[h])
    return out.reshape(given.shape)


@strict()
def spmm(weights: ArrayLike, v: ArrayLike, mask: Mask | None = None) -> Float64:
    """Sparse times dense: out_i = sum over the kept j of weights_ij v_j.

    weights: (batch, heads_q, seq_q, seq_kv), v: (batch, heads_kv, seq_kv, value_dim), leading axes may be missing from
    both. Without a mask the kept pairs are those with a non-zero weight.
    Returns float64 (batch, heads_q, seq_q, value_dim), less the missing axes. Raises as `attention` does.
    """
    given = real("weights", weights)
    ndim = given.ndim
    weights4 = four_axes("weights", given, ndim)
    v4 = four_axes("v", v, ndim)
    batch, heads, seq_q, seq_kv = weights4.shape
    check_weighted(weights4, v4)
    kept = None if mask is None else dense_masks(mask, heads, seq_q, seq_kv)
    out = np.empty((batch, heads, seq_q, v4.shape[3]))
    for b in range(batch):
        for h in range(heads):
            keep = weights4[b, h] != 0 if kept is None else kept[h]
            out[b, h] = _combine(np.where(keep, weights4[b, h], 0.0), v4[b, h // (heads // v4.shape[1])], keep)
    return out.reshape(out.shape[4 - ndim :])


@strict()
def sddmm_backward(
    dvalues: ArrayLike, q: ArrayLike, k: ArrayLike, mask: Mask, *, scale: float = 1.0
) -> tuple[Float64, Float64]:
    """Gradients of `sddmm`, those of the sum of dvalues * values over the kept pairs, with respect to q and k.

    dq_i = scale sum_j dvalues_ij k_j and dk_j = scale sum_i dvalues_ij q_i; query heads that share a key head add up.
    dvalues: as the values, (batch, heads_q, seq_q, seq_kv); what stands where the mask is False is ignored. Returns dq
    and dk, float64, of the shapes of q and k. Raises as `attention` does.
    """
    first = real("q", q)
    q4, k4, changes = (four_axes(name, x, first.ndim) for name, x in (("q", first), ("k", k), ("dvalues", dvalues)))
    factor = number("scale", scale)
    check_operands(q4, k4, k4)
    check_gradient("dvalues", changes, (*q4.shape[:3], k4.shape[2]))
    kept = dense_masks(mask, *changes.shape[1:])
    dq, dk = np.zeros(q4.shape), np.zeros(k4.shape)
    for b in range(q4.shape[0]):
        for h in range(q4.shape[1]):
            g = h // (q4.shape[1] // k4.shape[1])
            with np.errstate(all="ignore"):
                change = np.where(kept[h], factor * changes[b, h], 0.0)
            dq[b, h] = _combine(change, k4[b, g], kept[h])
            dk[b, g] += _combine(change.T, q4[b, h], kept[h].T)
    return dq.reshape(first.shape), dk.reshape(np.shape(k))


@strict()
def softmax_backward(dweights: ArrayLike, scores: ArrayLike, mask: Mask) -> Float64:
    """Gradient of `softmax`, that of the sum of dweights * weights over the kept pairs, with respect to scores.

    weights_ij (dweights_ij - sum_j weights_ij dweights_ij), and 0 where nothing is kept. dweights: as scores. Returns
    float64 of the same shape. Raises as `attention` does.
    """
    given = real("scores", scores)
    scores4, changes = (four_axes(name, x, given.ndim) for name, x in (("scores", given), ("dweights", dweights)))
    check_gradient("dweights", changes, scores4.shape)
    kept = dense_masks(mask, *scores4.shape[1:])
    out = np.empty(scores4.shape)
    for b in range(scores4.shape[0]):
        for h in range(scores4.shape[1]):
            weights, _ = _softmax(scores4[b, h], kept[h])
            with np.errstate(all="ignore"):
                mean = np.where(weights == 0, 0.0, weights * changes[b, h]).sum(axis=1, keepdims=True)
                out[b, h] = np.where(weights == 0, 0.0, weights * (changes[b, h] - mean))
    return out.reshape(given.shape)


@strict()
def spmm_backward(
    dout: ArrayLike, weights: ArrayLike, v: ArrayLike, mask: Mask | None = None
) -> tuple[Float64, Float64]:
    """Gradients of `spmm`, those of the sum of dout * out, with respect to weights and v.

    dweights_ij = dout_i.v_j for the kept pairs, else 0, and dv_j = sum_i weights_ij dout_i; heads that share a head of
    v add up. dout: as out. Returns float64 of the shapes of weights and v. Raises as `attention` does.
    """
    given = real("weights", weights)
    weights4, v4, dout4 = (four_axes(name, x, given.ndim) for name, x in (("weights", given), ("v", v), ("dout", dout)))
    check_weighted(weights4, v4)
    batch, heads, seq_q, _ = weights4.shape
    check_gradient("dout", dout4, (batch, heads, seq_q, v4.shape[3]))
    kept = None if mask is None else dense_masks(mask, *weights4.shape[1:])
    dweights, dv = np.empty(weights4.shape), np.zeros(v4.shape)
    for b in range(batch):
        for h in range(heads):
            g = h // (heads // v4.shape[1])
            keep = weights4[b, h] != 0 if kept is None else kept[h]
            dweights[b, h] = _scores(dout4[b, h], v4[b, g], keep, 1.0)
            dv[b, g] += _combine(np.where(keep, weights4[b, h], 0.0).T, dout4[b, h], keep.T)
    return dweights.reshape(given.shape), dv.reshape(np.shape(v))


# One head: q (seq_q, head_dim), k (seq_kv, head_dim), v (seq_kv, value_dim), keep (seq_q, seq_kv).


def _scores(q: Float64, k: Float64, keep: Bool, scale: float) -> Float64:
    with np.errstate(all="ignore"):  # inf * 0 and the like give the NaN that is wanted
        return np.where(keep, scale * (q @ k.T), 0.0)


def _softmax(scores: Float64, keep: Bool) -> tuple[Float64, Float64]:
    with np.errstate(all="ignore"):
        top = np.where(keep, scores, -np.inf).max(axis=1, initial=-np.inf)
        top = np.where(top == -np.inf, 0.0, top)
        powers = np.where(keep, np.exp(scores - top[:, None]), 0.0)
        total = powers.sum(axis=1)
        lse = top + np.log(total)
        weights = np.where(keep, powers / np.where(total == 0.0, 1.0, total)[:, None], 0.0)
    return weights, lse


def _combine(weights: Float64, v: Float64, keep: Bool) -> Float64:
    finite = np.isfinite(v).all(axis=1)
    with np.errstate(all="ignore"):
        out: Float64 = weights[:, finite] @ v[finite]
        for kv_idx in np.flatnonzero(
            ~finite
        ):  # one by one, because 0 * NaN must not reach the rows that do not keep it
            rows = keep[:, kv_idx]
            out[rows] += weights[rows, kv_idx, None] * v[kv_idx]
    return out


def _gradients(
    dout: Float64, dlse: Float64, q: Float64, k: Float64, v: Float64, keep: Bool, scale: float
) -> tuple[Float64, Float64, Float64]:
    """dq, dk and dv; dout (seq_q, value_dim), dlse (seq_q,)."""
    scores = _scores(q, k, keep, scale)
    keep = keep & (scores != -np.inf)
    weights, _ = _softmax(scores, keep)
    along = _scores(dout, v, keep, 1.0)
    with np.errstate(all="ignore"):
        delta = (weights * along).sum(axis=1) - dlse
        changes = np.where(keep, scale * (weights * (along - delta[:, None])), 0.0)
    return _combine(changes, k, keep), _combine(changes.T, q, keep.T), _combine(weights.T, dout, keep.T)
