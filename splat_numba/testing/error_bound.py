"""The one tolerance rule: how far a correct kernel may be from the float64 oracle, element by element.

Notation, for one row of one head: s_j the scores, p_j the softmax weights, n the number of kept keys, d = head_dim,
A_j = |scale| sum_d |q_d k_jd| (the size of a score's terms), A the largest A_j. u is the unit roundoff of the
arithmetic (float32, or float64 for float64 inputs), U that of the arrays' dtype. All sums run over the kept keys. The
oracle gets the same rounded inputs, so they add nothing. Worst-case bounds, because roundings of equal numbers do not
average out:

- Score: d products and sums in any order, the scale, the change to base 2 and the shift by the row's maximum make
  |ds_j| <= E_j = u ((d + 6) A_j + A).
- A changed score moves out = sum p_j v_j by sum p_j ds_j (v_j - out), so by at most sum p_j E_j (|v_j| + |out|).
- exp is good to 8 u (GPU: 4 u; a polynomial: less than 8). Summing numerator and denominator costs n u each in any
  order. A tile that raises the running maximum rescales what is there, 9 u each time; with tiles of 16 keys that is
  9 n/16, and 8 tiles more for cut ends. Together (2 n + 80) u (sum p_j |v_j| + |out|).
- Tensor cores take the weights in the arrays' dtype: U sum p_j |v_j| where that is narrower than float32, and the
  weights that underflow there lose at most `tiny` each, relative to the row's largest: tiny * sum |v_j|.
- A product that underflows in the arithmetic loses at most `faint`: n faint.
- The result is rounded to the arrays' dtype: U (|out| + the above) + tiny.
- lse is not rounded to the arrays' dtype: sum p_j E_j + (2 n + 80) u + 8 u (|lse| + A).

A lost or a wrongly kept key changes lse by about p_j, so lse finds it in every dtype.
A pair whose score is -inf, or below all numbers of the arithmetic, weighs nothing and counts as not kept.
Holds within the range that `splat_numba.attention` states: float32's (float64's for float64 inputs) less some room.
`gradient_bound` goes on from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from splat_numba import reference
from splat_numba.reference import Bool, Float64, Layout, Mask

DTYPES = ("float16", "bfloat16", "float32", "float64")


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Give the NumPy dtype of that name; "bfloat16" comes from ml_dtypes (ImportError where that is not installed)."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def _lowest(dtype: DTypeLike) -> float:
    return float(np.finfo(dtype).min)


@dataclass(frozen=True, slots=True)
class Roundoff:
    """What a dtype and its arithmetic lose.

    unit: largest relative error of one rounded operation; result: that of rounding to the arrays' dtype; weight: that
    of rounding the softmax weights; tiny: largest absolute error where a number underflows in the arrays' dtype;
    faint: the same for the arithmetic, which may flush such numbers to 0; lowest: its smallest finite number.
    """

    unit: float
    result: float
    weight: float
    tiny: float
    faint: float
    lowest: float

    @classmethod
    def of(cls, dtype: DTypeLike) -> Roundoff:
        """Give the roundoff of float16, bfloat16, float32 or float64 arrays; TypeError for any other dtype."""
        name = np.dtype(dtype).name
        match name:
            case "float16":
                return cls(2.0**-24, 2.0**-11, 2.0**-11, 2.0**-24, 2.0**-126, _lowest(np.float32))
            case "bfloat16":
                return cls(2.0**-24, 2.0**-8, 2.0**-8, 2.0**-126, 2.0**-126, _lowest(np.float32))
            case "float32":
                return cls(2.0**-24, 2.0**-24, 0.0, 2.0**-126, 2.0**-126, _lowest(np.float32))
            case "float64":
                return cls(2.0**-53, 2.0**-53, 0.0, 2.0**-1022, 2.0**-1022, _lowest(np.float64))
        raise TypeError(f"dtype: wanted one of {', '.join(DTYPES)}, got {name}; convert the arrays to one of these")


def tolerance(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    mask: Mask,
    *,
    scale: float | None = None,
    layout: Layout = "bhsd",
    kv_lengths: ArrayLike | None = None,
) -> tuple[Float64, Float64]:
    """Give the largest errors allowed in out and lse, by the rule that this module's docstring derives.

    Arguments as in `reference.attention`; the dtype of q (float16, bfloat16, float32, float64) says which arithmetic is
    judged. Returns float64 arrays of the shapes of out and lse. Elements whose inputs are not finite get a bound that
    means nothing: `assert_close` wants NaN and inf to be equal there. A subset of the rows (of q and of the mask) gives
    the same numbers for those rows. Costs about four times `reference.attention`.
    """
    loss = Roundoff.of(np.asarray(q).dtype)
    ndim = np.ndim(q)
    q4, k4, v4 = (reference.four_axes(name, x, ndim, layout) for name, x in (("q", q), ("k", k), ("v", v)))
    heads, seq_q, head_dim = q4.shape[1:]
    kept = np.stack(reference.dense_masks(mask, heads, seq_q, k4.shape[2]))
    valid = reference.valid_keys(kv_lengths, len(q4), k4.shape[2], has_batch=ndim == 4)
    factor = 1 / sqrt(head_dim) if scale is None else float(scale)
    group = heads // k4.shape[1]

    out = np.empty((*q4.shape[:3], v4.shape[3]))
    lse = np.empty(q4.shape[:3])
    for b in range(len(q4)):
        k3, v3 = np.repeat(k4[b], group, axis=0), np.repeat(v4[b], group, axis=0)
        bounds = one_element(q4[b], k3, v3, kept & valid[b], factor, loss)
        out[b], lse[b] = bounds.out_bound, bounds.lse_bound
    if layout == "bshd":
        out = out.transpose(0, 2, 1, 3)
    return out.reshape((*np.shape(q)[:-1], v4.shape[3])), lse.reshape(lse.shape[4 - ndim :])


@dataclass(frozen=True, slots=True, eq=False)
class Element:
    """Attention of one batch element, with what may be lost: all arrays (heads, ...), non-finite inputs as 0.

    kept, weights and score_loss are (heads, seq_q, seq_kv): the pairs that weigh something, p, and E; largest is A of
    each row, (heads, seq_q).
    """

    q: Float64
    k: Float64
    v: Float64
    kept: Bool
    weights: Float64
    score_loss: Float64
    largest: Float64
    out: Float64
    lse: Float64
    out_bound: Float64
    lse_bound: Float64


def one_element(q: Float64, k: Float64, v: Float64, kept: Bool, scale: float, loss: Roundoff) -> Element:
    """Bounds for one batch element: all arrays (heads, ...), kept (heads, seq_q, seq_kv)."""
    kept = kept & ~(reference.sddmm(q, k, list(kept), scale=scale) < loss.lowest)
    masks = list(kept)
    q, k, v = finite(q), finite(k), finite(v)
    weights = reference.softmax(reference.sddmm(q, k, masks, scale=scale), masks)
    out, lse = reference.attention(q, k, v, masks, scale=scale, return_lse=True)
    terms = reference.sddmm(np.abs(q), np.abs(k), masks, scale=abs(scale))
    largest = terms.max(axis=-1, initial=0.0)

    score_loss = loss.unit * ((q.shape[-1] + 6) * terms + largest[..., None])
    shifted = weights * relative(score_loss)
    shift = shifted.sum(axis=-1)
    many = kept.sum(axis=-1)
    summing = (2 * many + 80) * loss.unit

    size, sizes = np.abs(out), np.abs(v)
    averaged = weights @ sizes
    computed = shifted @ sizes + shift[..., None] * size + summing[..., None] * (averaged + size)
    computed += loss.faint * many[..., None]
    rounded = computed + loss.weight * averaged + loss.tiny * (kept @ sizes)
    out_bound = rounded + loss.result * (size + rounded) + loss.tiny
    lse_bound = shift + summing + 8 * loss.unit * (np.abs(finite(lse)) + largest)
    return Element(q, k, v, kept, weights, score_loss, largest, out, lse, out_bound, lse_bound)


def relative(exponent_loss: Float64) -> Float64:
    """How far an error of the exponent may change an exponential, as a fraction of it.

    expm1, because the bound must hold beyond first order; 50 keeps it finite where nothing can be promised.
    """
    return np.expm1(np.minimum(exponent_loss, 50.0))


def finite(x: Float64) -> Float64:
    """Give x with 0 for NaN and inf."""
    return np.nan_to_num(x, posinf=0.0, neginf=0.0)


def assert_close(got: ArrayLike, wanted: ArrayLike, allowed: ArrayLike, *, name: str = "out") -> float:
    """Compare element by element: abs(got - wanted) <= allowed, and NaN and inf equal.

    got, wanted, allowed: real arrays of one shape. Returns the largest error as a fraction of what was allowed (0 for
    empty arrays). Raises AssertionError that names the worst index with what was wanted, got and allowed there.
    """
    got64, wanted64 = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    limit = np.asarray(allowed, np.float64)
    if got64.shape != wanted64.shape:
        raise AssertionError(f"{name}: wanted shape {wanted64.shape}, got {got64.shape}")
    if not got64.size:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        used = np.abs(got64 - wanted64) / limit
    special = ~(np.isfinite(wanted64) & np.isfinite(got64))
    same = (got64 == wanted64) | (np.isnan(got64) & np.isnan(wanted64))
    used = np.where(same, 0.0, np.where(special, np.inf, used))
    worst = np.unravel_index(int(np.argmax(used)), used.shape)
    if not used[worst] <= 1:
        index = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{name}{list(index)}: wanted {wanted64[worst]:.9g}, got {got64[worst]:.9g}, "
            f"error {abs(got64[worst] - wanted64[worst]):.3g}, allowed {limit[worst]:.3g} "
            f"({int((used > 1).sum())} of {used.size} elements differ by more than allowed)"
        )
    return float(used[worst])
