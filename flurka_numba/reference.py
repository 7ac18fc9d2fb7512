"""The oracles: every operator and its gradients in dense float64 NumPy, written to be obviously right.

Cases that a kernel might decide in its own way are decided here, once:

- Rows of k and v at or beyond a key length never reach anything, whatever they hold. attention and low_rank_attention
  take them as zeros, and all slots take part; kernel_attention leaves them out, because phi(0) is not 0.
- A row whose divisor is exactly 0 (no keys, no slots, or eps = 0 and no feature in common) gives out = 0, gradients 0.
- The stabilisers of "favor" (the largest exponent of a query row; of all slots of a head) have no gradient.
- A row of zeros has direction 0 under "rfa", and gradient 0.
- Where two cases of a map meet, its slope is that of the case which holds there.

Stages take and give arrays of (batch, heads, rows, columns). A stage that can be differentiated gives its result and
its `pull`: from the gradient of the result to the gradients of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flurka_numba.checks import ARRAYS, check_call
from flurka_numba.feature_maps import FeatureMap
from flurka_numba.problem import Call, Problem
from splat_numba.arguments.frozen import check_frozen
from splat_numba.arguments.options import check_kv_lengths
from splat_numba.arguments.results import check_fits
from splat_numba.errors import ArgumentTypeError
from splat_numba.plain import kind, real_array
from splat_numba.signatures import strict

Float64: TypeAlias = NDArray[np.float64]
Gradients: TypeAlias = tuple[Float64 | None, ...]
Vjp: TypeAlias = Callable[[ArrayLike], Gradients]
Pull: TypeAlias = Callable[[Any], Any]

__all__ = [
    "attention",
    "attention_vjp",
    "kernel_attention",
    "kernel_attention_vjp",
    "low_rank_attention",
    "low_rank_attention_vjp",
]


def attention(*args: Any, **options: Any) -> Float64:
    """FLuRKA: the arguments of `flurka_numba.attention` but for causal, backend, target and out. Gives float64."""
    return attention_vjp(*args, **options)[0]


def low_rank_attention(*args: Any, **options: Any) -> Float64:
    """Linformer: the arguments of `flurka_numba.low_rank_attention` but for causal, backend, target, out."""
    return low_rank_attention_vjp(*args, **options)[0]


def kernel_attention(*args: Any, **options: Any) -> Float64:
    """Linear attention: the arguments of `flurka_numba.kernel_attention` but for causal, backend, target, out."""
    return kernel_attention_vjp(*args, **options)[0]


@strict()
def attention_vjp(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, proj_k: ArrayLike, proj_v: ArrayLike | None = None, *,
    feature_map: Any = "elu", omega: ArrayLike | None = None, eps: float | None = None,
    kv_lengths: ArrayLike | None = None, frozen: Collection[str] = (),
) -> tuple[Float64, Vjp]:  # fmt: skip
    """Out and its pullback, as `flurka_numba.attention_vjp`: out_i = phi(q_i) S / divisor, S = phi(E k)^T (F v)."""
    call = Call("flurka", q, k, v, proj_k, proj_v, feature_map, omega, eps, kv_lengths=kv_lengths)
    return run(given(call), frozen)


@strict()
def low_rank_attention_vjp(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, proj_k: ArrayLike, proj_v: ArrayLike | None = None, *,
    scale: float | None = None, kv_lengths: ArrayLike | None = None, frozen: Collection[str] = (),
) -> tuple[Float64, Vjp]:  # fmt: skip
    """Out and its pullback, as `flurka_numba.low_rank_attention_vjp`: out = softmax(scale q (E k)^T) (F v)."""
    return run(given(Call("low_rank", q, k, v, proj_k, proj_v, scale=scale, kv_lengths=kv_lengths)), frozen)


@strict()
def kernel_attention_vjp(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, *,
    feature_map: Any = "elu", omega: ArrayLike | None = None, eps: float | None = None,
    kv_lengths: ArrayLike | None = None, frozen: Collection[str] = (),
) -> tuple[Float64, Vjp]:  # fmt: skip
    """Out and its pullback, as `flurka_numba.kernel_attention_vjp`: out_i = phi(q_i) S / divisor, S = phi(k)^T v."""
    call = Call("kernel", q, k, v, None, None, feature_map, omega, eps, kv_lengths=kv_lengths)
    return run(given(call), frozen)


@dataclass(frozen=True, slots=True)
class ExactCall:
    """A call in float64: arrays of four axes (projections of three), kept (batch, 1, seq_kv, 1), and q's own shape."""

    problem: Problem
    arrays: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    kept: NDArray[np.bool_]
    omega: Any


@dataclass(frozen=True, slots=True)
class _Shape:
    shape: tuple[int, ...]
    dtype: str = "float64"


def real(name: str, x: Any) -> Float64:
    """x in float64. Raises ArgumentTypeError for what holds no real numbers."""
    array = real_array(x)
    if array is None:
        raise ArgumentTypeError(f"{name} wanted as an array of real numbers, got {kind(x)}. Make one with np.asarray.")
    return array


def given(call: Call) -> ExactCall:
    """Check and convert the arguments. Raises ArgumentError."""
    needed = ("q", "k", "v") if call.method == "kernel" else ("q", "k", "v", "proj_k")
    names = [name for name in (*ARRAYS, "omega") if name in needed or getattr(call, name) is not None]
    arrays = {name: real(name, getattr(call, name)) for name in names}
    shapes = {name: array.shape for name, array in arrays.items()}
    problem = check_call(call, {name: _Shape(shape) for name, shape in shapes.items()})
    lengths = check_kv_lengths(call.kv_lengths, problem, len(shapes["q"]))
    kept = np.arange(problem.seq_kv)[None, None, :, None] < lengths[:, None, None, None]
    omega = arrays.pop("omega", None)
    whole = {name: x[(None,) * ((4 if name in ("q", "k", "v") else 3) - x.ndim)] for name, x in arrays.items()}
    return ExactCall(problem, whole, shapes, kept, omega)


@np.errstate(all="ignore")  # NaN and inf do as IEEE arithmetic says
def run(call: ExactCall, frozen: Collection[str] = ()) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Out in the caller's shape, and the function from its gradient to those of q, k, v, proj_k, proj_v."""
    kept_out = check_frozen(frozen, ARRAYS)
    problem, arrays, shape = call.problem, call.arrays, (*call.shapes["q"][:-1], call.problem.value_dim)
    k, v = (np.where(call.kept, arrays[name], 0.0) for name in ("k", "v"))
    if problem.method == "kernel":
        out, pull = kernelised(problem, arrays["q"], k, v, call.kept, call.omega)
    else:
        proj_v = arrays.get("proj_v", arrays["proj_k"])
        k_slots, v_slots = arrays["proj_k"] @ k, proj_v @ v
        if problem.method == "low_rank":
            out, pull = softmaxed(problem.scale, arrays["q"], k_slots, v_slots)
        else:
            every = np.ones((1, 1, problem.rank, 1), np.bool_)
            out, pull = kernelised(problem, arrays["q"], k_slots, v_slots, every, call.omega)

    @np.errstate(all="ignore")
    def vjp(dout: Any) -> tuple[Any, ...]:
        given = real("dout", dout)
        check_fits("dout", _Shape(given.shape), shape, "float64")
        dq, dk, dv = pull(np.reshape(given, out.shape))
        found = {"q": dq, "k": dk, "v": dv}
        if problem.method != "kernel":
            found |= projections(arrays["proj_k"], proj_v, k, v, dk, dv, shared=problem.shared_proj)
        found |= {name: np.where(call.kept, found[name], 0.0) for name in ("k", "v")}
        return tuple(
            np.reshape(found[name], call.shapes[name]) if name in found and name not in kept_out else None
            for name in ARRAYS
        )

    return np.reshape(out, shape), vjp


def projections(
    proj_k: Any, proj_v: Any, k: Any, v: Any, dk_slots: Any, dv_slots: Any, *, shared: bool
) -> dict[str, Any]:
    """Gradients of what the slots E k and F v are made from."""
    dproj_k = _sum_to(dk_slots @ _t(k), proj_k)
    dproj_v = _sum_to(dv_slots @ _t(v), proj_v)
    found = {"k": _t(proj_k) @ dk_slots, "v": _t(proj_v) @ dv_slots}
    return found | ({"proj_k": dproj_k + dproj_v} if shared else {"proj_k": dproj_k, "proj_v": dproj_v})


def kernelised(
    problem: Problem, q: Any, k: Any, v: Any, kept: NDArray[np.bool_], omega: Any
) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any]]]:
    """Attention by features over slots k, v, of which `kept` take part."""
    phi_q, pull_q = features(problem, q, omega, kept=None)
    all_phi_k, pull_k = features(problem, k, omega, kept=kept)
    phi_k = np.where(kept, all_phi_k, 0.0)
    state, z = _t(phi_k) @ v, _t(phi_k) @ _ones(k)
    divisor, slope = divisors(problem, phi_q @ z)
    out = _divide(phi_q @ state, divisor)

    def pull(dout: Any) -> tuple[Any, Any, Any]:
        g = _divide(dout, divisor)
        delta = -slope * _divide((dout * out) @ np.ones((v.shape[-1], 1)), divisor)
        dphi_q = g @ _t(state) + delta @ _t(z)
        dstate, dz = _t(phi_q) @ g, _t(phi_q) @ delta
        dphi_k = np.where(kept, v @ _t(dstate) + _ones(k) @ _t(dz), 0.0)
        return pull_q(dphi_q), pull_k(dphi_k), phi_k @ dstate

    return out, pull


def softmaxed(scale: float, q: Any, k: Any, v: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any, Any]]]:
    """Attention by softmax over slots k, v."""
    scores = scale * (q @ _t(k))
    powers = np.exp(scores - np.max(scores, axis=-1, keepdims=True, initial=-np.inf))
    weights = _divide(powers, powers @ _ones(k))

    def pull(dout: Any) -> tuple[Any, Any, Any]:
        dweights = dout @ _t(v)
        dscores = scale * weights * (dweights - (dweights * weights) @ _ones(k))
        return dscores @ k, _t(dscores) @ q, _t(weights) @ dout

    return weights @ v, pull


def divisors(problem: Problem, den: Any) -> tuple[Any, Any]:
    """What divides each row, and its derivative by den = phi(q).z."""
    if problem.denominator == "guarded":
        sign = np.where(den < 0.0, -1.0, 1.0)
        return sign * np.maximum(np.abs(den), problem.eps), np.where(np.abs(den) > problem.eps, 1.0, 0.0)
    return den + (problem.eps if problem.denominator == "plus_eps" else 0.0), 1.0


# Feature maps: x (batch, heads, rows, head_dim) -> (batch, heads, rows, features). kept: of slots; None for queries.


def features(problem: Problem, x: Any, omega: Any, kept: NDArray[np.bool_] | None) -> tuple[Any, Pull]:
    """phi of every row, and its pull."""
    phi = problem.feature_map
    if isinstance(phi, FeatureMap):
        y = phi.function(x)
        return y, lambda dy: dy * phi.slopes(x, y)
    if phi == "rfa":
        return _directions(x, omega)
    u = problem.head_dim**-0.25 * (x @ omega.T)
    if kept is None:
        return positive(x, omega, problem.eps, np.max(u, axis=-1, keepdims=True))
    of_kept = np.where(kept, u, -np.inf)
    return positive(x, omega, problem.eps, np.max(of_kept, axis=(-2, -1), keepdims=True, initial=-np.inf))


def positive(x: Any, omega: Any, eps: float, stab: Any) -> tuple[Any, Pull]:
    """FAVOR+: rows**-1/2 (exp(c x.w - c^2 |x|^2 / 2 - stab) + eps), c = head_dim**-1/4."""
    c, factor = x.shape[-1] ** -0.25, omega.shape[0] ** -0.5
    y = factor * (np.exp(c * (x @ omega.T) - c * c / 2.0 * ((x * x) @ _ones(_t(x))) - stab) + eps)

    def pull(dy: Any) -> Any:
        dexponents = dy * (y - factor * eps)
        return c * (dexponents @ omega) - c * c * x * (dexponents @ np.ones((omega.shape[0], 1)))

    return y, pull


def _directions(x: Any, omega: Any) -> tuple[Any, Pull]:
    """RFA: rows**-1/2 [sin(n.w), cos(n.w)], n = x / |x|."""
    length, factor = np.sqrt((x * x) @ _ones(_t(x))), omega.shape[0] ** -0.5
    n = _divide(x, length)
    angles = n @ omega.T

    def pull(dy: Any) -> Any:
        dsin, dcos = dy[..., : omega.shape[0]], dy[..., omega.shape[0] :]
        dn = factor * (dsin * np.cos(angles) - dcos * np.sin(angles)) @ omega
        return _divide(dn - n * ((n * dn) @ _ones(_t(x))), length)

    return factor * np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), pull


def _t(x: Any) -> Any:
    return np.swapaxes(x, -1, -2)


def _ones(x: Any) -> Float64:
    """A column of ones, as many as x has rows."""
    return np.ones((x.shape[-2], 1))


def _divide(x: Any, divisor: Any) -> Any:
    zero = divisor == 0.0
    return np.where(zero, 0.0, x / np.where(zero, 1.0, divisor))


def _sum_to(x: Any, like: Any) -> Any:
    """(batch, heads, rank, seq_kv) summed over the batch, and over the heads where ``like`` is shared by them."""
    total = np.sum(x, axis=0)
    return total if like.shape[0] == x.shape[1] else np.sum(total, axis=0, keepdims=True)
