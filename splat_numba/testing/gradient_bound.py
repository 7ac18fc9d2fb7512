"""The tolerance rule for gradients: how far a correct backward kernel may be from the float64 oracle.

It goes on from `error_bound`, whose notation holds: p_ij, A, E_ij, u, U, tiny and faint, and the bounds of out and lse
there, here O_ic and L_i. w is what rounding to the arrays' dtype for the tensor cores loses: U where that is narrower
than float32, else 0. e is value_dim. With dp_ij = dout_i.v_j, delta_i = dout_i.out_i - dlse_i and ds_ij = p_ij (dp_ij -
delta_i), the gradients are dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i, dv_j = sum_i p_ij dout_i.

- Weights are made again, from the lse that the forward pass stored: p = exp(s - lse). The exponent is off by
  X_ij = E_ij + L_i + 4 u (A_i + |lse_i|) + 8 u: the score, lse, the difference of the two in base 2, and exp itself. So
  |dp| <= x_ij p_ij + faint with x = exp(X) - 1: a weight below all numbers of the arithmetic is 0.
- dp: e products and sums in any order, (e + 2) u sum_c |dout_ic v_jc| + e faint =: Y_ij.
- delta is made from out as it was stored, or summed from p_ij dp_ij; either is right, so the larger counts:
  sum_c |dout_ic| O_ic + (e + 2) u sum_c |dout_ic out_ic| + e faint, or sum_j p_ij (x_ij |dp_ij| + Y_ij) + n u sum_j
  p_ij |dp_ij| + faint sum_j (|dp_ij| + 1); and u |dlse_i| for both. Call it D_i.
- ds: T_ij = (p_ij (1 + x_ij) + faint) (Y_ij + D_i + u (|dp_ij| + |delta_i|)) + (x_ij + 3 u) |ds_ij|
  + faint |dp_ij - delta_i|.
- Tensor cores take ds and p in the arrays' dtype: w (|ds_ij| + T_ij) + tiny more for ds, and w p_ij + tiny for p.
  Kernels may make ds from the p that was rounded: T_ij has w |ds_ij| + tiny |dp_ij - delta_i| more then.
- The last products are sums over n kept keys of a row, or over the m rows, of all heads of the group, that keep a key:
  (n + 16) u or (m + 16) u times the sum of sizes, in any order, with partial sums kept in the arithmetic; and n faint
  or m faint for products that underflow there, once more times |scale| where that is taken in afterwards.
- The result is rounded to the arrays' dtype once, after the sum over the group: U (|result| + the above) + tiny.

Altogether dq_i: |scale| sum_j R_ij |k_j| + (n + 16) u |scale| sum_j |ds_ij k_j|, rounded, with
R_ij = T_ij + w (|ds_ij| + T_ij) + tiny, and tiny |k_j| again for kernels that take the scale into ds before they round
it; dk_j likewise; dv_j: sum_i (x_ij p_ij + w (1 + x_ij) p_ij + tiny) |dout_i| + (m + 16) u sum_i p_ij |dout_i|,
rounded.

A lost pair of a row with few keys shows in every dtype. In 16 bits rows of more than 1 / U keys hide a single pair, so
plans are proved pair by pair elsewhere; a lost tile shows.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from splat_numba import reference
from splat_numba.reference import Bool, Float64, Layout, Mask
from splat_numba.testing.error_bound import Element, Roundoff, finite, one_element, relative


class Gradients(NamedTuple):
    """One of each for dq, dk and dv."""

    dq: Float64
    dk: Float64
    dv: Float64


def gradient_tolerance(
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
) -> Gradients:
    """Give the largest errors allowed in dq, dk and dv, by the rule that this module's docstring derives.

    Arguments as in `reference.attention_backward`; the dtype of q says which arithmetic is judged. Returns float64
    arrays of the shapes of q, k and v. Elements whose inputs are not finite get a bound that means nothing.
    """
    loss = Roundoff.of(np.asarray(q).dtype)
    ndim = np.ndim(q)
    q4, k4, v4, dout4 = (
        reference.four_axes(name, x, ndim, layout) for name, x in (("q", q), ("k", k), ("v", v), ("dout", dout))
    )
    batch, heads, seq_q, head_dim = q4.shape
    heads_kv, seq_kv = k4.shape[1:3]
    dlse3 = np.zeros(q4.shape[:3]) if dlse is None else finite(np.asarray(dlse, np.float64)).reshape(q4.shape[:3])
    kept = np.stack(reference.dense_masks(mask, heads, seq_q, seq_kv))
    valid = reference.valid_keys(kv_lengths, batch, seq_kv, has_batch=ndim == 4)
    factor = 1 / sqrt(head_dim) if scale is None else float(scale)

    bounds = Gradients(np.empty(q4.shape), np.empty(k4.shape), np.empty(v4.shape))
    for b in range(batch):
        k3, v3 = (np.repeat(x[b], heads // heads_kv, axis=0) for x in (k4, v4))
        forward = one_element(q4[b], k3, v3, kept & valid[b], factor, loss)
        found = _one_element(forward, finite(dout4[b]), dlse3[b], factor, heads_kv, loss)
        for whole, part in zip(bounds, found, strict=True):
            whole[b] = part
    if layout == "bshd":
        bounds = Gradients(*(x.transpose(0, 2, 1, 3) for x in bounds))
    return Gradients(*(x.reshape(np.shape(of)) for x, of in zip(bounds, (q, k, v), strict=True)))


def _one_element(
    forward: Element, dout: Float64, dlse: Float64, scale: float, heads_kv: int, loss: Roundoff
) -> Gradients:
    """Bounds for one batch element: dout (heads, seq_q, value_dim), dlse (heads, seq_q)."""
    p, kept, size = forward.weights, forward.kept, abs(scale)
    exponent = forward.score_loss + forward.lse_bound[..., None] + 8 * loss.unit
    exponent = exponent + 4 * loss.unit * (forward.largest + np.abs(finite(forward.lse)))[..., None]
    off = np.where(kept, relative(exponent), 0.0)
    changes, wrong = _changes(forward, dout, dlse, off, loss)
    rough = kept * (wrong + loss.weight * (changes + wrong) + loss.tiny)
    weight = kept * (off * p + loss.weight * (1 + off) * p + loss.tiny)

    columns, rows = kept.sum(axis=2)[..., None], kept.sum(axis=1)[..., None]
    k, q, along = np.abs(forward.k), np.abs(forward.q), np.abs(dout)
    terms = _shared(rows, heads_kv)
    many, lost = loss.unit * (terms + 16), loss.faint * terms
    tiny = kept * loss.tiny  # again, where the scale is part of ds
    dq = (size * rough + tiny) @ k + loss.unit * (columns + 16) * size * (changes @ k)
    dq = dq + loss.faint * (1 + size) * columns
    dk = _shared((size * rough + tiny).swapaxes(1, 2) @ q, heads_kv)
    dk = dk + many * size * _shared(changes.swapaxes(1, 2) @ q, heads_kv) + (1 + size) * lost
    dv = _shared(weight.swapaxes(1, 2) @ along, heads_kv) + many * _shared(p.swapaxes(1, 2) @ along, heads_kv)
    dv = dv + lost

    masks = list(kept)
    exact = [
        reference.attention_backward(dout[h], forward.q[h], forward.k[h], forward.v[h], masks[h], dlse=dlse[h],
                                     scale=scale)
        for h in range(len(masks))
    ]  # fmt: skip
    sizes = [np.stack([one[at] for one in exact]) for at in range(3)]
    whole = (np.abs(sizes[0]), *(np.abs(_shared(x, heads_kv)) for x in sizes[1:]))
    return Gradients(*(x + loss.result * (y + x) + loss.tiny for x, y in zip((dq, dk, dv), whole, strict=True)))


def _changes(forward: Element, dout: Float64, dlse: Float64, off: Float64, loss: Roundoff) -> tuple[Float64, Float64]:
    """|ds|, less the scale, and how far off it is before it is rounded; (heads, seq_q, seq_kv). off: x."""
    p, kept, v = forward.weights, forward.kept, forward.v
    dim, faint = v.shape[-1], loss.faint
    products = (dim + 2) * loss.unit
    dp = np.where(kept, dout @ v.swapaxes(1, 2), 0.0)
    dp_loss = np.where(kept, products * (np.abs(dout) @ np.abs(v).swapaxes(1, 2)) + dim * faint, 0.0)
    delta = (p * dp).sum(axis=-1) - dlse
    stored = (np.abs(dout) * (forward.out_bound + products * np.abs(forward.out))).sum(axis=-1) + dim * faint
    summed = (p * ((off + loss.unit * kept.sum(axis=-1)[..., None]) * np.abs(dp) + dp_loss)).sum(axis=-1)
    summed = summed + faint * (np.abs(dp) + kept).sum(axis=-1)
    delta_loss = np.maximum(stored, summed) + loss.unit * np.abs(dlse)
    slope = np.abs(dp - delta[..., None])
    changes = p * slope
    spread = dp_loss + delta_loss[..., None] + loss.unit * (np.abs(dp) + np.abs(delta)[..., None])
    rounded = loss.weight * changes + (loss.tiny * slope if loss.weight else 0.0)
    return changes, (p * (1 + off) + faint) * spread + (off + 3 * loss.unit) * changes + faint * slope + rounded


def _shared(x: Float64 | Bool, heads_kv: int) -> Float64:
    """The sum over the query heads of each key head; x: (heads, ...)."""
    total: Float64 = x.reshape(heads_kv, x.shape[0] // heads_kv, *x.shape[1:]).sum(axis=1)
    return total
