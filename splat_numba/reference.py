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

A `mask` here is a 2-D bool array (seq_q, seq_kv), True = attend, or anything with `.to_dense()` that gives one (an
ACSR), or a list of those, one per query head. Cost and memory are those of the dense arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, Literal, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import flag, kind, real_array, real_number, shown
from splat_numba.signatures import strict

__all__ = ["attention", "attention_backward", "sddmm", "softmax", "spmm"]

Float64: TypeAlias = NDArray[np.float64]
Bool: TypeAlias = NDArray[np.bool_]


class HasDense(Protocol):
    """A stored mask, such as an ACSR."""

    def to_dense(self) -> Bool:
        """Give the mask as a 2-D bool array (seq_q, seq_kv)."""
        ...


OneMask: TypeAlias = Bool | HasDense
Mask: TypeAlias = OneMask | Sequence[OneMask]
Layout: TypeAlias = Literal["bhsd", "bshd"]


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
    _check_operands(q4, k4, v4)
    batch, heads, seq_q, head_dim = q4.shape
    seq_kv, value_dim = v4.shape[2:]
    kept = dense_masks(mask, heads, seq_q, seq_kv)
    valid = valid_keys(kv_lengths, batch, seq_kv, has_batch=ndim == 4)
    factor = 1 / sqrt(head_dim) if scale is None else _number("scale", scale)

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
    _check_operands(q4, k4, v4)
    batch, heads, seq_q, head_dim = q4.shape
    if dout4.shape != (batch, heads, seq_q, v4.shape[3]):
        wanted = (*first.shape[:-1], v4.shape[3])
        raise ArgumentError(f"dout: wanted the shape of out, {wanted}, got {np.shape(dout)}; give its gradient")
    dlse3 = _row_gradients(dlse, (batch, heads, seq_q), ndim)
    kept = dense_masks(mask, heads, seq_q, k4.shape[2])
    valid = valid_keys(kv_lengths, batch, k4.shape[2], has_batch=ndim == 4)
    factor = 1 / sqrt(head_dim) if scale is None else _number("scale", scale)

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
    factor = _number("scale", scale)
    _check_operands(q4, k4, k4)
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
    if v4.shape[0] != batch or v4.shape[2] != seq_kv or not v4.shape[1] or heads % v4.shape[1]:
        raise ArgumentError(
            f"v: wanted (batch, heads_kv, seq_kv, value_dim) to fit weights of shape {given.shape}, got {v4.shape}"
        )
    kept = None if mask is None else dense_masks(mask, heads, seq_q, seq_kv)
    out = np.empty((batch, heads, seq_q, v4.shape[3]))
    for b in range(batch):
        for h in range(heads):
            keep = weights4[b, h] != 0 if kept is None else kept[h]
            out[b, h] = _combine(np.where(keep, weights4[b, h], 0.0), v4[b, h // (heads // v4.shape[1])], keep)
    return out.reshape(out.shape[4 - ndim :])


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


# Arguments.


def real(name: str, x: Any) -> Float64:
    """Give x in float64. Raises ArgumentTypeError for what holds no real numbers."""
    array = real_array(x)
    if array is None:
        raise ArgumentTypeError(
            f"{name}: wanted an array of real numbers, got {kind(x)}; make a plain NumPy array of it"
        )
    return array


def _number(name: str, value: Any) -> float:
    number = real_number(value)
    if number is None:
        raise ArgumentTypeError(f"{name}: wanted a number, got {kind(value)}; give a Python float")
    return number


def four_axes(name: str, x: ArrayLike, ndim: int, layout: Layout = "bhsd") -> Float64:
    """Give x in float64 as (batch, heads, seq, dim); ndim is the number of axes that all arrays of the call have."""
    array = real(name, x)
    if not isinstance(layout, str) or layout not in {"bhsd", "bshd"}:
        raise ArgumentError(f"layout: wanted 'bhsd' or 'bshd', got {shown(layout)}; reorder the axes to one of these")
    if not 2 <= array.ndim <= 4 or array.ndim != ndim:
        raise ArgumentError(
            f"{name}: wanted 2 to 4 axes and as many as the first argument ({ndim}), got shape {array.shape}; "
            "leave leading axes out of all arrays or of none"
        )
    if layout == "bshd" and ndim > 2:
        array = array.swapaxes(-2, -3)
    return array.reshape((1,) * (4 - ndim) + array.shape)


def _row_gradients(dlse: ArrayLike | None, shape: tuple[int, int, int], ndim: int) -> Float64:
    """Give dlse in float64 as (batch, heads, seq_q), zeros for None; ndim: the axes that q has."""
    if dlse is None:
        return np.zeros(shape)
    array = real("dlse", dlse)
    if array.shape != shape[4 - ndim :]:
        raise ArgumentError(f"dlse: wanted the shape of lse, {shape[4 - ndim :]}, got {array.shape}; give its gradient")
    return array.reshape(shape)


def _check_operands(q: Float64, k: Float64, v: Float64) -> None:
    if k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ArgumentError(
            f"k: wanted the batch and head_dim of q, {q.shape[0]} and {q.shape[3]}, got shape {k.shape}"
        )
    if v.shape[:3] != k.shape[:3]:
        raise ArgumentError(f"v: wanted the batch, heads and seq_kv of k, {k.shape[:3]}, got shape {v.shape}")
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise ArgumentError(f"k: wanted a number of heads that divides heads_q = {q.shape[1]}, got {k.shape[1]}")


def dense_masks(mask: Mask, heads: int, seq_q: int, seq_kv: int) -> list[Bool]:
    """Give one bool array (seq_q, seq_kv) per query head; all the same array where there is one mask for all heads."""
    if not isinstance(mask, list | tuple):
        return [_dense_mask("mask", mask, seq_q, seq_kv)] * heads
    if len(mask) != heads:
        raise ArgumentError(f"mask: wanted one mask per query head, {heads}, got a list of {len(mask)}")
    return [_dense_mask(f"mask[{h}]", one, seq_q, seq_kv) for h, one in enumerate(mask)]


def _dense_mask(name: str, mask: Any, seq_q: int, seq_kv: int) -> Bool:
    try:
        dense = np.asarray(mask.to_dense() if hasattr(type(mask), "to_dense") else mask)
    except Exception as error:
        raise ArgumentTypeError(f"{name}: wanted a bool array, got {kind(mask)}: {error}; make one of it") from error
    if isinstance(mask, np.ma.MaskedArray):
        raise ArgumentTypeError(f"{name}: wanted a plain bool array, got a masked one; give mask.filled(False)")
    if dense.dtype != np.bool_:
        raise ArgumentTypeError(f"{name}: wanted a bool array, got {dense.dtype}; use mask.astype(bool) or mask > 0")
    if dense.shape != (seq_q, seq_kv):
        raise ArgumentError(f"{name}: wanted shape (seq_q, seq_kv) = {(seq_q, seq_kv)}, got {dense.shape}")
    return dense


def valid_keys(kv_lengths: ArrayLike | None, batch: int, seq_kv: int, *, has_batch: bool) -> Bool:
    """Say which keys exist for each batch element: bool (batch, seq_kv)."""
    if kv_lengths is None:
        return np.ones((batch, seq_kv), np.bool_)
    lengths = real("kv_lengths", kv_lengths)
    if not has_batch or lengths.shape != (batch,):
        raise ArgumentError(f"kv_lengths: wanted one length per batch element, shape ({batch},), got {lengths.shape}")
    if not (np.all(lengths == np.round(lengths)) and np.all(lengths >= 0) and np.all(lengths <= seq_kv)):
        raise ArgumentError(f"kv_lengths: wanted integers from 0 to seq_kv = {seq_kv}, got {shown(kv_lengths)}")
    return np.arange(seq_kv) < lengths[:, None]
